"""Predictions by the champion."""
