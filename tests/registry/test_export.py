"""Exported networks answer as the network does, at any batch size, and hold no pickle."""

import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from recursight.evaluation.predict import Program
from recursight.models.assembly import assemble
from recursight.models.kernels import plain
from recursight.models.layers import LAYERS
from recursight.params import Candidate, load
from recursight.registry import program as program_module
from recursight.registry.export import export
from recursight.registry.program import LoadedProgram
from recursight.tasks import make_task
from tests.conftest import ROOT

CANDIDATES = sorted(yaml.safe_load((ROOT / "params.yaml").read_text())["candidates"])
SHAPE = [8, 10, 1]


def program_of(name: str) -> Program:
    torch.manual_seed(0)
    architecture = load(ROOT / "params.yaml").candidate(name).architecture
    network = assemble(architecture, input_shape=SHAPE, outputs=5, mean=[0.3], std=[0.4])
    return Program(network, make_task("classification", {})).eval()


def a_program(**candidate: Any) -> Program:
    architecture = Candidate(hidden=[8], **candidate).architecture
    network = assemble(architecture, input_shape=SHAPE, outputs=5, mean=[0.3], std=[0.4])
    return Program(network, make_task("classification", {})).eval()


@pytest.mark.parametrize("name", CANDIDATES)
def test_every_candidate_answers_the_same_at_any_batch_size(name: str, tmp_path: Path):
    program = program_of(name)
    export(program, SHAPE, tmp_path / "network.pt2")
    exported = LoadedProgram(tmp_path / "network.pt2")
    for batch in (1, 2, 3, 1030):  # the last one in two parts
        images = torch.randint(0, 256, (batch, *SHAPE), dtype=torch.uint8)
        with torch.inference_mode():
            expected = program(images).double()
        torch.testing.assert_close(torch.from_numpy(exported(images.numpy())), expected, rtol=1e-4, atol=1e-6)
    assert exported(np.zeros((0, *SHAPE), np.uint8)).shape == (0, 5)
    assert exported.parameters == sum(parameter.numel() for parameter in program.parameters())


def test_a_program_holds_the_operators_and_answers_exactly_as_the_network(tmp_path: Path):
    program = program_of("gru")
    export(program, SHAPE, tmp_path / "network.pt2")
    exported = LoadedProgram(tmp_path / "network.pt2")
    assert "recursight.sequence.default" in {str(node.target) for node in exported.graph.graph.nodes}
    images = torch.randint(0, 256, (70, *SHAPE), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(torch.from_numpy(exported(images.numpy())), program(images).double())


ANSWER = """
import sys
sys.modules["recursight"] = None  # as if it were not installed
import importlib.util
import numpy as np
from pathlib import Path
specification = importlib.util.spec_from_file_location("program", sys.argv[1])
program = importlib.util.module_from_spec(specification)
specification.loader.exec_module(program)
folder = Path(sys.argv[3])
images = np.load(folder / "images.npy")
for path in sorted(folder.glob("*.pt2")):
    loaded = program.LoadedProgram(path, Path(sys.argv[2]))
    np.save(path.with_suffix(".npy"), loaded(images))
    assert len(loaded(images[:1])) == 1
assert not any(name.startswith("recursight.") for name in sys.modules)
"""


def test_without_recursight_a_program_answers_the_same(tmp_path: Path):
    images = torch.randint(0, 256, (9, *SHAPE), dtype=torch.uint8)
    np.save(tmp_path / "images.npy", images.numpy())
    scripts = (program_module.__file__, plain.__file__)
    programs = {}
    for layer in LAYERS:
        torch.manual_seed(0)
        scan = "grid" if LAYERS[layer].grid else "rows"
        programs[layer] = a_program(scan=scan, layer=layer)
        export(programs[layer], SHAPE, tmp_path / f"{layer}.pt2")
    subprocess.run([sys.executable, "-c", ANSWER, *map(str, (*scripts, tmp_path))], check=True)
    for layer, program in programs.items():
        with torch.inference_mode():
            expected = program(images).double()
        found = torch.from_numpy(np.load(tmp_path / f"{layer}.npy"))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_images_of_another_shape_are_refused(tmp_path: Path):
    export(program_of("gru"), SHAPE, tmp_path / "network.pt2")
    with pytest.raises(ValueError, match=r"images of shape \(8, 1, 1\), but the network takes \(8, 10, 1\)"):
        LoadedProgram(tmp_path / "network.pt2")(np.zeros((2, 8, 1, 1), np.uint8))


def test_the_file_names_no_folder_of_the_machine_it_was_made_on(tmp_path: Path):
    export(program_of("gru"), SHAPE, tmp_path / "network.pt2")
    with zipfile.ZipFile(tmp_path / "network.pt2") as archive:
        assert not [name for name in archive.namelist() if str(ROOT).encode() in archive.read(name)]


def test_no_entry_of_the_file_is_a_pickle(tmp_path: Path):
    export(program_of("gru"), SHAPE, tmp_path / "network.pt2")
    with zipfile.ZipFile(tmp_path / "network.pt2") as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    assert any(contents)
    assert not any(is_pickle(content) for content in contents if content)


def is_pickle(content: bytes) -> bool:
    """Whether it is one, or a zip with one inside, as torch.save writes."""
    try:
        return content.startswith(b"PK") or (content[0] == 0x80 and bool(list(pickletools.genops(content))))
    except (ValueError, IndexError):
        return False
