"""Prefect's server behind the host check: `uvicorn --factory recursight.operations.prefect_app:create_app`."""

from recursight import processes
from recursight.executors.local import exit_with_parent
from recursight.host_check import HostCheck


def create_app() -> HostCheck:
    processes.reduce_garbage_collection()
    from prefect.server.api.server import create_app as create_server

    return HostCheck.of_environment(create_server(), {"/api/health", "/api/ready"}, app_asks_sockets=True)


def create_temporary_app() -> HostCheck:
    """A server without UI and schedules, for flows run from a terminal; it ends with them."""
    processes.reduce_garbage_collection()
    from prefect.server.api.server import create_app as create_server

    exit_with_parent()
    app = create_server(ephemeral=True, final=True)
    return HostCheck.of_environment(app, {"/api/health"}, app_asks_sockets=True)
