"""Trained files out of ordinary packages: do they export, and is the gradient right?"""
