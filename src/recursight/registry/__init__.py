"""MLflow's model registry: versions, aliases, and what a champion must reach."""
