"""The contact sheet: a few images of each class."""

import heapq
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recursight import files
from recursight.data.examples import Progress, examples
from recursight.data.findings import Example, Findings
from recursight.data.images import decode

CELL = 64
GAP = 4
LABEL_WIDTH = 150
ROWS = 50
BACKGROUND, INK = (255, 255, 255), (30, 30, 30)


class Sampler:
    """Keeps the images with the smallest hashes of each class: a random but reproducible sample."""

    def __init__(self, per_class: int) -> None:
        self.per_class = per_class
        self.kept: dict[str, list[tuple[int, str, Image.Image]]] = {}

    def offer(self, example: Example) -> None:
        heap = self.kept.setdefault(example.record.label, [])
        entry = (-int.from_bytes(example.sha256[:8]), example.record.id)
        if len(heap) < self.per_class:
            heapq.heappush(heap, (*entry, thumbnail(example)))
        elif entry > heap[0][:2]:
            heapq.heapreplace(heap, (*entry, thumbnail(example)))

    def of(self, label: str) -> list[Image.Image]:
        return [image for _, _, image in sorted(self.kept.get(label, []), key=lambda entry: entry[:2], reverse=True)]


def survey(findings: Findings, per_class: int = 10, progress: Progress | None = None) -> Sampler:
    """Reads a whole source and keeps a few thumbnails of each class."""
    sampler = Sampler(per_class)
    for chunk in examples(findings, progress=progress):
        for example in chunk:
            sampler.offer(example)
    return sampler


def thumbnail(example: Example) -> Image.Image:
    """Fits an image into a cell; a small one is enlarged by an integer factor, so that its pixels stay square."""
    return as_thumbnail(decode(example.record.image, channels="rgb"), CELL, CELL)


def as_thumbnail(pixels: np.ndarray, width: int, height: int) -> Image.Image:
    """Fits pixels (H W C) into a size, enlarged by an integer factor or reduced."""
    opened = Image.fromarray(np.ascontiguousarray(decode(pixels, channels="rgb")))
    factor = min(width // opened.width, height // opened.height)
    if factor >= 1:
        return opened.resize((opened.width * factor, opened.height * factor), Image.Resampling.NEAREST)
    opened.thumbnail((width, height))
    return opened


def draw(path: Path, findings: Findings, sampler: Sampler) -> None:
    """Writes the sheet as PNG, with one row per class, its name and its number of images; at most `ROWS` rows."""
    classes = findings.source.classes
    shown = classes[:ROWS]
    font = ImageFont.load_default(13)
    pitch = CELL + GAP
    more = 24 if len(classes) > len(shown) else 0
    canvas = Image.new(
        "RGB", (LABEL_WIDTH + sampler.per_class * pitch + GAP, len(shown) * pitch + GAP + more), BACKGROUND
    )
    pen = ImageDraw.Draw(canvas)
    counts = dict.fromkeys(classes, 0)
    for (_, label), count in findings.counts.items():
        counts[label] += count
    for row, name in enumerate(shown):
        top = GAP + row * pitch
        pen.text((8, top + CELL / 2), f"{short(name)}\n{counts[name]:,}", INK, font, anchor="lm")
        for column, image in enumerate(sampler.of(name)):
            left = LABEL_WIDTH + column * pitch
            canvas.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
    if more:
        pen.text((8, canvas.height - 20), f"... and {len(classes) - len(shown):,} more classes", INK, font)
    with files.replacing(path) as temporary:
        canvas.save(temporary, "PNG")


def short(name: str, most: int = 20) -> str:
    """A name that is cut off where it is too long."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
