"""Retraining as a flow: if data, code or parameters are new, train, register and let the gate decide.

It runs on a schedule, after new data, or when somebody asks. What it did, and why, stands in its final state
(`Retrained` or `Unchanged`) and, with what was compared, in its artifact `retraining`.
"""

from dataclasses import dataclass
from typing import Any

from prefect import flow, get_run_logger, tags, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed

from flows import stopping
from flows.pipeline import DAY_SECONDS, pipeline, run_stage
from recursight.executors import clone
from recursight.layout import Layout
from recursight.operations import cleanup, flow_runs
from recursight.operations.sources import Sources, causes, settle_data

MOST_ROUNDS = 3  # of data that changes while it is trained on


@dataclass(frozen=True)
class Retraining:
    """What a retraining did.

    Attributes:
        changed: whether a stage ran or a version was made.
        reasons: what was new; where nothing was, empty.
        compared: versions of data, code and parameters, and the git commit.
        decision: the fields of `registry.Registered`, of the winner after the gate, and whether it was promoted now;
            None if the registry was down.
        cause: what asked for it, such as drift; None for the clock and for people.
    """

    changed: bool
    reasons: list[str]
    compared: dict[str, str | None]
    decision: dict[str, Any] | None
    cause: str | None = None

    @property
    def sentence(self) -> str:
        return self._outcome + (f" (asked for by drift: {self.cause})" if self.cause else "")

    @property
    def _outcome(self) -> str:
        if self.decision is None:
            model = "the registry cannot be reached: the next retraining, or `recursight register`, makes a version"
        else:
            model = "version {version} ({candidate}) is {alias}: {reason}".format(**self.decision)
        if not self.changed:
            return f"unchanged: data, code and parameters are those of the last time; {model}"
        return f"retrained: {'; '.join(self.reasons) or 'an earlier run was not complete'}; {model}"


@task(persist_result=False)
def settle() -> str | None:
    """Takes over new data: from data/ or from data.dvc."""

    def prepare() -> None:
        run_stage.fn("prepare", True, DAY_SECONDS, None)

    return settle_data(Layout.find(), prepare)


@task(persist_result=False)
def decide(registered: dict[str, Any] | None) -> dict[str, Any] | None:
    """Lets the gate decide whether the winner becomes champion.

    Asked after every retraining, also one that found nothing new: a kill may have come between training and gate.
    """
    from recursight.registry import promote
    from recursight.tracking import Unreachable

    if registered is None:
        return None
    promoted = registered["created"] and registered["alias"] == "champion"  # the first one
    if registered["alias"] == "challenger":
        try:
            answer = promote(Layout.find())
        except Unreachable as error:
            get_run_logger().warning(str(error))
        else:
            promoted = answer.promoted and not answer.repeated
            registered |= {"alias": "champion" if answer.promoted else "challenger", "reason": answer.reason}
    return registered | {"promoted": promoted}


@flow(name="retrain", persist_result=False)
def retrain(cause: str | None = None) -> State[Retraining]:
    """Trains again if data, code or parameters have changed; the gate decides what becomes of the result.

    Args:
        cause: the drift that asked for it, for the record. It does not make the same data train a new model.
    """
    layout = Layout.find()
    with clone.claim(layout) as process, stopping.stoppable_flow():
        cleanup.begin(layout)
        with tags(flow_runs.tag(process)):  # for the pipeline's run
            done = _retrain(layout, cause)
    return Completed(name="Retrained" if done.changed else "Unchanged", message=done.sentence, data=done)


def _retrain(layout: Layout, cause: str | None) -> Retraining:
    """Retrains in rounds, until the data did not change during a round."""
    logger = get_run_logger()
    reasons: list[str] = []
    changed = False
    for _ in range(MOST_ROUNDS):
        settled = settle()
        compared = Sources.of(layout)
        found = [settled] if settled else []
        found += [cause for cause in causes(layout) if not (settled and cause.startswith("data is"))]
        for reason in found:
            logger.info("new: %s", reason)
        outcome = pipeline()
        decision = decide(outcome.registered)
        reasons += found
        changed = changed or bool(found or outcome.ran or (decision and decision["created"]))
        if Sources.of(layout).data == compared.data:
            break
    done = Retraining(changed=changed, reasons=reasons, compared=compared.as_dict(), decision=decision, cause=cause)
    _record(done)
    return done


def _record(done: Retraining) -> None:
    """Creates the Prefect artifact, and an event if there is a new champion."""
    rows = {"outcome": "retrained" if done.changed else "unchanged", "reason": "; ".join(done.reasons) or "nothing new"}
    rows |= {"asked for by drift": done.cause} if done.cause else {}
    rows |= {what: version or "none" for what, version in done.compared.items()}
    decision = done.decision
    if decision:
        rows["model"] = f"{decision['name']} version {decision['version']} ({decision['candidate']})"
        rows[decision["alias"]] = decision["reason"]
    table = "\n".join(f"| {what} | {value} |" for what, value in rows.items())
    create_markdown_artifact(key="retraining", markdown=f"| | |\n|---|---|\n{table}", description=done.sentence)
    if decision and decision["promoted"]:
        name, version = decision["name"], str(decision["version"])
        payload = {"model": name} | {key: decision[key] for key in ("candidate", "version", "reason")}
        emit_event(
            "model.promoted", {"prefect.resource.id": f"recursight.model.{name}", "version": version}, payload=payload
        )


if __name__ == "__main__":
    retrain()
