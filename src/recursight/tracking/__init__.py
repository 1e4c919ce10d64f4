"""MLflow runs: what was trained, with what, and how well it went."""
