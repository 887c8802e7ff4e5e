"""Explained frames of a video, a camera or a stream."""
