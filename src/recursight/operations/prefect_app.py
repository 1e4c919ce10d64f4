"""Prefect's server behind the guard: `uvicorn --factory recursight.operations.prefect_app:create_app`."""

from recursight.operations.guard import Guard


def create_app() -> Guard:
    from prefect.server.api.server import create_app as create_server

    return Guard.of_environment(create_server(), {"/api/health", "/api/ready"}, app_asks_sockets=True)
