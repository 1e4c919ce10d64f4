"""What tasks draw with: inline SVG, and PNG by matplotlib's objects, without pyplot: no window, no global state.

The same figures give the same bytes. Colours keep their order in grey and for colour-blind eyes.
"""

import base64
import io
import warnings
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
INK, FAINT, BLUE, ORANGE, GREY = "#1b1f24", "#6e7781", "#2a6fbb", "#d1662b", "#d8dee4"
PLAIN = {"parse_math": False}  # a class may be called `$x$`


def svg(size: tuple[int, int], label: str, body: str) -> str:
    """An SVG element, as it stands in a page.

    Args:
        size: width and height.
        label: what it shows, for those who do not see it.
        body: its elements.
    """
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(label)}">{body}</svg>'


def svg_file(element: str, style: str) -> str:
    """An SVG element as a file that stands alone."""
    return element.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><style>{style}</style>", 1
    )


def figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")


def save(figure: "Figure", path: Path) -> None:
    """Writes a PNG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # names in scripts that it lacks
        figure.savefig(path, format="png", metadata={"Software": None})


def drawable(image: np.ndarray) -> np.ndarray:
    """H W for one or two channels, else H W 3."""
    return image[..., 0] if image.shape[-1] < 3 else image[..., :3]


def data_url(image: np.ndarray) -> str:
    """An image, uint8 H W C, as a PNG within a page."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(drawable(image))).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def short(name: str, length: int) -> str:
    """A name cut to a length."""
    return name if len(name) <= length else name[: length - 1] + "…"


def certainty(confidence: float) -> str:
    """A probability for people, who take `100 %` for certain."""
    if confidence > 0.999:
        return ">99.9 %"
    return f"{100 * confidence:.0f} %" if confidence < 0.99 else f"{100 * confidence:.1f} %"
