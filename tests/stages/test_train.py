"""Training as its stage: killed at any moment it goes on, and what it cannot do it says in one sentence."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml
from safetensors import safe_open

from recursight.layout import Layout
from recursight.models.bundle import read_card
from recursight.models.kernels.build import library
from recursight.params import Params
from recursight.stages.train import check
from tests import processes
from tests.commands import recursight

COMMAND = [str(Path(sys.executable).parent / "recursight"), "train"]


@pytest.fixture
def project(tmp_path: Path, digits_store: Path) -> Layout:
    """A project with a store and one candidate, whose training takes a few seconds."""
    layout = Layout(tmp_path / "project")
    shutil.copytree(digits_store, layout.store)
    (layout.root / "dvc.yaml").write_text("stages: {}\n")
    write_params(layout)
    return layout


def write_params(layout: Layout, seeds: list[int] | None = None, **train: Any) -> None:
    content = {
        "seeds": seeds or [0],
        "train": {"epochs": 8, "patience": 0, "learning_rate": 0.003} | train,
        "candidates": {"gru": {"layer": "gru", "hidden": [24, 24], "dropout": 0.2}},
    }
    layout.params.write_text(yaml.safe_dump(content))


def flow_environment() -> dict[str, str]:
    """As if this process were a flow: results are left for it to track."""
    from recursight.executors.local import flow_mark

    names = ("HOME", "RECURSIGHT_KERNELS", "OMP_NUM_THREADS", processes.MARK)
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return kept | flow_mark() | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def start(layout: Layout, name: str = "gru") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, name],
        cwd=layout.root,
        env=flow_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(layout: Layout, name: str = "gru") -> str:
    process = start(layout, name)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def wait_for_checkpoint(path: Path, process: subprocess.Popen[str], newer_than: float = 0) -> None:
    deadline = time.monotonic() + 300
    while not path.is_file() or path.stat().st_mtime <= newer_than:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def weights(layout: Layout, seed: int = 0) -> str:
    return read_card(layout.bundle("gru", seed)).weights_digest


@pytest.fixture
def undisturbed(project: Layout) -> Layout:
    train(project)
    return project


def test_leaves_a_bundle_with_everything(undisturbed: Layout) -> None:
    bundle = undisturbed.bundle("gru", 0)
    assert {path.name for path in bundle.iterdir()} == {
        "model.safetensors",
        "card.json",
        "training.json",
        "history.csv",
        "gradient_norms.csv",
    }
    history = pd.read_csv(bundle / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["validation_accuracy"].iloc[-1] > 0.8
    account = json.loads((bundle / "training.json").read_text())
    assert account["epochs"] == 8
    assert account["stopped"] == "epochs"
    assert account["seconds"] == pytest.approx(history["seconds"].sum())
    norms = pd.read_csv(bundle / "gradient_norms.csv")
    assert norms.groupby(["layer", "state"]).size().to_dict() == {("0.gru", "h"): 8, ("1.gru", "h"): 8}
    assert (norms["norm"] > 0).all()
    plot = pd.read_csv(undisturbed.history_plot("gru"))
    assert plot.columns[0] == "seed"
    assert not list(undisturbed.state.glob("checkpoints/**/*.safetensors"))


def test_kept_weights_are_those_of_the_best_epoch(undisturbed: Layout) -> None:
    history = pd.read_csv(undisturbed.bundle("gru", 0) / "history.csv")
    best = int(history.loc[history["validation_loss"].idxmin(), "epoch"])
    assert read_card(undisturbed.bundle("gru", 0)).best_epoch == best


def test_killed_at_many_moments_it_ends_with_the_same_weights(project: Layout, tmp_path: Path) -> None:
    write_params(project, epochs=24)  # so that it is far from its end at the last kill, on a busy machine too
    train(project)
    killed = Layout(tmp_path / "killed")
    shutil.copytree(project.root, killed.root)
    shutil.rmtree(killed.candidate("gru"))
    checkpoint = killed.checkpoint("gru", 0)
    newer_than = 0.0
    for pause_seconds in (0.0, 0.03, 0.11):  # right after an epoch, and within the next ones
        process = start(killed)
        wait_for_checkpoint(checkpoint, process, newer_than)
        time.sleep(pause_seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        newer_than = checkpoint.stat().st_mtime
        assert not killed.candidate("gru").exists()
    output = train(killed)
    assert "continues after epoch" in output
    assert weights(killed) == weights(project)
    assert len(pd.read_csv(killed.bundle("gru", 0) / "history.csv")) == 24
    leftovers = [path.name for path in killed.candidate("gru").parent.iterdir()]
    assert leftovers == ["gru"], "a killed training's half-filled folder is swept away"


def test_a_checkpoint_of_other_parameters_is_not_taken(project: Layout) -> None:
    process = start(project)
    wait_for_checkpoint(project.checkpoint("gru", 0), process)
    process.kill()
    process.communicate()
    write_params(project, learning_rate=0.01, epochs=3)
    assert "continues" not in train(project)
    after_a_kill = weights(project)
    shutil.rmtree(project.artifacts / "candidates")
    train(project)
    assert weights(project) == after_a_kill


@pytest.mark.skipif(library() is None, reason="no compiler")
def test_a_checkpoint_of_the_kernels_is_not_taken_where_torch_computes(
    project: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(project)
    wait_for_checkpoint(project.checkpoint("gru", 0), process)
    process.kill()
    process.communicate()
    monkeypatch.setenv("RECURSIGHT_KERNELS", "0")
    assert "continues" not in train(project)
    assert json.loads((project.bundle("gru", 0) / "training.json").read_text())["kernels"] is False


def test_a_finished_seed_is_not_trained_again(project: Layout) -> None:
    write_params(project, seeds=[3, 5], epochs=4)
    process = start(project)
    wait_for_checkpoint(project.checkpoint("gru", 5), process)
    process.kill()
    process.communicate()
    finished = project.checkpoint("gru", 3).stat().st_mtime
    output = train(project)
    assert "continues after epoch 4" in output  # of seed 3: all of them
    assert weights(project, 3) != weights(project, 5)
    assert finished < (project.bundle("gru", 3) / "card.json").stat().st_mtime
    histories = pd.read_csv(project.history_plot("gru"))
    assert histories.groupby("seed").size().to_dict() == {3: 4, 5: 4}


@pytest.mark.parametrize(
    "candidate",
    [
        {"scan": {"patches": {"patch_size": 7}}, "layer": "gru"},
        {"stem": "conv", "scan": {"patch-grid": {"patch_size": 7}}, "layer": "renet"},
        {"stem": "patches", "scan": {"patch-grid": {"patch_size": 3}}, "layer": "renet"},
        {"stem": {"conv": {"channels": [4, 4, 4]}}, "scan": {"patch-grid": {"patch_size": 9}}, "layer": "renet"},
        {"scan": "whole", "layer": "none", "readout": {"multihead": {"heads": 7}}},
    ],
)
def test_what_some_size_of_image_allows_is_not_refused_beforehand(candidate: dict[str, Any]) -> None:
    check(Params(candidates={"some": candidate}))


def test_divergence_is_a_sentence_and_keeps_the_last_good_checkpoint(project: Layout) -> None:
    # The rate rises to 10 over the epochs: as long as it is below 2, the decay shrinks the weights, then they explode.
    write_params(project, optimizer="sgd", clip_norm=0, learning_rate=10, weight_decay=1, warmup_epochs=100, epochs=101)
    process = start(project)
    output, _ = process.communicate()
    assert process.returncode == 2, output
    assert "Traceback" not in output
    found = re.search(r"gru: training diverged: loss .* at epoch (\d+), step \d+ of \d+; lower", output)
    assert found, output
    assert not project.candidate("gru").exists()
    with safe_open(project.checkpoint("gru", 0), framework="pt") as checkpoint:
        account = json.loads(checkpoint.metadata()["account"])
        assert len(account["history"]) == int(found[1]) - 1
        assert all(checkpoint.get_tensor(name).isfinite().all() for name in checkpoint.keys())  # noqa: SIM118


def test_early_stopping_waits_as_long_as_it_was_told(project: Layout) -> None:
    write_params(project, epochs=60, patience=2, learning_rate=0.02, schedule="constant")
    train(project)
    history = pd.read_csv(project.bundle("gru", 0) / "history.csv")
    best = int(history["validation_loss"].idxmin())
    assert len(history) == best + 1 + 2
    assert json.loads((project.bundle("gru", 0) / "training.json").read_text())["stopped"] == "patience"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layer": "grru"}, "params.yaml: candidates.gru.layer: 'grru' is unknown; did you mean 'gru'?"),
        ({"hiden": 3}, "params.yaml: candidates.gru.hiden: unknown key; did you mean 'hidden'?"),
        ({"train": {"optimizer": "admw"}}, "'admw' is unknown; did you mean 'adamw'?"),
    ],
)
def test_wrong_parameters_end_with_a_sentence(project: Layout, change: dict[str, Any], sentence: str) -> None:
    content = yaml.safe_load(project.params.read_text())
    content["candidates"]["gru"] |= change
    project.params.write_text(yaml.safe_dump(content))
    done = recursight(project.root, "train", "gru")
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_device_that_is_not_here_ends_with_a_sentence(project: Layout) -> None:
    content = yaml.safe_load(project.params.read_text())
    project.params.write_text(yaml.safe_dump(content | {"execution": {"device": "cuda:7"}}))
    process = start(project)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "execution.device: this machine has no 'cuda:7'" in output


def test_an_unknown_candidate_is_named_with_the_nearest(project: Layout) -> None:
    process = start(project, "grru")
    output, _ = process.communicate()
    assert process.returncode == 2
    assert "no candidate 'grru'; did you mean 'gru'?" in output


def test_an_orphan_ends_and_its_successor_goes_on(project: Layout, tmp_path: Path) -> None:
    """dvc is killed; its training ends by itself, and a new `dvc repro` finishes with the same weights."""
    write_params(project, epochs=100)  # longer than an orphan takes to notice
    train(project)
    undisturbed = project
    orphaned = Layout(tmp_path / "orphaned")
    shutil.copytree(undisturbed.root, orphaned.root)
    shutil.rmtree(orphaned.artifacts / "candidates")
    shutil.rmtree(orphaned.artifacts / "plots")
    stage = {
        "cmd": "recursight train gru",
        "deps": ["artifacts/store"],
        "outs": ["artifacts/candidates/gru"],
        "params": ["candidates"],
    }
    (orphaned.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=orphaned.root, check=True)
    environment = flow_environment()
    first = subprocess.Popen(
        [*dvc, "repro", "train"],
        cwd=orphaned.root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_checkpoint(orphaned.checkpoint("gru", 0), first)  # type: ignore[arg-type]
    children = psutil.Process(first.pid).children(recursive=True)
    assert children
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive
    again = subprocess.run([*dvc, "repro", "train"], cwd=orphaned.root, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "continues after epoch" in again.stdout
    assert weights(orphaned) == weights(undisturbed)
