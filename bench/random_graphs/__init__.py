"""Operators of all kinds, put together at random: is the gradient what differences find?"""
