"""Events that trigger Prefect's automations."""

import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from recursight.layout import Layout
from recursight.operations.prefect_api import PrefectApi

DATA_CHANGED = "data.changed"  # prefect.yaml retrains on it
DATA = "recursight.data"
MODEL_DRIFTED = "model.drifted"  # and on this, where its label says so
RETRAIN = "recursight.retrain"
TIMEOUT_SECONDS = 3.0


def data_changed(layout: Layout) -> bool:
    """Sends the event that data/ has changed, which starts a deployed retraining; returns like `send`."""
    return send(DATA_CHANGED, {"prefect.resource.id": DATA, "prefect.resource.name": str(layout.data)})


def model_drifted(name: str, retrain: bool, payload: dict[str, Any]) -> bool:
    """Sends the event that a model's images differ from those it was tested on; returns like `send`.

    Args:
        name: of the registered model.
        retrain: whether a deployed retraining starts.
        payload: `sentence`, `version`, and what else a reader of the event may want; `model` is added.
    """
    labels = {"prefect.resource.id": f"recursight.model.{name}", RETRAIN: "yes" if retrain else "no"}
    return send(MODEL_DRIFTED, labels, {"model": name} | payload)


def send(event: str, resource: dict[str, str], payload: dict[str, Any] | None = None) -> bool:
    """Sends one event; best effort, raises nothing.

    Returns:
        Whether a Prefect server received it; False if none is configured or it does not answer in time.
    """
    with suppress(Exception):  # an import must not fail because no server receives the event
        prefect = PrefectApi.configured(TIMEOUT_SECONDS)
        if prefect is None:
            return False
        content = {
            "id": str(uuid.uuid4()),
            "event": event,
            "occurred": datetime.now(UTC).isoformat(),
            "resource": resource,
            "payload": payload or {},
        }
        prefect.ask("/events", [content])
        return True
    return False
