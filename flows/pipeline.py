"""The pipeline as a flow: every stage of dvc.yaml is a task; then results are tracked and the winner is registered.

DVC knows which stages there are, what they read and what has changed. Prefect decides when they run and how often
they are tried again, and records the outcome.
"""

import base64
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TagsContext
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows import stopping
from flows.live_display import LiveDisplay
from recursight.errors import InputError
from recursight.executors import EXECUTORS, StageFailed, StageRefused, clone
from recursight.executors.graph import changed, graph, longest_first
from recursight.files import read_json
from recursight.layout import Layout
from recursight.operations import cleanup
from recursight.params import Params, load

DAY_SECONDS = 24 * 60 * 60.0
MOST_STAGES_AT_ONCE = 64
EXECUTOR = EXECUTORS["local"]
PICTURES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Outcome:
    """What a pipeline run did.

    Attributes:
        ran: stages that had changed, and were run.
        registered: the fields of `registry.Registered`, of the winner; None if the registry cannot be reached.
    """

    ran: list[str]
    registered: dict[str, Any] | None


def may_succeed(task: Any, run: TaskRun, state: State[Any]) -> bool:
    """Whether another attempt may succeed: not after invalid input."""
    return not isinstance(state.result(raise_on_failure=False), InputError)


@task(
    task_run_name="{stage}",
    retries=2,
    retry_delay_seconds=[2, 20],
    retry_condition_fn=may_succeed,
    persist_result=False,
)
def run_stage(stage: str, has_changed: bool, timeout_seconds: float, display: LiveDisplay | None) -> State[None]:
    """One stage of dvc.yaml, by `dvc repro --single-item`."""
    if not has_changed:
        return Completed(name="Cached", message="unchanged: nothing to do")
    logger = get_run_logger()
    layout = Layout.find()
    with (display or LiveDisplay(silent=True)).stage(stage) as shown:
        try:
            for line in EXECUTOR.run(layout.root, stage, timeout_seconds=timeout_seconds):
                logger.info(line)
                shown.update(stage, line)
        except StageFailed:
            stopping.wait_for_shutdown()
            raise
    return Completed(message="done")


@task(persist_result=False)
def open_store() -> None:
    """Creates the tracking store if needed, and ends runs of killed processes, while the first stages run."""
    from recursight.tracking import Unreachable, ensure_store

    layout = Layout.find()
    with suppress(Unreachable):  # reported at the end, when there is something to send
        ensure_store(layout)
        _log(cleanup.mlflow_runs(layout, clear=True) + cleanup.decisions(layout, clear=True))


@task(retries=2, retry_delay_seconds=[2, 20], retry_condition_fn=may_succeed, persist_result=False)
def register_winner() -> dict[str, Any] | None:
    """Registers the winner unless it has a version already; if the registry is down, a later pipeline does."""
    from recursight.registry import register
    from recursight.tracking import Unreachable

    try:
        return asdict(register(Layout.find()))
    except Unreachable as error:
        get_run_logger().warning(str(error))
        return None


@task(persist_result=False)
def track() -> None:
    """Sends results that the tracking store lacks: those that were reused, or made while it was down."""
    from recursight.tracking import attempt_sync

    attempt_sync(Layout.find())


RUNNER: TaskRunner[PrefectFuture[Any]] = ThreadPoolTaskRunner(max_workers=MOST_STAGES_AT_ONCE)  # type: ignore[assignment]


@flow(name="pipeline", task_runner=RUNNER, persist_result=False)
def pipeline(jobs: int | None = None, stage_timeout_seconds: float = DAY_SECONDS) -> Outcome:
    """Brings every stage up to date, then tracking and registry.

    Args:
        jobs: stages at a time; by default the processors divided by the threads of a training.
        stage_timeout_seconds: a stage that takes longer is ended, and tried again.
    """
    # A task with tags asks the server for a slot under each, for up to two seconds; the owner's is the run's alone.
    layout = Layout.find()
    with clone.claim(layout), stopping.stoppable_flow(), TagsContext():
        return _pipeline(layout, jobs, stage_timeout_seconds)


def _pipeline(layout: Layout, jobs: int | None, stage_timeout_seconds: float) -> Outcome:
    params = load(layout.params)
    _log(cleanup.begin(layout))
    layout.require_data()
    stages = graph(layout.root)
    todo = changed(layout.root, stages)
    if any(stage.startswith("train@") for stage in todo):
        from recursight.stages.train import check  # imports torch, so only where something is to be trained

        check(params)
    logger = get_run_logger()
    logger.info("%d of %d stages have changed", len(todo), len(stages))
    opening = open_store.submit()
    try:
        with LiveDisplay(silent="RECURSIGHT_DISPLAY" not in os.environ) as display, stopping.on_exit(display.close):
            display.width = max(map(len, stages))
            _run_all(longest_first(layout, stages), todo, jobs or jobs_for(params), stage_timeout_seconds, display)
    except (StageRefused, StageFailed):
        track(return_state=True)  # nothing else sends the results of the stages that succeeded
        raise
    finally:
        EXECUTOR.end_all(stopping.STAGES_SECONDS)
    _show(layout)
    opening.wait()
    track()
    return Outcome(ran=[stage for stage in stages if stage in todo], registered=register_winner())


def _log(removed: list[cleanup.Leftover]) -> None:
    for each in removed:
        get_run_logger().warning("removed what a killed process left: %s %s", each.kind, each.what)


def jobs_for(params: Params) -> int:
    """Stages at a time: the processors divided by the threads of a training."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // params.train.threads)


def _run_all(
    stages: dict[str, set[str]], todo: set[str], jobs: int, timeout_seconds: float, display: LiveDisplay
) -> None:
    """Submits each stage as soon as its inputs are ready, at most `jobs` at a time, in their order.

    Raises:
        StageRefused: if a stage refused its input. Stages that do not need its output still run.
        StageFailed: if a stage failed in every attempt; the same holds for the other stages.
    """
    waiting = dict(stages)
    futures: dict[str, PrefectFuture[Any]] = {}
    at_work: dict[PrefectFuture[Any], str] = {}
    failures: list[BaseException] = []
    done: set[str] = set()
    while True:
        ready = [stage for stage, reads in waiting.items() if reads <= done]
        for stage in ready[: jobs - len(at_work)]:
            above = [futures[name] for name in waiting.pop(stage)]
            arguments: dict[str, Any] = {
                "stage": stage,
                "has_changed": stage in todo,
                "timeout_seconds": timeout_seconds,
            }
            named = run_stage.with_options(name=stage)
            futures[stage] = named.submit(**arguments, display=display, wait_for=above)
            at_work[futures[stage]] = stage
        if not at_work:
            break
        finished = next(as_completed(list(at_work)))
        stage = at_work.pop(finished)
        finished.wait()  # this state has the error; the one from the server does not
        if finished.state.is_completed():
            done.add(stage)
        else:
            failures.append(finished.result(raise_on_failure=False))
            display.print_line(stage, "failed")
    if failures:
        refused = all(isinstance(failure, InputError) for failure in failures)
        raise (StageRefused if refused else StageFailed)("\n".join(str(failure) for failure in failures))


def _show(layout: Layout) -> None:
    """Creates Prefect artifacts: the table, the winner's pictures, and a link to the report."""
    comparison = read_json(layout.comparison / "comparison.json")
    create_table_artifact(key="comparison", table=comparison["ranking"], description="Candidates, best first")
    winner, seed = comparison["winner"], comparison["winner_seed"]
    folder = layout.evaluation_of(winner, seed)
    images = [_embedded(path) for kind in PICTURES for path in sorted(folder.glob(f"*{kind}"))]
    report = (layout.comparison / "report.html").as_uri()
    create_markdown_artifact(
        key="winner",
        markdown="\n\n".join([f"# {winner}", *images, f"[Report]({report})"]),
        description="The winner's answers on the test split",
    )


def _embedded(path: Path) -> str:
    """A picture for Markdown, as a data URL."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f"![{path.stem}](data:{PICTURES[path.suffix]};base64,{content})"


if __name__ == "__main__":
    pipeline()
