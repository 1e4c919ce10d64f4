"""Fixtures: a trained project."""

from tests.projects import own_environment, project, trained

__all__ = ["own_environment", "project", "trained"]
