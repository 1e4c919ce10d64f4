"""Drift: whether the images in production still resemble the test images."""
