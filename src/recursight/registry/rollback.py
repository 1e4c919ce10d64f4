"""Rollback to an earlier version, and the production status."""

from dataclasses import dataclass, replace

import numpy as np

from recursight.data.store import open_store
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.params import load
from recursight.registry.decisions import (
    Decision,
    Report,
    decide,
    history,
    last_move,
    no_report,
    retry_if_champion_moved,
    settle,
)
from recursight.registry.loading import LoadedVersion, Unreadable, check_answers, load_version
from recursight.registry.promote import alias_lock
from recursight.registry.versions import CHALLENGER, CHAMPION, find_version, version_number, version_with
from recursight.tracking import connect

IMAGES = 64  # batch of the check


@dataclass(frozen=True)
class ProductionStatus:
    """The version in production.

    Attributes:
        name: of the registered model.
        version: the champion; None if there is none.
        challenger: the challenger; None if there is none.
        candidate: the champion's name in params.yaml.
        tags: of the champion's version: digests, git commit.
        decision: that made it champion; None if none did.
        remark: a note if the registry and the history disagree, else empty.
    """

    name: str
    version: int | None
    challenger: int | None
    candidate: str
    tags: dict[str, str]
    decision: Decision | None
    remark: str


@retry_if_champion_moved
def rollback(layout: Layout, version: int | None = None, reason: str = "", report: Report = no_report) -> Decision:
    """Makes an earlier version champion, after checking that it loads and predicts, on one image and on a batch.

    If an earlier command was killed between its decision and its report, that decision is completed and returned
    instead, so that a rollback that is given again does not go back twice.

    Args:
        layout: of the project.
        version: which one; by default the previous champion.
        reason: for the history.
        report: receives the decision, once; see `decide`.

    Raises:
        InputError: if there is no such version, or it fails the check; the champion stays, and the history records it.
        Unreachable: if MLflow does not answer.
    """
    name = load(layout.params).registry.model_name
    with alias_lock(layout):
        client = connect(layout)
        if interrupted := settle(client, name, report):
            return interrupted
        live = version_number(client, name, CHAMPION)
        target = find_version(client, name, version or _before(history(client, name), live))
        number, candidate = int(target.version), target.tags.get("candidate", "")
        if number == live:
            raise InputError(f"version {live} of {name!r} is the champion already.")
        reason = f"by hand: {reason}" if reason else "by hand."
        data = target.tags.get("recursight.data_digest")
        wanted = Decision("rollback", number, candidate, live, True, reason, data_digest=data)
        try:
            wanted = replace(wanted, numbers=_check(layout, load_version(layout, name, number)))
        except Unreadable as fault:
            refusal = f"nothing was changed: {fault}"
            decide(client, layout, name, replace(wanted, promoted=False, reason=refusal))
            raise InputError(refusal) from None
        return decide(client, layout, name, wanted, report)


def production_status(layout: Layout) -> ProductionStatus:
    """The version in production, and the decision that made it champion.

    Raises:
        Unreachable: if MLflow does not answer.
    """
    name = load(layout.params).registry.model_name
    client = connect(layout)
    champion, challenger = version_with(client, name, CHAMPION), version_with(client, name, CHALLENGER)
    move = last_move(history(client, name))
    live = int(champion.version) if champion else None
    explained = move is not None and move.version == live
    return ProductionStatus(
        name=name,
        version=live,
        challenger=int(challenger.version) if challenger else None,
        candidate=champion.tags.get("candidate", "") if champion else "",
        tags=dict(champion.tags) if champion else {},
        decision=move if explained else None,
        remark=_remark(move, live, explained),
    )


def _remark(move: Decision | None, live: int | None, explained: bool) -> str:
    if explained or (live is None and move is None):
        return ""
    if move is None:
        return "No recorded decision made it champion: somebody set the alias by hand in MLflow."
    return (
        f"The last decision, of {move.at[:19]}, made version {move.version} champion. Since then somebody has set the "
        "alias by hand in MLflow, or the command was killed; then `recursight promote` completes it."
    )


def _before(past: list[Decision], live: int | None) -> int:
    """The previous champion; if the present one returned by rollback, the one before its own promotion.

    So a second rollback goes further back, instead of returning to the version that the first one replaced.
    """
    came = [decision for decision in past if decision.promoted and decision.version == live]
    came.sort(key=lambda decision: decision.kind == "rollback")
    if came and came[0].champion is not None:
        return came[0].champion
    raise InputError("The history has no earlier champion: name a version, such as `recursight rollback 1`.")


def _check(layout: Layout, loaded: LoadedVersion) -> dict[str, int]:
    """Runs it on test images of the store, or on noise if they have another size."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *loaded.input_shape), dtype=np.uint8)
    if (layout.store / "store.json").is_file():
        store = open_store(layout.store)
        rows = store.indices("test")[:IMAGES]
        if tuple(store.shape) == loaded.input_shape and len(rows) > 1:
            images = store.first_frames(rows)
    check_answers(loaded, images)
    return {"checked_images": len(images)}
