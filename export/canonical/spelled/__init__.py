"""Operators that are spelled in others before the sweep: their forms, and the table of them."""
