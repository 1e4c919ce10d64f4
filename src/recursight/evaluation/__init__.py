"""Honest figures: scores with intervals, pictures of mistakes, and candidates side by side."""
