"""Drift: whether what a model is asked now is still what it was tested on."""
