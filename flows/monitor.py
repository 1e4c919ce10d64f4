"""Monitoring as a flow: the champion's logged predictions against its reference.

It ends as `Steady`, `Drifted` or `Waiting` (too little to compare). Drift sends `model.drifted`, on which prefect.yaml
starts `retrain/scheduled`; the artifact `drift` holds the figures.
"""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from recursight.layout import Layout
from recursight.operations.monitor import DriftCheck, check_drift

ALARMS = {
    "none": "",
    "sent": "the alarm was sent.",
    "repeated": "the alarm was sent before, and is not repeated yet.",
    "unheard": "no Prefect server took the alarm; it is sent again next time.",
}


@flow(name="monitor", persist_result=False)
def monitor() -> State[DriftCheck]:
    """Checks for drift once."""
    found = check_drift(Layout.find())
    logger = get_run_logger()
    (logger.warning if found.drifted else logger.info)(" ".join([found.sentence, ALARMS[found.alarm]]).strip())
    if found.verdict is None:
        return Completed(name="Waiting", message=found.sentence, data=found)
    create_markdown_artifact(key="drift", markdown=_markdown(found), description=found.sentence)
    return Completed(name="Drifted" if found.drifted else "Steady", message=found.sentence, data=found)


def _markdown(found: DriftCheck) -> str:
    assert found.verdict is not None
    assert found.report is not None
    rows = [
        f"| {feature.name} | {'**yes**' if feature.drifted else 'no'} | {feature.psi:.3f} | {feature.p_value:.2g} |"
        for feature in found.verdict.features
    ]
    table = "\n".join(["| feature | drift | PSI | p-value |", "|---|---|---|---|", *rows])
    text = " ".join([found.sentence, ALARMS[found.alarm]]).strip()
    return f"# {'Drift' if found.drifted else 'No drift'}\n\n{text}\n\n{table}\n\n[Report]({found.report.as_uri()})"


if __name__ == "__main__":
    monitor()
