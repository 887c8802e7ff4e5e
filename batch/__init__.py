"""Explanations of a data lake: many images, many workers, every image exactly once."""
