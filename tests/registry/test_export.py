"""Exported networks answer as the network does, at any batch size, and hold no pickle."""

import pickletools
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from recursight.models.assembly import Network, assemble
from recursight.params import load
from recursight.registry.export import export
from recursight.registry.served_model import load_programme
from tests.conftest import ROOT

CANDIDATES = sorted(yaml.safe_load((ROOT / "params.yaml").read_text())["candidates"])
SHAPE = [8, 10, 1]


def network_of(name: str) -> Network:
    torch.manual_seed(0)
    architecture = load(ROOT / "params.yaml").candidate(name).architecture
    return assemble(**architecture, input_shape=SHAPE, classes=5, mean=[0.3], std=[0.4]).eval()


@pytest.mark.parametrize("name", CANDIDATES)
def test_every_candidate_answers_the_same_at_any_batch_size(name: str, tmp_path: Path):
    network = network_of(name)
    export(network, SHAPE, tmp_path / "network.pt2")
    exported = load_programme(tmp_path / "network.pt2")
    for batch in (1, 2, 3, 1000):
        images = torch.randint(0, 256, (batch, *SHAPE), dtype=torch.uint8)
        with torch.inference_mode():
            torch.testing.assert_close(exported(images), torch.softmax(network(images), dim=-1))


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
