"""Fixtures: a trained project, a real MLflow server."""

from collections.abc import Iterator

import pytest

from tests.projects import own_environment, project, trained
from tests.tracking.servers import Server

__all__ = ["own_environment", "project", "server", "trained"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server; whoever kills it starts it again."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()
