"""Promotion: challenger and champion are scored on the same examples, and the gate's rule decides between them."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.files import digest
from recursight.layout import Layout
from recursight.params import Params, load
from recursight.registry.decisions import Decision, Report, decide, history, no_report, retry_if_champion_moved, settle
from recursight.registry.gate import Scored, Verdict, judge
from recursight.registry.loading import LoadedVersion, Unreadable, images_for, load_version
from recursight.registry.versions import CHALLENGER, CHAMPION, version_number, version_with
from recursight.tracking import connect
from recursight.tracking.results import source_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NAMED = 5  # words of a vocabulary in a sentence


@retry_if_champion_moved
def promote(layout: Layout, report: Report = no_report) -> Decision:
    """Decides whether the challenger becomes champion, records that, and moves the alias if so.

    The same versions, data and rule are tested once; a repeated call returns the recorded decision. If an earlier
    command was killed between its decision and its report, that decision is completed and returned instead.

    Args:
        layout: of the project.
        report: receives the decision, once; see `decide`.

    Raises:
        InputError: if there is no store, or params.yaml is wrong.
        Unreachable: if MLflow does not answer.
    """
    params = load(layout.params)
    name = params.registry.model_name
    with alias_lock(layout):
        client = connect(layout)
        if interrupted := settle(client, name, report):
            return interrupted
        made, is_new = _answer(client, layout, params)
        if is_new:
            return decide(client, layout, name, made, report)
        report(made)
        return made


def _answer(client: "MlflowClient", layout: Layout, params: Params) -> tuple[Decision, bool]:
    """The decision on the present challenger, and whether it is to be recorded."""
    name = params.registry.model_name
    challenger = version_with(client, name, CHALLENGER)
    live = version_number(client, name, CHAMPION)
    if challenger is None or int(challenger.version) == live:
        return Decision("promote", None, "", live, False, "no version challenges the champion."), False
    store = open_store(layout.store)
    if not len(store.indices("test")):
        raise InputError("The store has no test examples; set prepare.test in params.yaml, run `dvc repro`.")
    past = history(client, name)
    asked = _asked(layout, params, store, challenger, live)
    earlier = next((decision for decision in past if decision.question == asked.question), None)
    barred = _barred(past, int(challenger.version))
    if earlier and earlier.numbers and not earlier.promoted and not barred:
        return replace(earlier, repeated=True), False
    verdict = Verdict(False, barred, {}) if barred else _examine(layout, params, store, asked, past)
    answer = replace(asked, promoted=verdict.promote, reason=verdict.reason, numbers=verdict.numbers)
    if earlier and not answer.promoted and earlier.reason == answer.reason:
        return replace(earlier, repeated=True), False
    if version_number(client, name, CHAMPION) != live:
        changed = "the champion changed meanwhile: run the command again."
        answer = replace(answer, promoted=False, reason=changed, question="")
    return answer, True


def alias_lock(layout: Layout) -> FileLock:
    """The lock of this clone for moving aliases."""
    lock = layout.lock("register")
    lock.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(lock)


def looks(past: list[Decision], champion: int | None) -> int:
    """How many challengers have been tested against the present champion."""
    count = 0
    for decision in past:
        if decision.promoted:
            break
        count += decision.kind == "promote" and decision.champion == champion and bool(decision.numbers)
    return count


def rule_of(params: Params) -> dict[str, Any]:
    """The parameters of the decision, for the history."""
    metric = params.metric("gate.metric", params.gate.metric)
    return params.gate.model_dump() | {"metric": metric.name, "minimums": params.minimums}


def _asked(layout: Layout, params: Params, store: Store, challenger: "ModelVersion", live: int | None) -> Decision:
    """The decision, without its outcome."""
    version, rule = int(challenger.version), rule_of(params)
    return Decision(
        kind="promote",
        version=version,
        candidate=challenger.tags.get("candidate", ""),
        champion=live,
        promoted=False,
        reason="",
        rule=rule,
        data_digest=store.digest,
        data_md5=source_digest(layout, store.digest),
        question=digest({"version": version, "champion": live, "data": store.digest, "rule": rule}),
    )


def _barred(past: list[Decision], version: int) -> str:
    """Why a version may not be promoted again: it was champion and was replaced by hand. Empty if it may.

    Without this, the next promotion would undo a rollback, because the version would pass the same test again.
    """
    moves = [decision for decision in past if decision.promoted]
    for later, decision in zip([None, *moves], moves, strict=False):
        if decision.version != version:
            continue
        if later is None:
            how = "its alias was moved by hand"
        elif later.kind == "rollback":
            how = f"it was rolled back on {later.at[:10]}: {later.reason.rstrip('.')}"
        else:
            return ""
        return f"version {version} was champion before, and {how}; `recursight rollback {version}` restores it."
    return ""


def _examine(layout: Layout, params: Params, store: Store, asked: Decision, past: list[Decision]) -> Verdict:
    """Loads, scores and judges both versions. Versions that cannot be compared are refused, with the reason."""
    try:
        assert asked.version is not None
        versions = [asked.version] if asked.champion is None else [asked.version, asked.champion]
        loaded = [load_version(layout, params.registry.model_name, version) for version in versions]
        for one in loaded:
            _require_comparable(one, params, store)
        scored = [_score(layout, params, store, one) for one in loaded]
    except Unreadable as fault:
        return Verdict(False, f"nothing was changed: {fault}", {})
    return judge(
        params.gate,
        params.built_task,
        params.minimums,
        scored[0],
        scored[1] if len(scored) > 1 else None,
        look=looks(past, asked.champion) + 1,
    )


def _require_comparable(loaded: LoadedVersion, params: Params, store: Store) -> None:
    """Raises Unreadable for a version of another task or vocabulary than the store: their metrics mean other things."""
    if type(loaded.task) is not type(params.built_task):
        raise Unreadable(
            f"version {loaded.version} was trained for another task than {params.task.name!r} (task in params.yaml); "
            "give each task a separate `registry.model_name`."
        )
    targets = store.targets_of(store.indices("train"))
    known, present = set(loaded.vocabulary), set(params.built_task.vocabulary(targets))
    if known == present:
        return
    parts = [
        f"{what} {', '.join(map(repr, sorted(names)[:NAMED]))}{', ...' * (len(names) > NAMED)}"
        for what, names in (("lacks", present - known), ("additionally has", known - present))
        if names
    ]
    raise Unreadable(
        f"version {loaded.version} has another vocabulary than the store: it {' and '.join(parts)}. Metrics over "
        "different vocabularies cannot be compared; `recursight rollback VERSION` sets a champion by hand."
    )


def _score(layout: Layout, params: Params, store: Store, loaded: LoadedVersion) -> Scored:
    rows, task = store.indices("test"), params.built_task
    with images_for(layout, loaded, store, rows) as (images, places):
        answers = loaded.answers(images, places)
        latency = params.gate.cost == "latency"
        cost = loaded.latency_milliseconds(images[places[0]]) if latency else float(loaded.program.parameters)
    targets = task.encode(store.examples.iloc[rows], store.targets_of(rows), loaded.vocabulary)
    return Scored(loaded.version, task.score(answers, targets, loaded.vocabulary, store.examples.iloc[rows]), cost)
