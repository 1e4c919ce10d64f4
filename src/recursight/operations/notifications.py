"""Notifications: a webhook is called when a deployed run fails, a model becomes champion, or its images drift."""

from recursight.errors import InputError
from recursight.operations.events import MODEL_DRIFTED
from recursight.operations.prefect_api import PrefectApi

BLOCK = "recursight"
FAILURE = "recursight: failed run"
PROMOTION = "recursight: new champion"
DRIFT = "recursight: drift"


def notify(url: str) -> list[str]:
    """Creates or replaces the automations in the Prefect server of the settings.

    Args:
        url: receives a POST with JSON `{"text": ...}`, which Slack, Mattermost and many others accept.

    Returns:
        The names of the automations.

    Raises:
        InputError: if the address is no HTTP address or no server is set.
    """
    from prefect.automations import Automation
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.client.orchestration import get_client
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import EventTrigger

    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r} is not the address of a webhook: it must begin with https:// or http://.")
    if PrefectApi.configured() is None:
        raise InputError("no Prefect server is set: `recursight up` starts one, or set PREFECT_API_URL.")
    block = CustomWebhookNotificationBlock(
        name=BLOCK, url=url, method="POST", json_data={"text": "{{subject}}\n{{body}}"}, timeout=10
    )
    document = block.save(BLOCK, overwrite=True)
    failed = EventTrigger(
        expect={f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "deployment"},  # who starts a flow by hand sees it fail
        for_each={"prefect.resource.id"},
        posture="Reactive",
        threshold=1,
    )
    promoted, drifted = (
        EventTrigger(
            expect={event},
            match={"prefect.resource.id": "recursight.model.*"},
            posture="Reactive",
            threshold=1,
        )
        for event in ("model.promoted", MODEL_DRIFTED)
    )
    texts = {
        FAILURE: (
            failed,
            "{{ deployment.name }}: run {{ flow_run.name }} {{ flow_run.state.name }}",
            "{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
        ),
        PROMOTION: (
            promoted,
            "{{ event.payload.model }} version {{ event.payload.version }} is champion",
            "{{ event.payload.candidate }}: {{ event.payload.reason }}",
        ),
        DRIFT: (
            drifted,
            "{{ event.payload.model }} version {{ event.payload.version }} has drifted: other images arrive",
            "{{ event.payload.sentence }}",
        ),
    }
    with get_client(sync_client=True) as client:
        for name, (trigger, subject, body) in texts.items():
            for existing in client.read_automations_by_name(name):
                client.delete_automation(existing.id)
            action = SendNotification(block_document_id=document, subject=subject, body=body)
            Automation(name=name, trigger=trigger, actions=[action]).create()
    return list(texts)
