"""docs/architectures.md is what the code says."""

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

from recursight.models.layers import LAYERS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architectures", DOCS / "architectures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(generator: ModuleType) -> None:
    files = generator.files()
    stale = [
        str(path)
        for path, content in files.items()
        if not (DOCS / path).is_file() or (DOCS / path).read_text(encoding="utf-8") != content
    ]
    assert not stale, f"run `python docs/architectures.py`; stale: {stale}"
    assert {path.name for path in (DOCS / "architectures").iterdir()} == {f"{name}.svg" for name in LAYERS}


def test_every_layer_has_a_row_and_a_diagram_that_is_drawn(generator: ModuleType) -> None:
    page = (DOCS / "architectures.md").read_text(encoding="utf-8")
    for name in LAYERS:
        assert f"| [`{name}`](#{name}) |" in page
        drawing = ElementTree.parse(DOCS / "architectures" / f"{name}.svg").getroot()
        assert len(drawing.findall(".//{http://www.w3.org/2000/svg}rect")) > 5
    assert set(generator.GUIDE) == set(LAYERS)
