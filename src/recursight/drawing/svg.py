"""SVG elements and files, images within them, and short texts for both.

The same figures give the same bytes.
"""

import base64
import io
from html import escape

import numpy as np


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
