"""Exported networks answer as the network does, at any batch size, and hold no pickle."""

import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from recursight.models.assembly import Network, assemble
from recursight.models.kernels import plain
from recursight.models.layers import LAYERS
from recursight.params import Candidate, load
from recursight.registry import served_model
from recursight.registry.export import export
from recursight.registry.served_model import load_programme
from tests.conftest import ROOT

CANDIDATES = sorted(yaml.safe_load((ROOT / "params.yaml").read_text())["candidates"])
SHAPE = [8, 10, 1]


def network_of(name: str) -> Network:
    torch.manual_seed(0)
    architecture = load(ROOT / "params.yaml").candidate(name).architecture
    return assemble(architecture, input_shape=SHAPE, outputs=5, mean=[0.3], std=[0.4]).eval()


def a_network(**candidate: Any) -> Network:
    architecture = Candidate(hidden=[8], **candidate).architecture
    return assemble(architecture, input_shape=SHAPE, outputs=5, mean=[0.3], std=[0.4]).eval()


@pytest.mark.parametrize("name", CANDIDATES)
def test_every_candidate_answers_the_same_at_any_batch_size(name: str, tmp_path: Path):
    network = network_of(name)
    export(network, SHAPE, tmp_path / "network.pt2")
    exported = load_programme(tmp_path / "network.pt2")
    for batch in (1, 2, 3, 1000):
        images = torch.randint(0, 256, (batch, *SHAPE), dtype=torch.uint8)
        with torch.inference_mode():
            torch.testing.assert_close(exported(images), torch.softmax(network(images), dim=-1))


def test_a_programme_holds_the_operators_and_answers_exactly_as_the_network(tmp_path: Path):
    network = network_of("gru")
    export(network, SHAPE, tmp_path / "network.pt2")
    exported = load_programme(tmp_path / "network.pt2")
    assert "recursight.sequence.default" in {str(node.target) for node in exported.graph.nodes}
    images = torch.randint(0, 256, (70, *SHAPE), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(exported(images), torch.softmax(network(images), dim=-1))


ANSWER = """
import sys
sys.modules["recursight"] = None  # as if it were not installed
import importlib.util, torch
from pathlib import Path
specification = importlib.util.spec_from_file_location("served_model", sys.argv[1])
served_model = importlib.util.module_from_spec(specification)
specification.loader.exec_module(served_model)
served_model.define_operators(Path(sys.argv[2]))
folder = Path(sys.argv[3])
images = torch.load(folder / "images")
for path in sorted(folder.glob("*.pt2")):
    programme = served_model.load_programme(path)
    with torch.inference_mode():
        torch.save(programme(images), path.with_suffix(".answers"))
        assert len(programme(images[:1])) == 1
assert not any(name.startswith("recursight.") for name in sys.modules)
"""


def test_without_recursight_a_programme_answers_the_same(tmp_path: Path):
    images = torch.randint(0, 256, (9, *SHAPE), dtype=torch.uint8)
    torch.save(images, tmp_path / "images")
    scripts = (served_model.__file__, plain.__file__)
    networks = {}
    for layer in LAYERS:
        torch.manual_seed(0)
        scan = "grid" if LAYERS[layer].grid else "rows"
        networks[layer] = a_network(scan=scan, layer=layer)
        export(networks[layer], SHAPE, tmp_path / f"{layer}.pt2")
    subprocess.run([sys.executable, "-c", ANSWER, *map(str, (*scripts, tmp_path))], check=True)
    for layer, network in networks.items():
        with torch.inference_mode():
            expected = torch.softmax(network(images), dim=-1)
        torch.testing.assert_close(torch.load(tmp_path / f"{layer}.answers"), expected, rtol=1e-4, atol=1e-5)


def test_no_entry_of_the_file_is_a_pickle(tmp_path: Path):
    export(network_of("gru"), SHAPE, tmp_path / "network.pt2")
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


def test_a_file_with_a_pickle_inside_is_not_loaded(tmp_path: Path):
    images = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    programme = torch.export.export(network_of("cnn"), (images,))
    torch.export.save(programme, tmp_path / "network.pt2")  # pickles its example inputs
    with pytest.raises(ValueError, match=r"sample_inputs.* is pickled"):
        load_programme(tmp_path / "network.pt2")
