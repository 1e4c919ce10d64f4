"""MLflow's server behind the guard: `mlflow server --app-name recursight`."""

from recursight.operations.guard import Guard


def create_app() -> Guard:
    from mlflow.server.fastapi_app import app

    return Guard.of_environment(app, {"/health"})
