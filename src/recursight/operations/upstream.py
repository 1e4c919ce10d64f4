"""Merges new commits of the upstream branch if nothing can be lost. Run as a module."""

import sys
from pathlib import Path

from recursight.commands import Finished, git
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.params import load

FETCH_SECONDS = 60.0


def follow(layout: Layout) -> str:
    """Fast-forwards to the upstream branch, unless params.yaml disables it or local changes would be lost.

    data.dvc may be uncommitted, since a retraining pins new data; then the new commits must not change it.

    Returns:
        A sentence on what was done, or why nothing was.
    """
    if not load(layout.params).retrain.follow_upstream:
        return "retrain.follow_upstream is off: no commits were looked for."
    upstream = _git(layout.root, "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    if upstream.returncode:
        return "this branch follows none: no commits to take."
    name = upstream.stdout.strip()
    remote = name.partition("/")[0]
    fetched = _git(layout.root, "fetch", "--quiet", remote)
    if fetched.returncode:
        return f"{remote} cannot be reached; continuing with the local commits: {_last_line(fetched)}"
    before = _git(layout.root, "rev-parse", "HEAD").stdout.strip()
    merged = _merge(layout.root)
    if merged.returncode:
        return f"{name} has commits that were not taken, so as to lose nothing here: {_last_line(merged)}"
    after = _git(layout.root, "rev-parse", "HEAD").stdout.strip()
    return f"{name} has nothing new." if after == before else f"took {name}, from {before[:7]} to {after[:7]}."


def _merge(root: Path) -> Finished:
    """Fast-forwards. A changed dvc.lock is discarded if it is in the way; DVC's run cache still has its results."""
    command = ("merge", "--ff-only", "--quiet", "@{upstream}")
    merged = _git(root, *command)
    lock = root / "dvc.lock"
    if merged.returncode == 0 or lock.name not in merged.stderr or not lock.exists():
        return merged
    kept = lock.read_bytes()
    if _git(root, "checkout", "--quiet", "--", lock.name).returncode:
        lock.unlink()  # not in git yet
    merged = _git(root, *command)
    if merged.returncode:
        lock.write_bytes(kept)
    return merged


def _git(root: Path, *words: str) -> Finished:
    return git(root, *words, timeout_seconds=FETCH_SECONDS)


def _last_line(finished: Finished) -> str:
    return next(iter(finished.stderr.strip().splitlines()[-1:]), "git printed nothing")


if __name__ == "__main__":
    try:
        print(follow(Layout.find()), flush=True)
    except InputError as error:
        sys.exit(f"recursight: {error}")
