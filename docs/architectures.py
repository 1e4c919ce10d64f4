"""Writes docs/architectures.md and its diagrams from the code: `python docs/architectures.py`.

A test runs it and compares, so the page cannot fall behind the layers.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from recursight.models.assembly import Network, assemble
from recursight.models.kernels.operators import products
from recursight.models.layers import LAYERS, OVER_TIME_LAYERS
from recursight.models.layers.recurrence import Layer, Recurrence
from recursight.models.readouts import OVER_TIME, READOUTS
from recursight.models.scans import SCANS
from recursight.models.stems import STEMS
from recursight.params import Candidate

FOLDER = Path(__file__).parent
SIDE, HIDDEN = 28, 64

# When to use a layer, and when not.
GUIDE: dict[str, tuple[str, str]] = {
    "elman": ("A baseline; with ReLU and `start: identity` it is the IRNN.", "More than a few dozen steps."),
    "lstm": ("A safe default on rows and columns; long memory.", "A thousand steps or more: they run one by one."),
    "gru": ("Like the LSTM, 25 % cheaper.", "As for the LSTM."),
    "indrnn": (
        "Deep stacks over long scans; only pointwise operations per step.",
        "A single layer: no connections between units.",
    ),
    "mingru": (
        "Pixel by pixel; all steps in parallel, and faster than the LRU.",
        "A single layer: the gate sees only the input.",
    ),
    "minlstm": ("Like minGRU, with separate gates for forgetting and input.", "As for minGRU."),
    "sru": ("Cheap stacks over long scans, with highway connections.", "A single narrow layer."),
    "qrnn": (
        "Scans with local structure: each step sees a window of inputs.",
        "Cases where the gates must depend on the state.",
    ),
    "lru": (
        "The longest scans: magnitude and phase of its eigenvalues set the memory.",
        "Few steps: it is then little more than a product and a gate.",
    ),
    "slstm": (
        "Inputs that force an LSTM to revise what it stored: unbounded gates.",
        "Tight time limits: it is slower than the LSTM.",
    ),
    "rnn2d": (
        "Small images: each pixel sees its left and upper neighbour.",
        "Large images: it keeps a state for every pixel.",
    ),
    "mdlstm": (
        "Like rnn2d with memory cells; with four directions every state sees the whole image.",
        "As for rnn2d, at five times the cost.",
    ),
    "renet": (
        "Patches that need the context of the whole image; rows and columns in parallel.",
        "Single pixels: it keeps a state for every position.",
    ),
    "hierarchical": (
        "Pixel by pixel in H + W steps instead of H · W.",
        "Images whose single rows carry little information.",
    ),
    "sequencer": ("Deep stacks over embedded patches, like a transformer.", "A single block, or small data sets."),
}


def network(name: str) -> tuple[str, Network]:
    """The scan and the network of a row of the table: over rows or the pixel grid; renet and sequencer over patches."""
    torch.manual_seed(0)
    patched = name in ("renet", "sequencer")
    scan = ("patch-grid" if patched else "grid") if LAYERS[name].grid else "rows"
    architecture = Candidate(scan=scan, layer=name, hidden=[HIDDEN]).architecture
    return scan, assemble(architecture, input_shape=[SIDE, SIDE, 1], outputs=10, mean=[0.0], std=[1.0])


def figures(name: str) -> dict[str, Any]:
    """What the layer reads, its parameters, sequential steps, and floating-point operations per image."""
    scan, model = network(name)
    stack = model.stacks[0]
    lengths: dict[str, int] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        height, *width = inputs[0].shape[1:-1]
        lengths[paths[module]] = height + sum(width) - len(width)  # of a grid: anti-diagonals

    paths = {module: path for path, module in stack.named_modules() if isinstance(module, Recurrence)}
    for module, path in paths.items():
        if "backward_layer" not in path:
            module.register_forward_hook(record)
    (view,) = model.views(torch.zeros(1, SIDE, SIDE, 1))
    stack(view)
    side_by_side = name == "sequencer"
    return {
        "reads": {"rows": "rows", "grid": "pixels", "patch-grid": "4×4 patches"}[scan],
        "parameters": sum(weights.numel() for weights in stack.parameters()),
        "steps": max(lengths.values()) if side_by_side else sum(lengths.values()),
        "products": products(stack, view) / 1e6,
    }


def page() -> str:
    """The page as markdown."""
    lines = [
        "# Architectures",
        "",
        "This page is generated from the code by `python docs/architectures.py`. To change it, edit the docstrings.",
        "",
        "A candidate in `params.yaml` is a [stem](#stems), a [scan](#scans), a layer and a [readout](#readouts).",
        "",
        f"The table describes one layer with {HIDDEN} units on a grey {SIDE}×{SIDE} image, in one direction. *Steps*",
        "is the number of sequential steps; layers marked ∥ can compute all of them in parallel. *MFLOP* counts the",
        "layer's matrix products in the forward pass for one image; training needs three times as many.",
        "",
        "| layer | reads | parameters | steps | MFLOP | use it for | avoid it for |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for name in LAYERS:
        found = figures(name)
        use, avoid = GUIDE[name]
        at_once = " ∥" if parallel(LAYERS[name]) else ""
        lines.append(
            f"| [`{name}`](#{name}) | {found['reads']} | {found['parameters']:,} | {found['steps']}{at_once} "
            f"| {found['products']:.2f} | {use} | {avoid} |"
        )
    for title, parts in PARTS.items():
        lines += ["", f"## {title}", ""]
        for name, part in parts.items():
            lines += [f"- `{name}`: {opening(part)}", *(f"  {line}" for line in options(part))]
    lines += ["", "## State", "", *STATE.splitlines()]
    for name, layer in LAYERS.items():
        lines += ["", f"## {name}", "", *description(layer), "", f"![How {name} reads](architectures/{name}.svg)"]
    return "\n".join(lines) + "\n"


def opening(described: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(described) or "").splitlines()[0]


PARTS: dict[str, Mapping[str, Any]] = {
    "Stems": STEMS,
    "Scans": SCANS,
    "Readouts": READOUTS,
    "Further layers over time": OVER_TIME_LAYERS,
    "Further readouts over time": {name: part for name, part in OVER_TIME.items() if name not in READOUTS},
}

STATE = """\
Every layer takes the state before its first step and returns the one after its last, so that a sequence can be read in
parts, or another network can start where this one ended. Two LSTM layers of 256 units return four tensors, h and c of
each:

```python
stack = assemble(Candidate(scan="rows", layer="lstm", hidden=[256, 256]).architecture, **shapes).stacks[0]
outputs, state = stack(first_rows)  # first_rows: (B, T, D)
more_outputs, state = stack(next_rows, state)
```

A network for clips does the same with frames: `outputs, state = network.read(frames, state)` answers for all frames so
far, or for each frame with readout `every`, if `network.causal`. `network.initial_state()` is the state before the
first frame: zeros, each part (1, ...). The candidate of the example is also in the preset `photographs`."""


def parallel(layer: type[Layer]) -> bool:
    """Whether the layer is linear in its state, so that all steps can be computed in one scan."""
    return layer.__name__.lower() in ("mingru", "minlstm", "qrnn", "lru")


def description(layer: type[Layer]) -> list[str]:
    """Paper, equations and options, from the docstrings."""
    words = (inspect.getdoc(layer) or "").split("\nArgs:")[0].strip()
    lines = [opening(importlib.import_module(layer.__module__)), "", *words.splitlines()]
    found = options(layer)
    return [*lines, "", "Options and their defaults:", "", *found] if found else lines


def options(part: Any) -> list[str]:
    """A line for each option of a layer or another part."""
    signature = inspect.signature(part.__init__ if isinstance(part, type) else part).parameters.values()
    return [option(part, entry) for entry in signature if entry.kind is entry.KEYWORD_ONLY]


def option(part: type, entry: inspect.Parameter) -> str:
    """Default, choices and meaning of an option, from the docstring of the class that takes it."""
    (documented,) = [inspect.getdoc(family) or "" for family in part.__mro__ if "__init__" in vars(family)][:1]
    found = re.search(rf"^    {entry.name}: (.*(?:\n     .*)*)", documented, re.MULTILINE)
    assert found, f"{part.__name__} does not say what {entry.name} means"
    choices = ", ".join(f"`{choice}`" for choice in get_args(entry.annotation) if isinstance(choice, str))
    meaning = " ".join(found[1].split()).rstrip(".,;")
    default = list(entry.default) if isinstance(entry.default, tuple) else entry.default
    return f"- `{entry.name}: {default}`{f' (of {choices})' if choices else ''}: {meaning}."


# ---- Diagrams ----

STYLE = (
    "<style>text{font:13px sans-serif;fill:#222;text-anchor:middle}.small{font-size:11px;fill:#555}"
    "rect{fill:#f4f6fb;stroke:#4a5a8a}.warm{fill:#fdeee0;stroke:#b06a2a}.plain{fill:#fff;stroke:#aaa}"
    "path{fill:none;stroke:#4a5a8a;stroke-width:1.5;marker-end:url(#head)}.back{stroke:#b06a2a}</style>"
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" style="fill:#4a5a8a;stroke:none;marker-end:none"/></marker></defs>'
)


def box(x: float, y: float, width: float, height: float, text: str, kind: str = "") -> str:
    middle = f"{x + width / 2:g}", f"{y + height / 2 + 4:g}"
    shape = f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>'
    return shape + f'<text x="{middle[0]}" y="{middle[1]}">{text}</text>'


def note(x: float, y: float, text: str) -> str:
    return f'<text class="small" x="{x:g}" y="{y:g}">{text}</text>'


def arrow(*points: tuple[float, float], kind: str = "") -> str:
    return f'<path class="{kind}" d="M{" L".join(f"{x:g} {y:g}" for x, y in points)}"/>'


def drawing(width: int, height: int, parts: list[str]) -> str:
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    )
    return (
        "\n".join(
            [opening, STYLE, '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>', *parts, "</svg>"]
        )
        + "\n"
    )


def unrolled(name: str) -> str:
    """Three steps of a sequence layer, and the states passed between them."""
    layer = LAYERS[name]
    states = getattr(layer, "states", ("h",))
    carried = [state for state in states if state != "h" or len(states) == 1 or name in ("lstm", "slstm")]
    link = LINKS[name]
    parts = []
    for step, when in enumerate(("t-1", "t", "t+1")):
        x = 90 + step * 190
        parts += [box(x, 190, 100, 30, f"x[{when}]", "plain"), arrow((x + 50, 190), (x + 50, 142))]
        parts += [box(x, 90, 100, 50, name, "warm" if parallel(layer) else "")]
        parts += [arrow((x + 50, 90), (x + 50, 52)), box(x, 20, 100, 30, f"h[{when}]", "plain")]
    for step in range(4):
        x = 190 * step
        parts += [
            arrow((max(x, 10), 115), (x + 88, 115)),
            note(x + 45, 105, ", ".join(carried)),
            note(x + 45, 132, link),
        ]
    if parallel(layer):
        parts.append(note(330, 240, "linear in the state: all steps are computed in parallel"))
    return drawing(660, 250, parts)


LINKS = {
    "elman": "matrix",
    "lstm": "gates",
    "gru": "gates",
    "indrnn": "by unit",
    "mingru": "by unit",
    "minlstm": "by unit",
    "sru": "by unit",
    "qrnn": "by unit",
    "lru": "rotation",
    "slstm": "gates",
}


def pixels(name: str) -> str:
    """A grid of states, each computed from its left and upper neighbour; colours mark anti-diagonals."""
    parts = []
    for i in range(4):
        for j in range(5):
            x, y = 60 + j * 90, 40 + i * 60
            parts.append(box(x, y, 50, 34, str(i + j), "warm" if (i + j) % 2 else ""))
            if j:
                parts.append(arrow((x - 40, y + 17), (x - 2, y + 17)))
            if i:
                parts.append(arrow((x + 25, y - 26), (x + 25, y - 2)))
    state = "h and c" if name == "mdlstm" else "h"
    parts.append(note(265, 24, f"{state} from the left and from above; states with equal numbers are independent"))
    parts.append(note(265, 290, "with directions: 4, also from the other three corners"))
    return drawing(530, 300, parts)


def sweeps(name: str) -> str:
    """Columns in both directions, then rows of the result; or both in parallel."""
    parts = []
    titles = ("columns, down and up", "rows, right and left")
    for panel, title in enumerate(titles):
        left = 40 + panel * 300
        parts.append(note(left + 90, 24, title))
        for i in range(4):
            for j in range(4):
                parts.append(box(left + j * 46, 40 + i * 46, 36, 36, "", "plain"))
        for line in range(4):
            at = line * 46
            if panel == 0:
                parts += [
                    arrow((left + at + 12, 44), (left + at + 12, 210)),
                    arrow((left + at + 26, 210), (left + at + 26, 44), kind="back"),
                ]
            else:
                parts += [
                    arrow((left + 4, 52 + at), (left + 172, 52 + at)),
                    arrow((left + 172, 66 + at), (left + 4, 66 + at), kind="back"),
                ]
    if name == "renet":
        parts.append(arrow((226, 126), (334, 126)))
        parts.append(note(280, 245, "the second pass reads the states of the first"))
    else:
        parts.append(note(280, 130, "and"))
        parts.append(note(280, 245, "concatenated, merged, added to the input, followed by an MLP per patch"))
    return drawing(570, 260, parts)


def hierarchy(name: str) -> str:
    """A recurrence along each row, then one down the rows."""
    parts = []
    for i in range(3):
        y = 40 + i * 60
        for j in range(4):
            parts.append(box(40 + j * 70, y, 40, 32, "", "plain"))
            if j:
                parts.append(arrow((40 + j * 70 - 30, y + 16), (38 + j * 70, y + 16)))
        parts += [arrow((290, y + 16), (348, y + 16)), box(350, y, 60, 32, f"row {i + 1}", "warm")]
        if i:
            parts.append(arrow((380, y - 28), (380, y - 2)))
    parts += [note(160, 24, "pixels of a row"), note(380, 24, "rows")]
    return drawing(450, 230, parts)


DIAGRAMS: dict[str, Callable[[str], str]] = {
    "rnn2d": pixels,
    "mdlstm": pixels,
    "renet": sweeps,
    "sequencer": sweeps,
    "hierarchical": hierarchy,
}


def files() -> dict[Path, str]:
    """Every file of the page, by its path below docs/."""
    diagrams = {Path("architectures", f"{name}.svg"): DIAGRAMS.get(name, unrolled)(name) for name in LAYERS}
    return {Path("architectures.md"): page(), **diagrams}


if __name__ == "__main__":
    for path, content in files().items():
        (FOLDER / path).parent.mkdir(exist_ok=True)
        (FOLDER / path).write_text(content, encoding="utf-8")
