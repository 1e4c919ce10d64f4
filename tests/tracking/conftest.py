"""Fixtures: a trained project, a real MLflow server."""

from tests.projects import own_environment, project, trained
from tests.tracking.servers import server

__all__ = ["own_environment", "project", "server", "trained"]
