"""The pipeline asks DVC, a real one, what there is and what has changed, and runs it."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from recursight.errors import InputError
from recursight.executors import EXECUTORS, StageFailed, StageRefused
from recursight.executors.graph import changed, graph

STAGES = {
    "first": {"cmd": "cp source.txt first.txt", "deps": ["source.txt"], "outs": ["first.txt"]},
    "left": {"cmd": "sh -c 'echo to the left; cat first.txt > left.txt'", "deps": ["first.txt"], "outs": ["left.txt"]},
    "right": {"cmd": "cp first.txt right.txt", "deps": ["first.txt"], "params": ["side"], "outs": ["right.txt"]},
    "last": {"cmd": "cat left.txt right.txt > last.txt", "deps": ["left.txt", "right.txt"], "outs": ["last.txt"]},
}


@pytest.fixture
def root(tmp_path: Path, dvc_folder: Path) -> Path:
    (tmp_path / "source.txt").write_text("source\n")
    (tmp_path / "params.yaml").write_text("side: 1\n")
    declare(tmp_path, **STAGES)
    shutil.copytree(dvc_folder, tmp_path / ".dvc")
    return tmp_path


def declare(root: Path, **stages: object) -> None:
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def run(root: Path, stage: str, timeout_seconds: float = 600) -> list[str]:
    return list(EXECUTORS["local"].run(root, stage, timeout_seconds=timeout_seconds))


def test_the_graph_is_dvcs_in_an_order_in_which_it_can_run(root: Path) -> None:
    stages = graph(root)
    assert stages == {"first": set(), "left": {"first"}, "right": {"first"}, "last": {"left", "right"}}
    order = list(stages)
    assert all(order.index(above) < order.index(stage) for stage, reads in stages.items() for above in reads)


def test_what_has_changed_and_all_that_reads_it(root: Path) -> None:
    stages = graph(root)
    assert changed(root, stages) == set(stages)
    for stage in stages:
        run(root, stage)
    assert (root / "last.txt").read_text() == "source\nsource\n"
    assert changed(root, stages) == set()
    (root / "params.yaml").write_text("side: 2\n")
    assert changed(root, stages) == {"right", "last"}
    (root / "source.txt").write_text("other\n")
    assert changed(root, stages) == set(stages)


def test_lines_arrive_while_the_stage_runs(root: Path) -> None:
    (root / "first.txt").write_text("x")
    run(root, "first")
    assert "to the left" in run(root, "left")
    assert any("didn't change" in line for line in run(root, "left"))


@pytest.mark.parametrize(("status", "kind"), [(2, StageRefused), (1, StageFailed), (137, StageFailed)])
def test_a_refusal_is_told_from_a_failure(root: Path, status: int, kind: type[Exception]) -> None:
    declare(root, bad={"cmd": f"sh -c 'echo recursight: wrong key; exit {status}'", "deps": ["source.txt"]})
    with pytest.raises(kind, match="wrong key"):
        run(root, "bad")
    assert issubclass(kind, InputError) == (status == 2)


def test_a_stage_that_takes_too_long_is_ended(root: Path) -> None:
    declare(root, slow={"cmd": "sleep 600", "deps": ["source.txt"]})
    started = time.monotonic()
    with pytest.raises(StageFailed, match="longer than 2 s"):
        run(root, "slow", timeout_seconds=2)
    assert time.monotonic() - started < 300


def test_who_stops_listening_ends_the_stage(root: Path) -> None:
    declare(root, slow={"cmd": "sh -c 'echo begun; sleep 601'", "deps": ["source.txt"]})
    lines = EXECUTORS["local"].run(root, "slow", timeout_seconds=900)
    assert any("begun" in line for line in iter(lambda: next(lines), None) if "begun" in line or line is None)
    started = time.monotonic()
    lines.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 300


def test_many_at_once_do_not_lock_each_other_out(root: Path) -> None:
    names = [f"side{number}" for number in range(6)]
    declare(root, **{n: {"cmd": f"cp source.txt {n}.txt", "deps": ["source.txt"], "outs": [f"{n}.txt"]} for n in names})
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: run(root, name), names))
    assert changed(root, graph(root)) == set()


def test_a_broken_declaration_is_a_sentence(root: Path) -> None:
    (root / "dvc.yaml").write_text("stages:\n  x: {cmd: [}\n")
    with pytest.raises(InputError, match=r"dvc\.yaml"):
        graph(root)
