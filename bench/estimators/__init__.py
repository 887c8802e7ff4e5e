"""Explanations beside the packages that give them in PyTorch: the same, and at what cost?"""
