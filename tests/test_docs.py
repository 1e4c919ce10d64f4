"""What the documents show is run: commands in a fresh copy of this repository, code against its contract."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.workspace import ROOT, Workspace

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FEW = {"train": {"epochs": 2}, "candidates": {"gru": {"layer": "gru", "hidden": 16}}}
BY_HAND = ("git clone", "make ", ". .venv")  # what brought this test here


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```", page.read_text(), re.MULTILINE | re.DOTALL)


def shown_commands(page: Path) -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", *BY_HAND))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_of_the_readme_work_in_their_order(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.finish()  # by the first command, which then finds that nothing has changed
    pixels = np.random.default_rng(0)
    for number in range(40):
        kind = ("cat", "dog")[number % 2]
        picture = pixels.integers(0, 100, (8, 8), dtype=np.uint8) + (100 if kind == "dog" else 0)
        path = workspace.root / "pictures" / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(path)
    for command in shown_commands(ROOT / "README.md"):
        if "dvc exp run" in command:
            workspace.commit("before the experiment")
        if "data import" in command:
            workspace.change_params(**FEW)
        workspace.run("sh", "-c", command)


def test_the_readme_shows_commands() -> None:
    assert len(shown_commands(ROOT / "README.md")) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page


def test_commands_that_documents_name_exist() -> None:
    import typer.main

    from recursight.cli import app

    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for page in PAGES:
        for words in re.findall(r"`recursight ([^`]+)`", page.read_text()):
            first, *rest = shlex.split(words)
            assert first in known, f"{page}: {words}"
            below = getattr(known[first], "commands", None)
            assert below is None or rest[0] in below, f"{page}: {words}"


def test_the_layer_that_extending_shows_honours_the_contract() -> None:
    (source,) = blocks(ROOT / "docs" / "extending.md", "python")
    indent = len(source) - len(source.lstrip(" "))
    made: dict[str, object] = {}
    exec("\n".join(line[indent:] for line in source.splitlines()), made)
    torch.manual_seed(0)
    layer = made["MGU"](3, 5)  # type: ignore[operator]
    steps = torch.randn(2, 7, 3)
    states, end = layer(steps)
    assert states.shape == (2, 7, 5)
    first, state = layer(steps[:, :3])
    second, after = layer(steps[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), states)
    torch.testing.assert_close(after, end)
