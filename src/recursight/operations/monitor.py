"""One check for drift: the champion's logged predictions against its reference, a report, and an alarm."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from filelock import FileLock

from recursight.files import read_json, write_json, write_text
from recursight.layout import Layout
from recursight.monitoring.compare import Drift, compare
from recursight.monitoring.report import Subject, render
from recursight.operations import events
from recursight.params import Monitor, Params, load
from recursight.registry import CHAMPION, version_with
from recursight.registry.reference import reference_of_version
from recursight.serving.prediction_log import read_log
from recursight.tracking import connect
from recursight.tracking.connection import experiment_id
from recursight.tracking.sending import log

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MOST_REPORTS = 200
NAMED = 4  # features in a sentence

Alarm = Literal["none", "sent", "repeated", "unheard"]


@dataclass(frozen=True)
class DriftCheck:
    """The result of a check for drift.

    Attributes:
        model: name of the registered model.
        version: the champion; None if there is none.
        candidate: its name in params.yaml.
        at: when, UTC.
        sentence: the outcome in words.
        verdict: None if there was too little to compare.
        report: HTML page, with its figures as JSON beside it; None if there was too little to compare.
        alarm: `none` (no drift), `sent`, `repeated` (already sent), or `unheard` (no Prefect server received it).
    """

    model: str
    version: int | None
    candidate: str
    at: datetime
    sentence: str
    verdict: Drift | None = None
    report: Path | None = None
    alarm: Alarm = "none"

    @property
    def drifted(self) -> bool:
        return self.verdict is not None and bool(self.verdict.drifted)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "at": self.at.isoformat(timespec="seconds"),
            "report": str(self.report) if self.report else None,
            "drifted": self.drifted,
        }


def check_drift(layout: Layout) -> DriftCheck:
    """Checks for drift, writes a report, records it in MLflow, and sends the alarm if there is one.

    Raises:
        InputError: if params.yaml is invalid.
        Unreachable: if MLflow does not answer.
    """
    params = load(layout.params)
    client = connect(layout)
    version = version_with(client, params.registry.model_name, CHAMPION)
    layout.monitoring.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.monitoring / "lock"):
        found = _compare(layout, params, version)
        if found.verdict is None:
            return found
        found = replace(found, alarm=_alarm(layout, params.monitor, found))
        assert found.report is not None
        assert version is not None
        write_json(found.report.with_suffix(".json"), found.as_dict())
        _sweep(layout.monitoring)
        _track(client, layout, params, version, found)
    return found


def _compare(layout: Layout, params: Params, version: "ModelVersion | None") -> DriftCheck:
    settings, name, now = params.monitor, params.registry.model_name, datetime.now(UTC)
    if version is None:
        return DriftCheck(name, None, "", now, f"{name} has no champion yet: nothing to compare.")
    number = int(version.version)
    found = DriftCheck(name, number, version.tags.get("candidate", "?"), now, "")
    rows = read_log(layout.predictions, now - timedelta(hours=settings.window_hours))
    window = rows[(rows["model"] == name) & (rows["version"] == number)].tail(settings.window_rows)
    subject = f"version {number} ({found.candidate})"
    if len(window) < settings.minimum_rows:
        sentence = (
            f"{subject} made {len(window):,} predictions in the last {settings.window_hours:g} hours; at least "
            f"{settings.minimum_rows:,} are needed for a check (monitor.minimum_rows)."
        )
        return replace(found, sentence=sentence)
    reference = reference_of_version(layout, version)
    if reference is None:
        sentence = f"{subject} was registered without a reference; the next version will have one."
        return replace(found, sentence=sentence)
    verdict = compare(reference, window, level=settings.level, psi_floor=settings.psi_floor)
    found = replace(found, verdict=verdict, sentence=sentence_of(subject, verdict))
    report = layout.monitoring / f"{now:%Y%m%dT%H%M%S.%f}Z-version-{number}.html"
    about = Subject(name, number, found.candidate, window["time"].min(), window["time"].max(), _sources(window))
    write_text(report, render(about, found.sentence, verdict, reference, window, params.built_task.summary_titles))
    return replace(found, report=report)


def sentence_of(subject: str, verdict: Drift) -> str:
    """Such as `version 3 (gru): 2,000 predictions differ from its reference in brightness (PSI 3.1), ...`."""
    drifted = verdict.drifted
    if not drifted:
        return f"{subject}: {verdict.rows:,} predictions are like its reference."
    named = [f"{feature.name} (PSI {feature.psi:.2f})" for feature in drifted[:NAMED]]
    more = f" and {len(drifted) - NAMED} more" if len(drifted) > NAMED else ""
    return f"{subject}: {verdict.rows:,} predictions differ from its reference in {', '.join(named)}{more}."


def _sources(window: pd.DataFrame) -> dict[str, int]:
    return {str(source): int(count) for source, count in window["source"].value_counts().sort_index().items()}


def _alarm(layout: Layout, settings: Monitor, found: DriftCheck) -> Alarm:
    """Sends the alarm, unless one for the same version is recent. An alarm that no server received is sent again."""
    if not found.drifted:
        return "none"
    last = layout.monitoring / "alarm.json"
    if last.is_file():
        sent = read_json(last)
        age = found.at - datetime.fromisoformat(sent["at"])
        if sent["version"] == found.version and age < timedelta(hours=settings.repeat_hours):
            return "repeated"
    assert found.verdict is not None
    payload = {
        "sentence": found.sentence,
        "version": found.version,
        "candidate": found.candidate,
        "features": {feature.name: feature.psi for feature in found.verdict.drifted},
        "report": found.report.as_uri() if found.report else "",
    }
    if not events.model_drifted(found.model, settings.retrain, payload):
        return "unheard"
    write_json(last, {"version": found.version, "at": found.at.isoformat(), "sentence": found.sentence})
    return "sent"


def _sweep(folder: Path) -> None:
    """Drops the oldest reports; names begin with their time."""
    for suffix in ("html", "json"):
        for report in sorted(folder.glob(f"[0-9]*.{suffix}"))[:-MOST_REPORTS]:
            report.unlink(missing_ok=True)


def _track(client: "MlflowClient", layout: Layout, params: Params, version: "ModelVersion", found: DriftCheck) -> None:
    """One run for each version, in a separate experiment: each check is a step, so that charts show drift over time."""
    from mlflow.entities import Metric

    assert found.verdict is not None
    assert found.report is not None
    experiment = experiment_id(client, layout, f"{params.registry.experiment}-monitoring")
    condition = f"tags.model = '{version.name}' and tags.version = '{version.version}'"
    known = client.search_runs([experiment], condition, order_by=["attributes.start_time ASC"], max_results=1)
    tags = {"model": version.name, "version": str(version.version), "candidate": found.candidate}
    name = f"version {version.version} ({found.candidate})"
    run = known[0] if known else client.create_run(experiment, tags=tags, run_name=name)
    run_id, at = run.info.run_id, round(found.at.timestamp() * 1000)
    step = len(client.get_metric_history(run_id, "rows"))
    values: dict[str, float] = {"drifted_features": len(found.verdict.drifted)}
    for feature in found.verdict.features:
        values |= {f"psi/{feature.name}": feature.psi, f"p_value/{feature.name}": feature.p_value}
    values["rows"] = found.verdict.rows  # last: it counts the steps
    log(client, run_id, metrics=[Metric(key, value, at, step) for key, value in values.items()])
    log(client, run_id, tags={"drifted": "yes" if found.drifted else "no", "mlflow.note.content": found.sentence})
    for path in (found.report, found.report.with_suffix(".json")):
        client.log_artifact(run_id, str(path), "reports")
    client.set_terminated(run_id, "FINISHED")
