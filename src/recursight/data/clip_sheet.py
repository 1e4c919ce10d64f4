"""The contact sheet of clips: a row of evenly spaced frames for each, its label beside it.

Of streams, the label of each frame stands below it, so that events at wrong times are seen.
"""

import bisect
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recursight import files
from recursight.data import clip_examples
from recursight.data.clip_examples import Planned
from recursight.data.clips import Conversion
from recursight.data.examples import Progress
from recursight.data.findings import Findings
from recursight.data.sheet import BACKGROUND, GAP, INK, as_thumbnail, short

FRAMES = 6
ROWS = 100
WIDTH, HEIGHT = 96, 72  # of a frame at most
LABEL_WIDTH, CAPTION_HEIGHT = 190, 14
NO_EVENT = "background"


@dataclass
class Strip:
    """One clip on the sheet.

    Attributes:
        clip: its record and length.
        sha256: of its pixels; None if it could not be decoded.
        frames: number of each shown frame, and its picture.
    """

    clip: Planned
    sha256: bytes | None = None
    frames: dict[int, Image.Image] = field(default_factory=dict)


def survey(findings: Findings, per_class: int = 2, progress: Progress | None = None) -> list[Strip]:
    """Decodes a whole source, and keeps the frames of a few clips of each class: those with the smallest hashes."""
    planned = clip_examples.plan(findings, Conversion())
    strips = {id(each.record): Strip(each) for each in planned if isinstance(each, Planned)}

    def take(clip: Planned, before: int, frames: np.ndarray) -> None:
        shown = shown_frames(clip.frames)
        for number in shown[bisect.bisect_left(shown, before) : bisect.bisect_left(shown, before + len(frames))]:
            strips[id(clip.record)].frames[number] = as_thumbnail(frames[number - before], WIDTH, HEIGHT)

    kept: dict[str, list[Strip]] = {}
    for example in clip_examples.decode(findings, planned, Conversion(), take, progress):
        strip = strips[id(example.record)]
        strip.sha256 = example.sha256
        of_class = kept.setdefault(example.record.label, [])
        of_class.append(strip)
        of_class.sort(key=lambda each: each.sha256 or b"")
        for extra in of_class[per_class if example.record.label else ROWS :]:
            extra.frames.clear()
        del of_class[per_class if example.record.label else ROWS :]
    rows = [strip for label in ("", *findings.source.classes) for strip in kept.get(label, [])]
    return rows[:ROWS]


def shown_frames(count: int) -> list[int]:
    """Numbers of evenly spaced frames from the first to the last one; each once."""
    return sorted({round(float(number)) for number in np.linspace(0, count - 1, FRAMES)})


def draw(path: Path, strips: list[Strip]) -> None:
    """Writes the sheet as PNG."""
    font, small = ImageFont.load_default(13), ImageFont.load_default(10)
    caption = CAPTION_HEIGHT if any(strip.clip.record.events is not None for strip in strips) else 0
    pitch = HEIGHT + caption + GAP
    canvas = Image.new("RGB", (LABEL_WIDTH + FRAMES * (WIDTH + GAP) + GAP, len(strips) * pitch + GAP), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for row, strip in enumerate(strips):
        record, top = strip.clip.record, GAP + row * pitch
        title = [record.label or f"{len(strip.clip.intervals)} events", record.id.rsplit("/", 1)[-1]]
        seconds = f"{strip.clip.frames / strip.clip.rate:.1f} s"
        text = "\n".join(short(line, 26) for line in (*title, seconds))
        pen.text((8, top + HEIGHT / 2), text, INK, font, anchor="lm")
        for column, (number, image) in enumerate(sorted(strip.frames.items())):
            left = LABEL_WIDTH + column * (WIDTH + GAP)
            canvas.paste(image, (left + (WIDTH - image.width) // 2, top + (HEIGHT - image.height) // 2))
            if caption:
                pen.text((left, top + HEIGHT), short(label_at(strip.clip, number), 16), INK, small)
    with files.replacing(path) as temporary:
        canvas.save(temporary, "PNG")


def label_at(clip: Planned, frame: int) -> str:
    """The event that a frame belongs to."""
    return next((label for start, end, label in clip.intervals if start <= frame < end), NO_EVENT)
