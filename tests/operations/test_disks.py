"""Disks that are full or read-only, and remotes that were tampered with."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from recursight.data.readers import idx
from recursight.layout import Layout
from recursight.operations.doctor import project
from tests.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that cannot be written: by permission, or for the superuser by a read-only mount."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o555)
    mounted = os.access(folder, os.W_OK)
    if mounted:
        if subprocess.run(["mount", "--bind", folder, folder]).returncode:
            pytest.skip("the superuser cannot be kept from writing here")
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)
        folder.chmod(0o755)


@pytest.mark.slow
def test_a_read_only_state_folder_is_refused_in_one_sentence_and_found_by_doctor(workspace: Workspace) -> None:
    workspace.run("dvc", "pull", "--quiet", "data.dvc")
    with read_only(workspace.root / ".recursight"):
        for command in ("promote", "pipeline"):
            lines = workspace.run("recursight", command, status=2).splitlines()
            assert [line for line in lines if not line.startswith("recursight: ")] == []
            assert len(lines) == 1, lines
            assert ".recursight" in lines[0]
            assert "`recursight doctor` checks disks and permissions" in lines[0]
        found = json.loads(workspace.run("recursight", "doctor", "--json", status=1))
        (disk,) = [finding for finding in found if finding["area"] == "disk" and finding["state"] == "fix"]
        assert ".recursight/" in disk["what"]


def test_every_disk_of_the_project_is_looked_at(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (one,) = project.disk(layout)
    assert "artifacts/, .dvc/cache/, .recursight/" in one.what
    layout.artifacts.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", layout.artifacts]).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        small, other = project.disk(layout)
    finally:
        subprocess.run(["umount", layout.artifacts], check=True)
    assert (small.state, other.state) == ("fix", "ok")
    assert "1 MB free on the disk of artifacts/;" in small.what
    assert ".dvc/cache/, .recursight/" in other.what


def flip_labels(workspace: Workspace) -> None:
    """What an attacker does who can write to the remote: every label of the digits becomes another."""
    objects = workspace.root / "embedded" / "files" / "md5"
    for listing in objects.glob("*/*.dir"):
        for entry in json.loads(listing.read_text()):
            if entry["relpath"] == "labels-idx1-ubyte.gz":
                target = objects / entry["md5"][:2] / entry["md5"][2:]
                flipped = workspace.root.parent / "labels.gz"
                flipped.write_bytes(target.read_bytes())
                with idx.open_stream(flipped) as stream:
                    labels = np.frombuffer(stream.read()[8:], np.uint8)
                idx.write(flipped, 9 - labels)
                target.write_bytes(flipped.read_bytes())
                return
    raise AssertionError("no digits in the embedded remote")


@pytest.mark.slow
def test_a_remote_that_was_tampered_with_is_noticed(workspace: Workspace) -> None:
    flip_labels(workspace)
    assert "failed to pull data" in workspace.run("dvc", "pull", "data.dvc", status=1)
    workspace.run("dvc", "config", "--local", "remote.embedded.verify", "false")
    workspace.run("dvc", "pull", "--quiet", "data.dvc")
    assert workspace.run("dvc", "status", "data.dvc").strip() == "Data and pipelines are up to date."
    refused = workspace.run("recursight", "prepare", status=2)
    assert "files were changed in the remote or in DVC's cache" in refused
    found = json.loads(workspace.run("recursight", "doctor", "--json", status=1))
    (finding,) = [finding for finding in found if finding["area"] == "data" and finding["state"] == "fix"]
    assert "but data.dvc pins" in finding["what"]
    workspace.run("git", "checkout", "--", "embedded")
    for command in finding["commands"]:
        workspace.run(*command.split())
    workspace.run("recursight", "prepare")
    (workspace.root / "data" / "README").write_text("a change that DVC knows about is no tampering")
    workspace.run("recursight", "prepare")
