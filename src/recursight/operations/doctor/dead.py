"""What killed processes left, in the words of findings; and its clearing away."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from recursight.errors import InputError
from recursight.layout import Layout
from recursight.operations import flow_runs, owners, reaping
from recursight.operations.doctor.finding import Finding, some
from recursight.operations.reaping import Dead

FIX = ("recursight doctor --fix",)
TIMEOUT_SECONDS = 4.0
HURRIED = {"MAX_RETRIES": "0", "TIMEOUT": "4", "BACKOFF_FACTOR": "0"}
PLURAL = {
    "process": "processes outlived their flow",
    "flow": "flows were killed; Prefect's temporary server may count their runs as running",
    "flow run": "flow runs count as running, and do not",
    "MLflow run": "MLflow runs count as running, and do not",
    "decision": "decisions on the champion were not carried out",
    "file": "files were half written",
    "lock": "notes of locks are stale",
    "import": "imports were cut off",
}


def left(layout: Layout) -> Iterator[Finding]:
    """On this machine and in Prefect."""
    dead = reaping.on_this_machine(layout, clear=False)
    prefect = flow_runs.Prefect.of_environment(TIMEOUT_SECONDS)
    if prefect is None:
        dead += [Dead("flow", f"process {owner.pid}") for owner in owners.departed(layout).values()]
    else:
        try:
            dead += reaping.runs_of_flows(layout, prefect, clear=False)
        except (OSError, ValueError):
            yield Finding("dead", "note", "Prefect does not answer: its flow runs were not looked at")
    yield from _findings(dead)


def left_in_mlflow(layout: Layout) -> Iterator[Finding]:
    """Runs and decisions. Imports MLflow."""
    from recursight.tracking import Unreachable
    from recursight.tracking.connection import tracking_uri

    database = Path(tracking_uri(layout).removeprefix("sqlite:///").partition("?")[0])
    if tracking_uri(layout).startswith("sqlite:///") and not database.exists():
        return
    try:
        dead = reaping.mlflow_runs(layout, clear=False, http=HURRIED)
        dead += reaping.decisions(layout, clear=False, http=HURRIED)
    except Unreachable as error:
        if "not a database" in str(error) or "malformed" in str(error):
            again = (f"mv {database} {database}.broken", "recursight track sync", "recursight register")
            yield Finding("mlflow", "mend", f"{database.name} is no database: results on disk go into a new one", again)
        else:
            yield Finding("dead", "note", f"MLflow does not answer: its runs were not looked at ({error})")
        return
    except InputError:
        yield Finding("dead", "note", "params.yaml is wrong: MLflow's runs were not looked at")
        return
    yield from _findings(dead)


def clear(layout: Layout) -> tuple[list[Dead], list[str]]:
    """Clears everything away.

    Returns:
        What was cleared, and sentences on what could not be looked at.
    """
    from recursight.tracking import Unreachable
    from recursight.tracking.connection import tracking_uri

    departed, refused = owners.departed(layout), []
    dead = reaping.on_this_machine(layout, clear=True)
    if departed or flow_runs.Prefect.of_environment():
        try:
            with flow_runs.prefect_of_flows() as prefect:  # a temporary one knows what the last one knew
                dead += reaping.runs_of_flows(layout, prefect, clear=True)
        except (OSError, RuntimeError, ValueError) as error:
            refused.append(f"Prefect does not answer, so its flow runs stay as they are: {error}")
    uri = tracking_uri(layout)
    if not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///").partition("?")[0]).exists():
        try:
            dead += reaping.mlflow_runs(layout, clear=True, http=HURRIED)
            dead += reaping.decisions(layout, clear=True, http=HURRIED)
        except (Unreachable, InputError) as error:
            refused.append(f"MLflow's runs stay as they are: {error}")
    return dead, refused


def _findings(dead: list[Dead]) -> Iterator[Finding]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for each in dead:
        kinds[each.kind].append(each.what)
    for kind, what in kinds.items():
        yield Finding("dead", "mend", f"{PLURAL[kind]}: {some(what)}", FIX)
