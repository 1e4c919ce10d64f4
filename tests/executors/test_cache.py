"""Outputs that DVC could not copy into its cache, as on a full disk."""

import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recursight import commands
from recursight.executors import EXECUTORS, StageFailed
from recursight.files import read_yaml
from recursight.layout import Layout

STAGE = (
    "echo run >> count && mkdir -p artifacts/store && ln -f large artifacts/store/frames.npy"  # writes little itself
)
LIMIT_BYTES = 8 << 20
NO_ROOM = "DVC's cache could not store the results; free some space"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "params.yaml").write_text("{}\n")
    (tmp_path / "large").write_bytes(os.urandom(2 * LIMIT_BYTES))
    (tmp_path / "dvc.yaml").write_text(f"stages:\n  prepare:\n    cmd: {STAGE}\n    outs: [artifacts/store]\n")
    assert commands.dvc(tmp_path, "init", "--no-scm", "--quiet").returncode == 0
    return Layout(tmp_path)


def run(layout: Layout) -> None:
    list(EXECUTORS["local"].run(layout.root, "prepare", timeout_seconds=300.0))


def is_complete(layout: Layout) -> bool:
    return json.loads(commands.dvc(layout.root, "status", "--json").stdout) == {}


@contextmanager
def no_room_for_files() -> Iterator[None]:
    """No process that is started meanwhile can write a large file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_files_that_do_not_fit_fail_the_stage_with_the_reason(layout: Layout) -> None:
    """DVC asks whether it may overwrite the files that it could not copy."""
    with no_room_for_files(), pytest.raises(StageFailed, match=NO_ROOM):
        run(layout)
    run(layout)
    assert is_complete(layout)


def test_a_listing_that_does_not_fit_fails_the_stage_which_is_not_repeated(layout: Layout) -> None:
    """DVC records a folder whose files are in the cache and whose listing is not, and reports success."""
    run(layout)
    lock = layout.root / "dvc.lock"
    md5 = read_yaml(lock)["stages"]["prepare"]["outs"][0]["md5"]
    lock.unlink()
    shutil.rmtree(layout.root / ".dvc" / "cache")
    place = layout.root / ".dvc" / "cache" / "files" / "md5" / md5[:2]
    place.parent.mkdir(parents=True)
    place.symlink_to("nowhere")  # a folder that cannot be made
    with pytest.raises(StageFailed, match=NO_ROOM):
        run(layout)
    place.unlink()
    run(layout)
    assert is_complete(layout)
    assert (layout.root / "count").read_text() == "run\n" * 2
