"""The simulation behind docs/gate.md: it repeats, and the gate does in small what the page says of it."""

import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import gate_simulation as simulation


def test_worse_ones_stay_out_and_better_ones_come_in():
    worse, better = (simulation.simulate(difference, 30, seed=1) for difference in (-0.002, 0.004))
    assert worse.promoted["better"] == worse.promoted["better, macro F1"] == 0
    assert better.promoted["better"] > 0.9
    assert simulation.simulate(0.004, 30, seed=1) == better


def test_networks_are_as_good_and_as_unlike_as_it_says():
    right = [
        ((champion == simulation.ACTUAL).mean(), (challenger == simulation.ACTUAL).mean())
        for champion, challenger in simulation.pairs(-0.01, 40, seed=0)
    ]
    champion, challenger = (sum(column) / len(column) for column in zip(*right, strict=True))
    assert champion == pytest.approx(simulation.CHAMPION, abs=0.0005)
    assert challenger == pytest.approx(simulation.CHAMPION - 0.01, abs=0.0008)
    assert simulation.disagreement() == pytest.approx(0.0065, abs=0.0005)


def test_the_picture_is_the_same_every_time(tmp_path: Path, monkeypatch):
    rates = [
        simulation.Rates(difference, dict.fromkeys(simulation.RULES, 0.5)) for difference in simulation.DIFFERENCES
    ]
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for picture in pictures:
        monkeypatch.setattr(simulation, "PICTURE", picture)
        simulation.draw(rates)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_the_page_has_the_tables_and_the_picture():
    page = (ROOT / "docs" / "gate.md").read_text()
    table = page.split(simulation.OPENING)[1].split(simulation.CLOSING)[0]
    rows = [line for line in table.splitlines() if "points |" in line]
    assert len(rows) == len(simulation.DIFFERENCES)
    for row in rows:
        difference, better, *_ = (cell.strip(" %points") for cell in row.strip("|").split("|"))
        if float(difference) < 0:
            assert float(better) <= 1
    assert (ROOT / "docs" / "images" / "gate.svg").is_file()
