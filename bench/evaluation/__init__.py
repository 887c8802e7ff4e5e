"""Evaluations by explain graphs beside those by Quantus, Captum and PyTorch: scores and times."""
