"""Programs and registered models that would run code are refused before any of it runs."""

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import mlflow.pyfunc
import pytest
import torch
from typer.testing import CliRunner

from recursight.cli import app
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.registry import CHAMPION, promote, register
from recursight.registry.archive import check_archive
from recursight.registry.export import export
from recursight.registry.loading import Unreadable, load_version
from recursight.registry.reference import reference_of_version
from recursight.registry.versions import FILES, file_digests
from recursight.serving.champion import load_champion
from recursight.tracking import connect
from recursight.tracking.connection import fluent
from tests.projects import choose
from tests.registry.test_export import CANDIDATES, SHAPE, program_of

NAME = "recursight"
Entries = dict[str, bytes]


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def saved(trace: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Attack(trace), buffer)
    return buffer.getvalue()


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, entries: Entries) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"network/{name}", content)
    return path


def samples_in_upper_case(entries: Entries, trace: Path) -> None:
    del entries["data/sample_inputs/model.pt"]
    entries["data/SAMPLE_INPUTS/model.pt"] = saved(trace)


def weights_of_an_earlier_format(entries: Entries, trace: Path) -> None:
    entries["data/weights/model.pt"] = saved(trace)


def constants_of_an_earlier_format(entries: Entries, trace: Path) -> None:
    entries["data/constants/model.pt"] = saved(trace)


def pickled_weight(entries: Entries, trace: Path) -> None:
    name = "data/weights/model_weights_config.json"
    entries[name] = entries[name].replace(b'"use_pickle": false', b'"use_pickle":true', 1)
    entries["data/weights/weight_0"] = saved(trace)


def pickled_constant(entries: Entries, trace: Path) -> None:
    name = "data/constants/model_constants_config.json"
    entries[name] = entries[name].replace(b'"tensor_0"', b'"opaque_obj_0"', 1)
    entries[name] = entries[name].replace(b'"use_pickle": false', b'"use_pickle": true', 1)
    entries["data/constants/opaque_obj_0"] = pickle.dumps(Attack(trace))


def size_that_calls(entries: Entries, trace: Path) -> None:
    call = f"Integer(__import__('pathlib').Path('{trace}').touch() or 2)"
    graph = json.loads(entries["models/model.json"])
    for value in graph["graph_module"]["graph"]["tensor_values"].values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = call
    entries["models/model.json"] = json.dumps(graph).encode()


def samples(entries: Entries, trace: Path) -> None:
    entries["data/sample_inputs/model.pt"] = saved(trace)


ATTACKS: list[Callable[[Entries, Path], None]] = [
    samples,
    samples_in_upper_case,
    weights_of_an_earlier_format,
    constants_of_an_earlier_format,
    pickled_weight,
    pickled_constant,
    size_that_calls,
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "network.pt2"
    export(program_of("cnn"), SHAPE, path)
    return path


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_program_that_would_run_code_is_refused(exported, tmp_path, attack):
    trace, entries = tmp_path / "it-ran", entries_of(exported)
    check_archive(write(tmp_path / "copied.pt2", entries))
    attack(entries, trace)
    forged = write(tmp_path / "forged.pt2", entries)
    with pytest.raises(ValueError, match=r"not allowed|pickled"):
        check_archive(forged)
    assert not trace.exists()
    with suppress(Exception):  # what comes after the attack may fail
        torch.export.load(forged)
    assert trace.exists(), "torch alone runs it: the attack is real"


def change_graph(change: Callable[[dict], None]) -> Callable[[Entries], None]:
    def forge(entries: Entries) -> None:
        graph = json.loads(entries["models/model.json"])
        change(graph)
        entries["models/model.json"] = json.dumps(graph).encode()

    return forge


def rename(old: str, new: str) -> Callable[[Entries], None]:
    def forge(entries: Entries) -> None:
        text = entries["models/model.json"].decode()
        assert f'"{old}"' in text
        entries["models/model.json"] = text.replace(f'"{old}"', json.dumps(new)).encode()

    return forge


@pytest.mark.parametrize(
    "forge",
    [
        rename("torch.ops.aten.relu.default", "torch.hub.load"),
        rename("torch.ops.aten.relu.default", "torch.ops.load_library"),
        rename("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"),
        rename("torch.ops.aten.relu.default", "_operator.methodcaller"),
        rename("softmax", "softmax=print(1)"),
        change_graph(lambda graph: graph.update(guards_code=["print(1)"])),
        change_graph(lambda graph: graph["graph_module"]["graph"]["nodes"][0]["metadata"].update(custom="{}")),
        rename(
            '[1, {"type": null, "context": null, "children_spec": []}]'.replace('"', '\\"'),
            '[1, {"type": "collections.defaultdict", "context": null, "children_spec": []}]',
        ),
        lambda entries: entries.update({"extra/note": b"x"}),
        lambda entries: entries.update({"MODELS/model.json": entries["models/model.json"]}),
        lambda entries: entries.update({"data/aotinductor/model/a.so": b"x"}),
    ],
)
def test_what_the_export_does_not_write_is_refused(exported, tmp_path, forge):
    entries = entries_of(exported)
    forge(entries)
    with pytest.raises(ValueError, match="not allowed"):
        check_archive(write(tmp_path / "forged.pt2", entries))


def test_an_entry_in_two_places_is_refused(exported, tmp_path):
    forged = write(tmp_path / "forged.pt2", entries_of(exported))
    with zipfile.ZipFile(forged, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("network/data/sample_inputs/model.pt", b"")
    with pytest.raises(ValueError, match="well-formed"):
        check_archive(forged)
    with zipfile.ZipFile(forged, "w") as archive:  # what torch reads as the format of earlier versions
        archive.writestr("serialized_state_dict.pt", b"x")
    with pytest.raises(Exception, match=r"subdirectory|well-formed|archive"):
        check_archive(forged)


@pytest.mark.parametrize("name", CANDIDATES)
def test_every_candidate_is_allowed(tmp_path, name):
    export(program_of(name), SHAPE, tmp_path / "network.pt2")
    check_archive(tmp_path / "network.pt2")


def model_folder(layout: Layout, version: int) -> Path:
    model = connect(layout).get_model_version(NAME, str(version)).source.rpartition("/")[2]
    return layout.root / "mlartifacts" / "models" / model / "artifacts"


def record_digest(layout: Layout, version: int) -> None:
    """As somebody could who may write to MLflow's store."""
    connect(layout).set_model_version_tag(NAME, str(version), FILES, file_digests(model_folder(layout, version)))


def printed(layout: Layout, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What a command prints on the way to its refusal: one line."""
    monkeypatch.chdir(layout.root)
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, InputError), done.output
    (line,) = str(done.exception).splitlines()
    return line


def test_changed_code_and_weights_are_refused_and_forged_code_never_runs(project, monkeypatch):
    register(project)
    folder, trace = model_folder(project, 1), project.root / "it-ran"
    for path in (folder / "served_model.py", *(folder / "artifacts").glob("*.py")):
        path.write_text(f"import pathlib; pathlib.Path({str(trace)!r}).touch()\n" + path.read_text())
    line = printed(project, monkeypatch, "predict", "missing.png")
    assert "its files were changed after it was registered" in line
    with pytest.raises(InputError, match="were changed"):
        load_champion(project)
    with pytest.raises(InputError, match="were changed"):  # as `monitor` does
        reference_of_version(project, connect(project).get_model_version(NAME, "1"))
    record_digest(project, 1)
    assert load_champion(project).version == 1
    assert not trace.exists()
    network = folder / "artifacts" / "network.pt2"
    entries = entries_of(network)
    samples_in_upper_case(entries, trace)
    write(network, entries)
    with pytest.raises(Unreadable, match="changed"):
        load_version(project, NAME, 1)
    record_digest(project, 1)
    with pytest.raises(Unreadable, match="SAMPLE_INPUTS"):
        load_version(project, NAME, 1)
    choose(project, "elman")
    assert register(project).alias == "challenger"
    assert "SAMPLE_INPUTS" in promote(project).reason
    assert not trace.exists()


FOREIGN = """
import pathlib
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

pathlib.Path({trace!r}).touch()

class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input

set_model(Model())
"""


def test_a_champion_of_another_program_is_refused(project, monkeypatch, tmp_path):
    trace, script = tmp_path / "it-ran", tmp_path / "foreign.py"
    script.write_text(FOREIGN.format(trace=str(trace)))
    client = connect(project)
    client.create_registered_model(NAME)
    with fluent(project):
        mlflow.pyfunc.save_model(path=tmp_path / "model", python_model=str(script), pip_requirements=["mlflow"])
        client.create_model_version(NAME, source=(tmp_path / "model").as_uri())
    trace.unlink(missing_ok=True)
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    line = printed(project, monkeypatch, "predict", "missing.png")
    assert "another program or an earlier release registered it" in line
    client.set_model_version_tag(NAME, "1", FILES, file_digests(tmp_path / "model"))
    line = printed(project, monkeypatch, "predict", "missing.png")
    assert "version 1 cannot be loaded" in line
    assert not trace.exists()


def test_the_winner_of_an_earlier_release_is_recorded_by_register(project):
    register(project)
    connect(project).delete_model_version_tag(NAME, "1", FILES)
    model = connect(project).get_model_version(NAME, "1").source.rpartition("/")[2]
    connect(project).delete_logged_model_tag(model, FILES)
    shutil.rmtree(model_folder(project, 1) / "artifacts")  # whatever that release wrote
    with pytest.raises(InputError, match=r"has recorded no digests of its files.*recursight register"):
        load_champion(project)
    assert not register(project).created
    assert load_champion(project).version == 1
