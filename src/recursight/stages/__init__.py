"""The steps of dvc.yaml: declared files in, library calls, declared files out."""
