"""Recurrent networks that see: stems, scans, layers and readouts, put together by name."""
