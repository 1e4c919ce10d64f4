"""Fixtures: a real MLflow server."""

from tests.tracking.servers import server

__all__ = ["server"]
