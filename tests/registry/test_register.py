"""The winner becomes a version, once; the first good one becomes champion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.entities import LoggedModelOutput

from recursight.data.store import open_store
from recursight.errors import InputError
from recursight.files import digest, read_json, write_json
from recursight.models.bundle import load_bundle
from recursight.registry import CHALLENGER, CHAMPION, register, version_with
from recursight.registry.log import enter_model
from recursight.registry.register import VOCABULARY
from recursight.tracking import connect, sync
from recursight.tracking.connection import experiment_id
from recursight.tracking.results import result_in
from recursight.tracking.runs import BUNDLE, find_finished
from tests.projects import change_params, choose

NAME = "recursight"


def bearer(layout, alias: str) -> int | None:
    version = version_with(connect(layout), NAME, alias)
    return version and int(version.version)


def model_folder(layout) -> Path:
    (folder,) = (layout.root / "mlartifacts" / "models").glob("m-*/artifacts")
    return folder


def test_the_first_good_winner_becomes_champion(project):
    made = register(project)
    assert (made.version, made.candidate, made.created, made.alias, made.champion) == (1, "gru", True, "champion", 1)
    assert bearer(project, CHAMPION) == 1
    assert bearer(project, CHALLENGER) is None
    version = connect(project).get_model_version(NAME, "1")
    run = connect(project).get_run(made.run_id)
    assert version.run_id == run.info.run_id
    assert run.data.tags[BUNDLE] == version.tags[BUNDLE]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] > 0.3
    assert version.description.startswith("# gru, seed 0")


def test_an_evaluation_of_an_earlier_release_is_refused(project):
    path = project.evaluation_of("gru", 0) / "metrics.json"
    metrics = read_json(path)
    del metrics["latency_on"]
    write_json(path, metrics)
    with pytest.raises(InputError, match="An earlier release of recursight evaluated gru, seed 0; run `dvc repro`"):
        register(project)


def test_a_bundle_gets_one_version_however_often_it_is_registered(project):
    register(project)
    again = register(project)
    assert (again.version, again.created, again.alias) == (1, False, "champion")
    assert len(connect(project).search_model_versions(f"name = '{NAME}'")) == 1
    assert model_folder(project)


def test_a_later_winner_challenges_and_an_earlier_one_keeps_its_version(project):
    register(project)
    choose(project, "elman")
    second = register(project)
    assert (second.version, second.alias, second.champion) == (2, "challenger", 1)
    assert "version 1 is the champion" in second.reason
    choose(project, "gru")
    first = register(project)
    assert (first.version, first.created, first.alias) == (1, False, "champion")
    assert bearer(project, CHALLENGER) is None


def test_a_winner_of_another_task_is_told_to_take_a_name_of_its_own(project):
    register(project)
    connect(project).set_model_version_tag(NAME, "1", VOCABULARY, digest(["classification", ["cat", "dog"]]))
    choose(project, "elman")
    assert "for another task or vocabulary: give this one a separate `registry.model_name`." in register(project).reason
    connect(project).delete_model_version_tag(NAME, "1", VOCABULARY)  # of an earlier release
    assert register(project).reason == "version 1 is the champion."


def test_a_winner_below_the_minimums_is_no_champion_and_it_is_said_why(project):
    change_params(project, "registry", minimums={"accuracy": 0.999, "worst_class_recall": 0.99})
    made = register(project)
    assert made.alias == "challenger"
    assert "registry.minimums.accuracy" in made.reason
    assert "recall of the worst class (class '" in made.reason
    assert bearer(project, CHAMPION) is None
    assert bearer(project, CHALLENGER) == 1
    change_params(project, "registry", minimums={"accuracy": 0.1, "worst_class_recall": 0.0})
    made = register(project)
    assert (made.version, made.created, made.alias) == (1, False, "champion")
    assert bearer(project, CHALLENGER) is None


def test_the_model_answers_raw_images_as_the_network_does_without_pickles_and_without_recursight(project):
    register(project)
    folder = model_folder(project)
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".pth")]
    network, card = load_bundle(project.bundle("gru", 0))
    images = np.array(open_store(project.store).frames[:5])
    np.save(project.root / "images.npy", images)
    code = (
        "import json, sys, numpy, mlflow.pyfunc\n"
        "sys.modules['recursight'] = None  # as if it were not installed\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1]); images = numpy.load(sys.argv[2])\n"
        "answers = {len(part): model.predict(part).to_dict('records') for part in (images, images[:1], images[:0])}\n"
        "assert not any(name.startswith('recursight.') for name in sys.modules)\n"
        "print(json.dumps(answers))\n"
    )
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-c", code, str(folder), str(project.root / "images.npy")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=project.root)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers["0"] == []
    with torch.inference_mode():
        expected = torch.softmax(network(torch.from_numpy(images)), dim=-1).numpy()
    for row, answer in zip(expected, answers["5"], strict=True):
        assert answer["class"] == card.vocabulary[row.argmax()]
        assert list(answer["probabilities"]) == card.vocabulary
        np.testing.assert_allclose(list(answer["probabilities"].values()), row, atol=1e-5)
    assert answers["1"][0]["class"] == answers["5"][0]["class"]


def test_the_model_says_what_it_needs_and_takes(project):
    register(project)
    folder = model_folder(project)
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in requirements} == {"mlflow", "numpy", "pandas", "torch"}
    assert all("==" in line and "+" not in line for line in requirements)
    model = (folder / "MLmodel").read_text()
    assert '"shape": [-1, 8,' in model
    assert "input_example.json" in model
    card = (folder / "artifacts" / "model_card.md").read_text()
    for heading in ("Data", "Architecture", "Metrics", "Confusion matrix", "Limits", "How to call it"):
        assert f"## {heading}" in card
    metrics = read_json(project.evaluation_of("gru", 0) / "metrics.json")["test"]
    accuracy, low, high = (f"{100 * metrics[f'accuracy{end}']:.2f} %" for end in ("", "_low", "_high"))
    assert f"{accuracy} ({low} to {high})" in card
    assert "0123456789abcdef0123456789abcdef.dir" in card


@pytest.mark.parametrize("linked", [False, True])
def test_a_registration_that_was_killed_half_way_is_completed(project, linked):
    sync(project)
    client = connect(project)
    experiment = experiment_id(client, project, "recursight")
    result = result_in(project.bundle("gru", 0), project.evaluation_of("gru", 0))
    run = find_finished(client, experiment, bundle=result.digest)
    entry = enter_model(client, run, result)
    if linked:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(entry.model_id, step=0)])
    assert register(project).created
    (model,) = client.search_logged_models([experiment])
    assert (model.model_id, model.status) == (entry.model_id, "READY")
    assert model_folder(project)


def test_a_model_that_was_logged_but_got_no_version_is_not_logged_again(project):
    register(project)
    entry = model_folder(project)
    connect(project).delete_model_version(NAME, "1")
    assert register(project).version == 2
    assert model_folder(project) == entry


def test_the_scores_stand_beside_the_model_too(project):
    register(project)
    client = connect(project)
    (model,) = client.search_logged_models([experiment_id(client, project, "recursight")])
    scores = {metric.key: metric.value for metric in model.metrics}
    assert scores["test_accuracy"] == read_json(project.evaluation_of("gru", 0) / "metrics.json")["test"]["accuracy"]
    assert model.status == "READY"


def test_without_a_comparison_the_command_that_makes_one_is_named(project):
    (project.comparison / "comparison.json").unlink()
    with pytest.raises(InputError, match="dvc repro"):
        register(project)


def test_an_evaluation_of_other_weights_is_refused(project):
    path = project.evaluation_of("gru", 0) / "metrics.json"
    write_json(path, read_json(path) | {"bundle_digest": "other"})
    with pytest.raises(InputError, match="not of its present weights"):
        register(project)


def test_a_class_that_is_never_predicted_or_never_tested_is_no_obstacle(project):
    path = project.evaluation_of("gru", 0) / "predictions.parquet"
    rows = pd.read_parquet(path)
    first, second = rows["actual"].cat.categories[:2]
    rows = rows[(rows["predicted"] != first) & (rows["actual"] != second)]
    rows.to_parquet(path, index=False)
    made = register(project)
    text = connect(project).get_model_version(NAME, str(made.version)).description
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {first} |"))
    assert "–" in row
    assert f"| {second} |" in text
