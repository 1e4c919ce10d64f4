"""Rollback to an earlier version, and the current production status."""

from dataclasses import dataclass, replace

import numpy as np

from recursight.data.store import open_store
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.params import load
from recursight.registry.decisions import Decision, decide, history, last_move, retry_if_champion_moved, settle
from recursight.registry.loading import LoadedVersion, Unreadable, check_answers, load_version
from recursight.registry.promote import alias_lock
from recursight.registry.versions import CHALLENGER, CHAMPION, find_version, version_with
from recursight.tracking import connect

IMAGES = 64  # of the check at batch size N


@dataclass(frozen=True)
class ProductionStatus:
    """The version in production.

    Attributes:
        name: of the registered model.
        version: that has the alias `champion`; None if there is none.
        challenger: the version that waits for the gate; None if there is none.
        candidate: of the champion.
        tags: of the champion's version: digests, git commit.
        decision: that put it there; None if no decision did.
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
def rollback(layout: Layout, version: int | None = None, reason: str = "") -> Decision:
    """Makes an earlier version champion, once it is seen to load and to predict, one image and many at once.

    Args:
        layout: of the project.
        version: which one; by default the champion before the present one.
        reason: for the history.

    Raises:
        InputError: if there is no such version, or it fails the check; then nothing moves, and the history records it.
        Unreachable: if MLflow does not answer.
    """
    name = load(layout.params).registry.model_name
    with alias_lock(layout):
        client = connect(layout)
        settle(client, layout, name)
        champion = version_with(client, name, CHAMPION)
        live = int(champion.version) if champion else None
        target = find_version(client, name, version or _before(history(client, name), live))
        if int(target.version) == live:
            raise InputError(f"version {live} of {name!r} is the champion already.")
        said = f"by hand: {reason}" if reason else "by hand."
        wanted = Decision("rollback", int(target.version), target.tags.get("candidate", ""), live, True, said)
        try:
            wanted = replace(wanted, numbers=_check(layout, load_version(layout, name, int(target.version))))
        except Unreadable as fault:
            decide(client, layout, name, replace(wanted, promoted=False, reason=f"nothing moves: {fault}"))
            raise InputError(f"nothing moves: {fault}") from None
        return decide(client, layout, name, replace(wanted, data_digest=target.tags.get("recursight.data_digest")))


def production_status(layout: Layout) -> ProductionStatus:
    """Reports the version in production, and the decision behind it.

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
        return "No decision put it there: it became champion before there was a history, or by hand in MLflow."
    return (
        f"The last decision, of {move.at[:19]}, made version {move.version} champion. No decision has moved the "
        "alias since: somebody did by hand in MLflow, or the process died half way, which `recursight promote` settles."
    )


def _before(past: list[Decision], live: int | None) -> int:
    """The champion before the present one; of one that came back, the champion before it came first.

    So that a second rollback goes one further back, and not forth to the version that the first one left.
    """
    came = [decision for decision in past if decision.promoted and decision.version == live]
    came.sort(key=lambda decision: decision.kind == "rollback")
    if came and came[0].champion is not None:
        return came[0].champion
    raise InputError("The history knows no earlier champion: name a version, such as `recursight rollback 1`.")


def _check(layout: Layout, loaded: LoadedVersion) -> dict[str, int]:
    """Runs it on test images of the store, where they fit, else on noise."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *loaded.input_shape), dtype=np.uint8)
    if (layout.store / "store.json").is_file():
        store = open_store(layout.store)
        rows = store.indices("test")[:IMAGES]
        if tuple(store.shape) == loaded.input_shape and len(rows) > 1:
            images = store.first_frames(rows)
    check_answers(loaded, images)
    return {"checked_images": len(images)}
