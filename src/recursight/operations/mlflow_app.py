"""MLflow's server behind the host check: `mlflow server --app-name recursight`."""

from recursight import processes
from recursight.host_check import HostCheck


def create_app() -> HostCheck:
    processes.reduce_garbage_collection()
    from mlflow.server.fastapi_app import app

    return HostCheck.of_environment(app, {"/health"})
