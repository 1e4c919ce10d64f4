"""What reads untrusted input reads or refuses valid samples, former failures and a few hundred random mutants."""

import warnings
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, corpus, own_folder, refuses_or_reads


@pytest.mark.parametrize("name", TARGETS)
def test_samples_are_read(name: str, tmp_path: Path) -> None:
    for sample in TARGETS[name].samples():
        TARGETS[name].read(sample, own_folder(tmp_path / "work"))


@pytest.mark.parametrize(
    ("name", "path"),
    [pytest.param(name, path, id=f"{name}-{path.name}") for name in TARGETS for path in corpus(name)],
)
def test_former_failures_are_refused_in_a_sentence(name: str, path: Path, tmp_path: Path) -> None:
    refuses_or_reads(TARGETS[name], path.read_bytes(), own_folder(tmp_path / "work"))


@pytest.mark.parametrize("name", TARGETS)
def test_mutants_are_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    target, random = TARGETS[name], Random(0)
    samples = target.samples()
    for _ in range(100):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refuses_or_reads(target, mutated(random, samples, target.words), own_folder(tmp_path / "work"))
