"""Events that Prefect's automations act upon."""

import base64
import json
import urllib.request
import uuid
from contextlib import suppress
from datetime import UTC, datetime

from recursight.layout import Layout

DATA_CHANGED = "data.changed"  # prefect.yaml retrains on it
DATA = "recursight.data"
TIMEOUT_SECONDS = 3.0


def data_changed(layout: Layout) -> bool:
    """Tells Prefect that data/ is new, so that a deployed retraining starts; best effort, raises nothing.

    Returns:
        Whether a Prefect server took it; False where none is configured or it does not answer in time.
    """
    from prefect.settings import get_current_settings

    with suppress(Exception):  # an import must not fail for want of a listener
        api = get_current_settings().api
        if not api.url:
            return False
        headers = {"Content-Type": "application/json"}
        if api.auth_string:
            token = base64.b64encode(api.auth_string.get_secret_value().encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        elif api.key:
            headers["Authorization"] = f"Bearer {api.key.get_secret_value()}"
        event = {
            "id": str(uuid.uuid4()),
            "event": DATA_CHANGED,
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": DATA, "prefect.resource.name": str(layout.data)},
        }
        request = urllib.request.Request(f"{api.url}/events", json.dumps([event]).encode(), headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return bool(answer.status < 300)
    return False
