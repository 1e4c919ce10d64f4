import shutil
from pathlib import Path

import pytest

from recursight.data.store import open_store
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.stages import prepare


@pytest.fixture
def layout(tmp_path: Path, digits: Path) -> Layout:
    (tmp_path / "params.yaml").write_text("candidates:\n  gru:\n    layer: gru\n")
    shutil.copytree(digits, tmp_path / "data")
    return Layout(tmp_path)


def test_makes_the_store_and_says_what_it_holds(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.run(layout)
    assert open_store(layout.store).frames.shape == (1797, 8, 8, 1)
    said = capsys.readouterr().out
    assert "1,797 images with 10 different labels, 8×8, grey, from idx: train 1,222, validation 216, test 359" in said
    assert "prepare: 1797/1797" in said
    assert "\x1b" not in said  # no colours where there is no terminal


def test_every_setting_has_its_effect(layout: Layout) -> None:
    section = "prepare: {size: [10, 6], resize: crop, channels: rgb, validation: 0.3, test: 0.1, seed: 5}\n"
    layout.params.write_text(section + layout.params.read_text())
    prepare.run(layout)
    store = open_store(layout.store)
    assert store.shape == (10, 6, 3)
    counts = store.summary["splits"]
    assert counts["test"] == pytest.approx(180, abs=5)
    assert counts["validation"] == pytest.approx(0.3 * 1617, abs=5)


def test_missing_data(layout: Layout) -> None:
    shutil.rmtree(layout.data)
    with pytest.raises(InputError, match=r"^data/ is missing: get it with `dvc pull data.dvc`, or bring images"):
        prepare.run(layout)


def test_contradictions_and_copies_are_printed() -> None:
    summary = {
        "kind": "stills",
        "shape": [8, 8, 3],
        "count": 3,
        "values": 2,
        "splits": {"train": 2, "test": 1},
        "source": {"format": "folder"},
        "left_out": 1,
        "too_short": 0,
        "conflict_count": 1,
        "conflicts": [["a/1.png", "b/1.png"]],
    }
    lines = prepare.describe(summary, 0.1).splitlines()
    assert lines[1].startswith("1 left out")
    assert lines[2:] == ["1 images have two or more labels:", "  a/1.png = b/1.png"]
