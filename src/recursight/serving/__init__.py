"""Predictions by the champion: over HTTP, for files, for whole folders; and the log of them."""
