"""What is declared in several places is the same everywhere: dvc.yaml, params.yaml, layout, commands, README."""

import inspect
import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from benchmarks.real_data import laid_over

from recursight.cli import app
from recursight.layout import Layout
from recursight.models.layers import LAYERS
from recursight.models.readouts import READOUTS
from recursight.models.scans import SCANS
from recursight.models.stems import STEMS
from recursight.params import (
    Augment,
    Candidate,
    Compare,
    Evaluate,
    Execution,
    Gate,
    Monitor,
    Params,
    Prepare,
    Registry,
    Retrain,
    Serve,
    Train,
    load,
)
from recursight.stages.train import check
from recursight.tasks import TASKS
from recursight.training.optimizers import OPTIMIZERS

ROOT = Path(__file__).parents[1]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
COMMAND = typer.main.get_command(app)


def body(stage: str) -> dict[str, Any]:
    declared: dict[str, Any] = DVC[stage]
    return declared.get("do", declared)


def paths(entries: list[Any]) -> set[str]:
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def outputs(stage: str) -> set[str]:
    return {path for kind in ("outs", "metrics", "plots") for path in paths(body(stage).get(kind, []))}


def test_every_stage_is_a_command_of_its_name() -> None:
    for stage in DVC:
        words = body(stage)["cmd"].split()
        assert words[:2] == ["recursight", stage]
        assert stage in COMMAND.commands  # type: ignore[attr-defined]


def test_outputs_are_where_the_layout_says() -> None:
    layout, key = Layout(Path()), "${key}"
    assert outputs("prepare") == {str(layout.store)}
    assert outputs("train") == {str(layout.candidate(key)), str(layout.history_plot(key))}
    assert outputs("evaluate") == {
        str(layout.evaluation(key)),
        str(layout.metrics(key)),
        str(layout.answers_plot(key)),
    }
    assert outputs("compare") == {str(layout.comparison)}


def test_stages_depend_on_files_that_exist() -> None:
    made = {path for stage in DVC for path in outputs(stage)} | {
        "artifacts/candidates",
        "artifacts/evaluations",
        "data",
    }
    for stage in DVC:
        for path in body(stage)["deps"]:
            assert path in made or (ROOT / path).exists(), f"{stage} depends on {path}"


def test_stages_depend_on_their_own_code() -> None:
    for stage in DVC:
        assert f"src/recursight/stages/{stage}.py" in body(stage)["deps"]


def test_training_depends_on_the_code_of_every_task() -> None:
    for task in TASKS.values():
        assert Path(inspect.getfile(task)).relative_to(ROOT).as_posix() in body("train")["deps"]


def test_stages_watch_the_params_that_they_read() -> None:
    for stage in DVC:
        source = (ROOT / "src" / "recursight" / "stages" / f"{stage}.py").read_text()
        watched = {name.partition(".")[0] for name in body(stage)["params"]}
        read = {name for name in Params.model_fields if re.search(rf"\bparams\.{name}\b", source)}
        read -= {"execution"}  # decides nothing
        read |= {"task"} if "built_task" in source else set()
        read |= {"prepare"} if "params.load(layout.params).prepare" in source else set()
        read |= {"train", "candidates"} if stage == "train" else set()
        assert read - {"candidates", "train"} <= watched, f"{stage} reads {read}, watches {watched}"
        assert watched <= set(Params.model_fields), "DVC says nothing of a parameter that does not exist"


def test_every_key_of_the_sections_stands_in_params_yaml() -> None:
    written = yaml.safe_load((ROOT / "params.yaml").read_text())
    sections = {
        "prepare": Prepare,
        "train": Train,
        "execution": Execution,
        "compare": Compare,
        "registry": Registry,
        "gate": Gate,
        "retrain": Retrain,
        "serve": Serve,
        "monitor": Monitor,
    }
    for name, section in sections.items():
        assert set(written[name]) == set(section.model_fields), name
    assert set(written["train"]["augment"]) == set(Augment.model_fields)
    options = {field.name for field in fields(TASKS[written["task"]])}
    assert set(written["evaluate"]) == set(Evaluate.model_fields) | options


def test_attributes_of_params_are_documented() -> None:
    for section in (
        Prepare,
        Augment,
        Train,
        Candidate,
        Evaluate,
        Execution,
        Compare,
        Registry,
        Gate,
        Retrain,
        Serve,
        Monitor,
    ):
        documented = set(re.findall(r"^\s{8}(\w+):", inspect.getdoc(section) or "", re.MULTILINE)) or set(
            re.findall(r"^\s{4}(\w+):", inspect.getdoc(section) or "", re.MULTILINE)
        )
        assert set(section.model_fields) <= documented, section.__name__


def test_deployments_name_flows_that_exist() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        path, _, name = deployment["entrypoint"].partition(":")
        assert re.search(rf'^@flow\(name="{name}".*\n(@.*\n)*def {name}\(', (ROOT / path).read_text(), re.MULTILINE)
    assert {deployment["name"] for deployment in deployments} == {"local", "scheduled"}


def test_containers_take_every_secret_from_the_environment_and_publish_on_loopback_only() -> None:
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    named = set(re.findall(r"\$\{(\w+)", text)) - {"RECURSIGHT_VERSION"}
    offered = set(re.findall(r"^(\w+)=", (ROOT / "deploy" / ".env.example").read_text(), re.MULTILINE))
    assert named == offered
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"postgres", "mlflow", "prefect", "worker"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not service["image"].endswith(":latest"), name
        for key, value in service.get("environment", {}).items():
            assert not re.search(r"PASSWORD|SECRET|KEY", key) or str(value).startswith("${"), key


def test_the_first_set_of_candidates_is_there() -> None:
    candidates = load(ROOT / "params.yaml").candidates
    expected = {"elman", "lstm", "stacked_lstm", "gru", "bilstm", "conv_gru", "attention_lstm", "rnn2d", "cnn"}
    assert expected <= set(candidates)
    assert candidates["lstm"].hidden == [128, 64]
    assert (candidates["stacked_lstm"].hidden, candidates["stacked_lstm"].dropout) == ([50, 50, 50], 0.2)


@pytest.mark.parametrize(
    "table", [LAYERS, SCANS, READOUTS, STEMS, OPTIMIZERS], ids=["layers", "scans", "readouts", "stems", "opt"]
)
def test_every_name_that_params_may_use_is_documented(table: dict[str, Any]) -> None:
    text = "".join((ROOT / "docs" / page).read_text() for page in ("candidates.md", "architectures.md"))
    for name in table:
        assert f"`{name}`" in text or re.search(rf"\b{re.escape(name)}\b", (ROOT / "params.yaml").read_text()), name


def all_commands() -> list[list[str]]:
    found = []
    for name, command in COMMAND.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found += [[name, sub] for sub in below] if below else [[name]]
    return found


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_has_help_with_an_example_and_stands_in_the_readme(words: list[str]) -> None:
    command: Any = COMMAND
    for word in words:
        command = command.commands[word]
    assert "Example" in (command.help or ""), f"{' '.join(words)} shows no example"
    assert f"recursight {' '.join(words)}" in (ROOT / "README.md").read_text()


def test_torch_is_pinned_alike_everywhere() -> None:
    pinned = set(re.findall(r"^torch==.*$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert pinned == set(re.findall(r'"(torch==[^"]*)"', (ROOT / "pyproject.toml").read_text()))


def test_nothing_ignored_is_committed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    assert [name for name in listed.stdout.split() if not name.startswith("embedded/")] == []


@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "benchmarks" / "presets").iterdir()))
def test_the_candidates_of_a_preset_can_be_put_together(preset: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(laid_over(yaml.safe_load((ROOT / "params.yaml").read_text()), preset)))
    check(load(params))
