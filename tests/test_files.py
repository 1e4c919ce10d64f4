"""Files are whole or absent, whatever happens while they are written."""

import subprocess
import sys
from pathlib import Path

import pytest

from recursight.files import digest, read_json, replacing, write_json


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for name in ("old", "new"):
        with replacing(target) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def killed_while_replacing(target: Path, moment: str) -> None:
    script = f"""
import os, signal, pathlib
from recursight.files import replacing
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
target = pathlib.Path({str(target)!r})
with replacing(target) as temporary:
    temporary.mkdir()
    (temporary / "new").touch()
    if {moment!r} == "while filling":
        die()
    move = pathlib.Path.replace
    def replace(path, to):  # the second move puts the new folder in place
        if path == temporary:
            die()
        return move(path, to)
    pathlib.Path.replace = replace
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9


@pytest.mark.parametrize("moment", ["while filling", "between the moves"])
def test_the_next_one_puts_right_what_a_killed_one_left(tmp_path: Path, moment: str) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    killed_while_replacing(target, moment)
    assert target.exists() == (moment == "while filling")
    with pytest.raises(RuntimeError), replacing(target):
        assert [path.name for path in target.iterdir()] == ["old"]
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_living_process_is_filling_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    with replacing(target) as mine:
        with replacing(target) as other:
            other.write_text("other")
        mine.write_text("mine")
    assert target.read_text() == "mine"


def test_json_round_trip_and_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, "ü"]})
    assert read_json(tmp_path / "a.json") == {"b": [1, "ü"]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == {"b": [1, "ü"]}


def test_a_digest_is_of_the_content(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
