"""Completes the tracking store from the files on disk."""

import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from filelock import FileLock

from recursight.layout import Layout
from recursight.params import Params, load
from recursight.tracking import pending, runs
from recursight.tracking.connection import Unreachable, connect, experiment_id, outages, tracking_uri, unreachable
from recursight.tracking.results import Result, results
from recursight.tracking.sending import send

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONSEQUENCE = "nothing is lost; `recursight track sync` sends what is missing."


@dataclass
class SyncResult:
    """What a synchronisation did.

    Attributes:
        trainings: names of the runs that were logged.
        evaluations: names of the runs that got their evaluation.
        unchanged: how many results were complete already.
        ended: how many runs were ended because their process had died.
    """

    trainings: list[str] = field(default_factory=list)
    evaluations: list[str] = field(default_factory=list)
    unchanged: int = 0
    ended: int = 0


def sync(layout: Layout, passes: int = 3) -> SyncResult:
    """Sends the trainings and evaluations that the tracking store has not seen; ends runs whose process died.

    Args:
        layout: of the project.
        passes: attempts for results that fail, for connections that lose requests.

    Raises:
        Unreachable: if the store does not answer or still fails; what is missing is kept for the next time.
        InputError: if params.yaml is wrong, or the experiment was deleted.
    """
    params, outcome = load(layout.params), SyncResult()
    with FileLock(lock_path(layout)):
        missing = _distinct([*results(layout), *pending.kept(layout)])
        try:
            client = connect(layout)
            experiment = experiment_id(client, layout, params.registry.experiment)
            outcome.ended = len(runs.end_leftovers(client, experiment))
            for remaining in reversed(range(passes)):
                failures = _send_all(client, layout, params, experiment, missing, outcome)
                missing = [result for result, _ in failures]
                if failures and not remaining:
                    raise failures[0][1]
        except outages() as error:
            for result in missing:
                pending.keep(layout, result)
            raise unreachable(tracking_uri(layout), error, CONSEQUENCE) from None
    outcome.trainings.sort()
    outcome.evaluations.sort()
    return outcome


def attempt_sync(layout: Layout) -> SyncResult | None:
    """Like `sync`, but if the store is down prints one sentence to stderr and returns None."""
    try:
        return sync(layout)
    except Unreachable as error:
        print(error, file=sys.stderr, flush=True)
        return None


def lock_path(layout: Layout) -> str:
    """Held while runs are completed, so that no result gets two."""
    path = layout.lock("tracking")
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)


def _send_all(
    client: "MlflowClient",
    layout: Layout,
    params: Params,
    experiment: str,
    missing: Iterable[Result],
    outcome: SyncResult,
) -> list[tuple[Result, Exception]]:
    """Sends results and returns those that failed; over HTTP in parallel."""

    def attempt(result: Result) -> tuple[Result, Exception] | None:
        try:
            training, evaluation = send(client, layout, params, experiment, result)
        except outages() as error:
            return (result, error) if result.exists else None
        pending.forget(layout, result)
        name = runs.run_name(params, result.card["candidate"], result.card["seed"])
        outcome.trainings += [name] * training
        outcome.evaluations += [name] * evaluation
        outcome.unchanged += not training and not evaluation
        return None

    with ThreadPoolExecutor(8 if tracking_uri(layout).startswith("http") else 1) as pool:
        return [failure for failure in pool.map(attempt, missing) if failure]


def _distinct(candidates: list[Result]) -> list[Result]:
    """Each result once, preferably evaluated."""
    by_digest: dict[str, Result] = {}
    for result in candidates:
        if result.digest not in by_digest or (result.evaluation and not by_digest[result.digest].evaluation):
            by_digest[result.digest] = result
    return list(by_digest.values())
