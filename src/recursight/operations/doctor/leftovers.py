"""Findings about leftovers of killed processes, and their removal."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from recursight.errors import InputError
from recursight.executors import clone
from recursight.layout import Layout
from recursight.operations import cleanup
from recursight.operations.cleanup import Leftover
from recursight.operations.doctor.finding import Finding, some
from recursight.operations.platform import prefect_for_flows
from recursight.operations.prefect_api import PrefectApi

FIX = ("recursight doctor --fix",)
TIMEOUT_SECONDS = 4.0
HURRIED = {"MAX_RETRIES": "0", "TIMEOUT": "4", "BACKOFF_FACTOR": "0"}
PLURAL = {
    "process": "processes outlived their flow",
    "flow": "flows were killed; Prefect may still show their runs as running",
    "flow run": "flow runs are shown as running but are not",
    "MLflow run": "MLflow runs are shown as running but are not",
    "decision": "decisions on the champion were not carried out",
    "file": "files were half written",
    "lock": "entries of locks are stale",
    "import": "imports were killed",
    "restore": "restorations were killed",
}


def left(layout: Layout) -> Iterator[Finding]:
    """Leftovers on this machine and in Prefect."""
    found = cleanup.on_this_machine(layout, clear=False)
    prefect = PrefectApi.configured(TIMEOUT_SECONDS)
    if prefect is None:
        found += [Leftover("flow", flow.name) for flow in clone.stale(layout).values()]
    else:
        try:
            found += cleanup.runs_of_flows(layout, prefect, clear=False)
        except (OSError, ValueError):
            yield Finding("leftovers", "note", "Prefect does not answer: its flow runs were not checked")
    yield from _findings(found)


def left_in_mlflow(layout: Layout) -> Iterator[Finding]:
    """Leftovers in MLflow: runs and decisions. Imports MLflow."""
    from recursight.tracking import Unreachable
    from recursight.tracking.connection import tracking_uri

    database = Path(tracking_uri(layout).removeprefix("sqlite:///").partition("?")[0])
    if tracking_uri(layout).startswith("sqlite:///") and not database.exists():
        return
    try:
        found = cleanup.mlflow_runs(layout, clear=False, http=HURRIED)
        found += cleanup.decisions(layout, clear=False, http=HURRIED)
    except Unreachable as error:
        if "not a database" in str(error) or "malformed" in str(error):
            again = (f"mv {database} {database}.broken", "recursight track sync", "recursight register")
            yield Finding(
                "mlflow", "fix", f"{database.name} is not a database: results on disk will go into a new one", again
            )
        else:
            yield Finding("leftovers", "note", f"MLflow does not answer: its runs were not checked ({error})")
        return
    except InputError:
        yield Finding("leftovers", "note", "params.yaml is invalid: MLflow's runs were not checked")
        return
    yield from _findings(found)


def clear(layout: Layout) -> tuple[list[Leftover], list[str]]:
    """Removes all leftovers of killed processes.

    Returns:
        The removed leftovers, and sentences on what could not be checked.
    """
    from recursight.tracking import Unreachable
    from recursight.tracking.connection import tracking_uri

    stale, refused = clone.stale(layout), []
    found = cleanup.on_this_machine(layout, clear=True)
    if stale or PrefectApi.configured():
        try:
            with prefect_for_flows(layout) as prefect:  # temporary servers share a database
                found += cleanup.runs_of_flows(layout, prefect, clear=True)
        except (OSError, RuntimeError, ValueError) as error:
            refused.append(f"Prefect does not answer, so its flow runs were not changed: {error}")
    uri = tracking_uri(layout)
    if not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///").partition("?")[0]).exists():
        try:
            found += cleanup.mlflow_runs(layout, clear=True, http=HURRIED)
            found += cleanup.decisions(layout, clear=True, http=HURRIED)
        except (Unreachable, InputError) as error:
            refused.append(f"MLflow's runs were not changed: {error}")
    return found, refused


def _findings(found: list[Leftover]) -> Iterator[Finding]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for each in found:
        kinds[each.kind].append(each.what)
    for kind, what in kinds.items():
        yield Finding("leftovers", "fix", f"{PLURAL[kind]}: {some(what)}", FIX)
