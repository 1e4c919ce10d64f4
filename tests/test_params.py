"""params.yaml is read whole or refused whole, each fault by the path of its key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recursight.errors import InputError
from recursight.params import load

GOOD: dict[str, Any] = {"candidates": {"gru": {"layer": "gru"}, "lstm": {"layer": "lstm", "hidden": [8, 4]}}}


def written(folder: Path, content: Any) -> Path:
    path = folder / "params.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def refusal(folder: Path, content: Any) -> list[str]:
    with pytest.raises(InputError) as refused:
        load(written(folder, content))
    return str(refused.value).splitlines()


def test_what_is_not_written_has_its_default(tmp_path: Path) -> None:
    params = load(written(tmp_path, GOOD))
    assert params.seeds == [0]
    assert params.prepare.size is None
    assert params.candidates["gru"].hidden == [64]


def test_one_width_is_a_stack_of_one(tmp_path: Path) -> None:
    params = load(written(tmp_path, {"candidates": {"gru": {"layer": "gru", "hidden": 7}}}))
    assert params.candidates["gru"].hidden == [7]


def test_a_candidate_overrides_single_keys_of_its_training(tmp_path: Path) -> None:
    content = {
        "train": {"epochs": 9, "augment": {"shift_pixels": 2, "flip": True}},
        "candidates": {
            "gru": {"layer": "gru", "train": {"epochs": 3, "augment": {"flip": False}}},
            "b": {"layer": "gru"},
        },
    }
    params = load(written(tmp_path, content))
    assert (params.training_of("gru").epochs, params.training_of("b").epochs) == (3, 9)
    assert params.training_of("gru").augment.shift_pixels == 2
    assert (params.training_of("gru").augment.flip, params.training_of("b").augment.flip) == (False, True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trian": {}}, "params.yaml: trian: unknown key; did you mean 'train'?"),
        ({"train": {"epoch": 3}}, "params.yaml: train.epoch: unknown key; did you mean 'epochs'?"),
        ({"train": {"epochs": 0}}, "params.yaml: train.epochs: input should be greater than or equal to 1 (it is 0)."),
        ({"train": {"augment": {"flp": 1}}}, "params.yaml: train.augment.flp: unknown key; did you mean 'flip'?"),
        ({"execution": {"device": "gpu"}}, "params.yaml: execution.device: string should match pattern"),
        ({"task": "clasification"}, "params.yaml: task: 'clasification' is unknown; did you mean 'classification'?"),
        (
            {"task": {"name": "classification", "topk": 3}},
            "params.yaml: task.topk: 'classification' has no such option; did you mean 'top_k'?",
        ),
        (
            {"evaluate": {"confidense": 0.9}},
            "params.yaml: evaluate.confidense: unknown key; did you mean 'confidence'?",
        ),
        ({"evaluate": {"topk": 3}}, "params.yaml: evaluate.topk: unknown key; did you mean 'top_k'?"),
        ({"evaluate": {"top_k": 0}}, "params.yaml: evaluate.top_k: must be 1 or more (it is 0)."),
        (
            {"compare": {"metric": "acuracy"}},
            "params.yaml: compare.metric: 'classification' has no metric 'acuracy'; did you mean 'accuracy'?",
        ),
        ({"seeds": [20240101123456]}, "params.yaml: seeds.0: input should be less than 4294967296"),
        (
            {"compare": {"seed": -1}},
            "params.yaml: compare.seed: input should be greater than or equal to 0 (it is -1).",
        ),
        ({"gate": {"seed": -1}}, "params.yaml: gate.seed: input should be greater than or equal to 0 (it is -1)."),
        ({"seeds": [1, 1]}, "params.yaml: seeds: lists a seed twice (it is [1, 1])."),
        ({"prepare": {"size": [0, 28]}}, "params.yaml: prepare.size.0: input should be greater than or equal to 1"),
        ({"candidates": {}}, "params.yaml: candidates: dictionary should have at least 1 item"),
        ({"candidates": {"gru": {}}}, "params.yaml: candidates.gru.layer: is missing."),
        (
            {"candidates": {"gru": {"layer": "gru", "hiden": 3}}},
            "params.yaml: candidates.gru.hiden: unknown key; did you mean 'hidden'?",
        ),
        (
            {"candidates": {"gru": {"layer": "gru", "hidden": [8, 0]}}},
            "params.yaml: candidates.gru.hidden.1: input should be greater than or equal to 1 (it is 0).",
        ),
        (
            {"candidates": {"gru": {"layer": "gru", "train": {"learing_rate": 1}}}},
            "params.yaml: candidates.gru.train.learing_rate: unknown key; did you mean 'learning_rate'?",
        ),
        ({"candidates": {"My GRU": {"layer": "gru"}}}, "a candidate's name has only lower-case letters"),
        ({"candidates": {"g" * 300: {"layer": "gru"}}}, "a candidate's name has at most 64 characters."),
        ({"train": {"epochs": 10**30}}, "params.yaml: train.epochs: "),
        (
            {"train": {"learning_rate": float("inf")}},
            "params.yaml: train.learning_rate: input should be a finite number",
        ),
        (
            {"train": {"learning_rate": float("nan")}},
            "params.yaml: train.learning_rate: input should be a finite number",
        ),
        ({"retrain": {"cron": "99 99 * * *"}}, "params.yaml: retrain.cron: is no cron expression: bad minute"),
        ({"retrain": {"cron": "* * * * * 99"}}, "params.yaml: retrain.cron: is no cron expression: bad second"),
        ({"retrain": {"cron": "0 3 * *"}}, "params.yaml: retrain.cron: is no cron expression: wrong number of fields"),
        ({"registry": {"model_name": "a/b"}}, "params.yaml: registry.model_name: a name has printable characters"),
        (
            {"registry": {"model_name": "a\u001b[2Jb"}},
            "params.yaml: registry.model_name: a name has printable characters",
        ),
        ({"registry": {"model_name": ""}}, "params.yaml: registry.model_name: a name is not empty"),
        ({"registry": {"model_name": " pets"}}, "params.yaml: registry.model_name: a name is not empty"),
        ({"registry": {"model_name": "x" * 400}}, "params.yaml: registry.model_name: string should have at most 100"),
        ({"registry": {"experiment": "a:b"}}, "params.yaml: registry.experiment: a name has printable characters"),
    ],
)
def test_each_fault_has_its_sentence(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    lines = refusal(tmp_path, GOOD | change)
    assert len(lines) == 1
    assert sentence in lines[0]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, GOOD | {"trian": {}, "seeds": [], "compare": {"confidence": 2}})) == 3


BOMB = "b0: &b0 [1, 1]\n" + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("seeds: [1]\nseeds: [2]\n", 'params.yaml is not valid YAML: found duplicate key "seeds"'),
        (BOMB, "params.yaml has more than 100,000 values once its aliases are filled in."),
        ("a: &a [*a]\n", "params.yaml has more than 100,000 values"),
        (f"a: [{'1, ' * 100_000}]\n", "params.yaml has more than 100,000 values"),
        ("a: " + "[" * 5000 + "]" * 5000, "params.yaml is nested too deeply."),
        ("a: !!python/object:os.system x\n", "params.yaml is not valid YAML: could not determine a constructor"),
        ("a: \x07\n", "params.yaml is not valid YAML: unacceptable character"),
        ("a: 2026-02-31\n", "params.yaml is not valid YAML: day is out of range"),
        ("a: 1" + "0" * 5000, "params.yaml is not valid YAML: Exceeds the limit"),
    ],
    ids=["duplicate", "aliases", "itself", "many", "deep", "tag", "control", "date", "digits"],
)
def test_a_hostile_file_is_refused_in_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (line,) = refusal(tmp_path, content)
    assert line.startswith(sentence)


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes("seeds: [1]\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"^params\.yaml is not text in UTF-8"):
        load(path)


def test_aliases_of_a_sane_size_are_filled_in(tmp_path: Path) -> None:
    candidates = "{gru: {layer: gru, train: *slow}, lstm: {layer: lstm, train: {<<: *slow}}}"
    params = load(written(tmp_path, f"train: &slow {{epochs: 90}}\ncandidates: {candidates}\n"))
    assert params.training_of("lstm").epochs == params.training_of("gru").epochs == 90


@pytest.mark.parametrize(("number", "value"), [("010", 10), ("0o10", 8), ("1e1", None)])
def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path, number: str, value: int | None) -> None:
    """YAML 1.1 reads 010 as eight; DVC reads YAML 1.2 and records ten."""
    from dvc.utils.serialize import loads_yaml

    text = f"train: {{epochs: {number}}}\ncandidates: {{gru: {{layer: gru}}}}\n"
    assert load(written(tmp_path, text)).train.epochs == loads_yaml(text)["train"]["epochs"]
    assert value in (None, load(written(tmp_path, text)).train.epochs)


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n", "", "just words"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    assert len(refusal(tmp_path, content)) == 1


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "params.yaml")


def test_an_unknown_candidate_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no candidate 'gruu'; did you mean 'gru'"):
        load(written(tmp_path, GOOD)).candidate("gruu")
