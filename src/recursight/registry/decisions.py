"""The history of decisions: one MLflow run each, in a separate experiment, never changed afterwards.

MLflow keeps no history of its aliases. A run is created with all its tags in one request, and the whole decision is one
of them, so that a killed writer leaves a complete decision or none, and writers never wait for each other.

A decision is written before the alias moves, and its run ends after that has been reported: a run that is still
running although its process has ended marks an interrupted command, which `settle` completes. Decisions are numbered;
their order does not depend on any clock.
"""

import json
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from recursight.errors import InputError
from recursight.layout import Layout
from recursight.provenance import git_commit
from recursight.registry.versions import CHALLENGER, CHAMPION, version_number
from recursight.tracking.connection import experiment_id
from recursight.tracking.runs import flattened, has_lost_owner, owner_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RECORD = "recursight.decision"
QUESTION = "recursight.question"
REQUEST = "recursight.request"  # id of the request that wrote a decision; the same if it was sent twice
SEQUENCE = "recursight.sequence"
CLAIM_SECONDS = 300.0  # after which an unfinished decision of another machine is ignored
ATTEMPTS = 20
RECORD_LIMIT = 8000  # characters of a tag
REASON_LIMIT = 2000
PAGE = 1000
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Decision:
    """Which version is in production, and why.

    Attributes:
        kind: `first` (the first champion), `promote` (the gate) or `rollback` (by hand).
        version: the version that it is about; None if there was nothing to decide.
        candidate: its name in params.yaml.
        champion: the champion before; None if there was none.
        promoted: whether the version became champion.
        reason: in a sentence.
        numbers: the measurements behind it; empty if nothing was tested.
        rule: the parameters that decided.
        data_digest: of the store whose test split was used.
        data_md5: DVC's digest of the raw data.
        git_commit: of the project at that time.
        question: digest of versions, data and rule.
        at: date and time, UTC.
        host: name of the machine.
        sequence: its number in the history, from 1; 0 for decisions of earlier releases, which are older.
        id: of its MLflow run; None if it is not in the history.
        repeated: whether it was found in the history, as the answer to the same question.
        resumed: whether an interrupted command had recorded it, and this command completed it.
    """

    kind: str
    version: int | None
    candidate: str
    champion: int | None
    promoted: bool
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)
    rule: dict[str, Any] = field(default_factory=dict)
    data_digest: str | None = None
    data_md5: str | None = None
    git_commit: str | None = None
    question: str = ""
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    host: str = field(default_factory=socket.gethostname)
    sequence: int = 0
    id: str | None = None
    repeated: bool = False
    resumed: bool = False

    @property
    def live(self) -> int | None:
        """The version in production afterwards."""
        return self.version if self.promoted else self.champion


Report = Callable[[Decision], None]


def no_report(decision: Decision) -> None:
    """For callers that use the returned decision."""


class ChampionMoved(RuntimeError):
    """Another clone is moving the alias `champion`, or has just moved it."""


def retry_if_champion_moved(act: Callable[P, R]) -> Callable[P, R]:
    """Repeats a function if another clone moved the champion meanwhile."""

    @wraps(act)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(ATTEMPTS):
            try:
                return act(*args, **kwargs)
            except ChampionMoved:
                time.sleep(random.uniform(0.2, 2.0))  # random, so that two clones do not collide again
        raise InputError("Other clones keep moving the champion: try again when they are done.")

    return attempt


def decide(
    client: "MlflowClient", layout: Layout, name: str, decision: Decision, report: Report = no_report
) -> Decision:
    """Records a decision, then moves the alias if the version was promoted; returns it with its id.

    A file lock separates processes of one clone. Clones share only MLflow, which has no compare-and-set. So the
    decision is written first, as a claim; a writer that then finds another claim, or another champion than the one it
    decided about, deletes its own. Of two concurrent writers, at least one sees the other.

    Args:
        client: of the store.
        layout: of the project.
        name: of the registered model.
        decision: without its id, number and git commit.
        report: receives the result while the decision still counts as interrupted if this process is killed. So the
            same command, given again, reports it instead of deciding a second time.

    Raises:
        ChampionMoved: the alias has not moved, and the decision is not recorded.
    """
    written = _write(client, layout, name, replace(decision, git_commit=git_commit(layout.root)))
    if written.promoted:
        if _is_moved_elsewhere(client, name, written):
            client.delete_run(str(written.id))
            raise ChampionMoved
        set_champion(client, name, written)
    report(written)
    client.set_terminated(str(written.id), "FINISHED")
    return written


def _is_moved_elsewhere(client: "MlflowClient", name: str, written: Decision) -> bool:
    """Whether there is another claim, or another champion than the decision names; deletes duplicates of its own."""
    own = client.get_run(str(written.id)).data.tags[REQUEST]
    moved = False
    for run in _under_way(client, name):
        if run.info.run_id == written.id or run.data.tags.get("promoted") != "yes":
            continue
        if run.data.tags.get(REQUEST) == own:  # sent twice, because the response was lost
            client.delete_run(run.info.run_id)
        elif not has_lost_owner(run) and run.info.start_time > (time.time() - CLAIM_SECONDS) * 1000:
            moved = True
    return moved or version_number(client, name, CHAMPION) != written.champion


def set_champion(client: "MlflowClient", name: str, decision: Decision) -> None:
    """Makes a version champion; it loses the alias `challenger`."""
    client.set_registered_model_alias(name, CHAMPION, str(decision.version))
    if version_number(client, name, CHALLENGER) == decision.version:
        client.delete_registered_model_alias(name, CHALLENGER)


def settle(client: "MlflowClient", name: str, report: Report = no_report) -> Decision | None:
    """Completes the decisions of killed processes, unless the champion is another by now.

    Args:
        client: of the store.
        name: of the registered model.
        report: see `decide`.

    Returns:
        The decision that put the present champion into production, if it was one of these. A command that is about to
        decide must stop then: its user has not seen the change yet.
    """
    completed = None
    for run in unsettled(client, name):
        if decision := _read(run):
            _log_numbers(client, run.info.run_id, decision)
            live = version_number(client, name, CHAMPION)
            if decision.promoted and live in (decision.champion, decision.version):
                set_champion(client, name, decision)
                completed = replace(decision, resumed=True)
                report(completed)
        client.set_terminated(run.info.run_id, "FINISHED")
    return completed


def unsettled(client: "MlflowClient", name: str) -> "list[Run]":
    """Decisions that were recorded by processes that have died since, before they were complete; oldest first."""
    found = (run for run in _under_way(client, name) if has_lost_owner(run))
    return sorted(found, key=lambda run: run.data.tags.get(SEQUENCE, ""))


def _under_way(client: "MlflowClient", name: str) -> "list[Run]":
    experiment = client.get_experiment_by_name(experiment_name(name))
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"))


def history(client: "MlflowClient", name: str, most: int | None = None) -> list[Decision]:
    """Decisions on a registered model, newest first.

    Args:
        client: of the store.
        name: of the registered model.
        most: maximum number; all by default.
    """
    experiment = client.get_experiment_by_name(experiment_name(name))
    if experiment is None:
        return []
    decisions = (_read(run) for run in _runs(client, experiment.experiment_id, most))
    found = [decision for decision in decisions if decision]
    return found if most is None else found[:most]


def experiment_name(name: str) -> str:
    return f"{name}-decisions"


def last_move(past: list[Decision]) -> Decision | None:
    """The newest decision that moved the alias."""
    return next((decision for decision in past if decision.promoted), None)


def _write(client: "MlflowClient", layout: Layout, name: str, decision: Decision) -> Decision:
    last = history(client, name, most=1)
    decision = replace(decision, sequence=last[0].sequence + 1 if last else 1)
    record = asdict(replace(decision, reason=decision.reason[:REASON_LIMIT]))
    for field_name in ("id", "repeated", "resumed"):
        record.pop(field_name)
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    assert len(text) <= RECORD_LIMIT, "the numbers of a decision do not grow with the number of classes"
    tags = {
        RECORD: text,
        SEQUENCE: f"{decision.sequence:012d}",  # MLflow sorts tags as text
        QUESTION: decision.question,
        REQUEST: uuid.uuid4().hex,
        "kind": decision.kind,
        "version": str(decision.version),
        "candidate": decision.candidate,
        "champion": str(decision.champion),
        "promoted": "yes" if decision.promoted else "no",
        "git_commit": decision.git_commit or "none",
        "mlflow.note.content": decision.reason[:REASON_LIMIT],
        **owner_tags(layout.root),
    }
    experiment = experiment_id(client, layout, experiment_name(name))
    verb = "becomes champion" if decision.promoted else "stays out"
    run = client.create_run(experiment, tags=tags, run_name=f"version {decision.version} {verb}")
    _log_numbers(client, run.info.run_id, decision)
    return replace(decision, id=str(run.info.run_id))


def _log_numbers(client: "MlflowClient", run_id: str, decision: Decision) -> None:
    """Logs the numbers as metrics and parameters too, so that MLflow's pages can chart and sort them."""
    from mlflow.entities import Metric, Param

    moment = round(datetime.fromisoformat(decision.at).timestamp() * 1000)
    numbers = {key: value for key, value in flattened(decision.numbers).items() if isinstance(value, int | float)}
    client.log_batch(
        run_id,
        metrics=[Metric(key, float(value), moment, 0) for key, value in numbers.items()],
        params=[Param(key, str(value)) for key, value in flattened(decision.rule).items()],
    )


def _runs(client: "MlflowClient", experiment: str, most: int | None) -> "Iterator[Run]":
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment],
            max_results=min(PAGE, most or PAGE),
            order_by=[f"tags.`{SEQUENCE}` DESC", "attributes.start_time DESC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token or most:
            return


def _read(run: "Run") -> Decision | None:
    """The decision that a run records; None for a run that is not one of recursight's."""
    text = run.data.tags.get(RECORD)
    if text is None:
        return None
    known = {item.name for item in fields(Decision)}
    record = {key: value for key, value in json.loads(text).items() if key in known}
    return Decision(**record, id=str(run.info.run_id))
