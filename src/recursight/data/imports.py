"""Import: a source in any format becomes data/, validated before anything is replaced, and pinned by DVC."""

import csv
import shutil
from pathlib import Path
from typing import Any

from recursight.data.clip_examples import decode, plan
from recursight.data.clips import Conversion
from recursight.data.examples import Progress, examples
from recursight.data.findings import Findings, Strata, each_value
from recursight.data.packing import PackWriter
from recursight.data.readers import events, idx, manifest, open_source, parquet, unwrapped
from recursight.data.records import Record
from recursight.data.versions import Workshop, require_restorable
from recursight.layout import Layout

COPIED = {"idx": idx.files, "parquet": parquet.files}
"""Formats whose files are copied unchanged; other stills are thousands of small files, which are packed."""


def import_data(
    layout: Layout,
    source: Path,
    *,
    validation: float,
    test: float,
    strata: Strata = each_value,
    skip_bad: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Replaces data/ by a source and pins it with `dvc add`.

    Args:
        layout: of the project.
        source: a folder in any known format; it is only read.
        validation: share of the training images that `prepare` will use for validation; a source with too few images
            is refused now.
        test: share of all images that `prepare` will use for testing.
        strata: the strata of `prepare`'s split.
        skip_bad: leave out images that cannot be used, instead of refusing the source.
        force: replace data/ even if its current content could not be restored.
        progress: called with the number of finished images, or frames of clips, and their total.

    Returns:
        A summary of the source, see `Findings.summary`.

    Raises:
        InputError: with everything that is wrong with the source, or why data/ must not be replaced. Then nothing is
            changed.
    """
    findings = Findings(open_source(source))
    source = unwrapped(source)
    with Workshop(layout) as workshop:
        if not force:
            require_restorable(layout)
        workshop.new.mkdir()
        clips: list[Record] = []
        packed = not findings.source.clips and _is_packed(findings.source.format, source, skip_bad)
        if findings.source.clips:
            planned = plan(findings, Conversion())
            clips = [example.record for example in decode(findings, planned, Conversion(), progress=progress)]
        elif packed:
            _pack(findings, workshop.new, progress)
        else:
            for _ in examples(findings, progress=progress):
                pass
        findings.refuse(skip_bad)
        findings.splits(validation, test, 0, strata)
        if findings.source.clips:
            _copy_clips(findings.source.format, findings.source.unit, clips, source, workshop.new)
        elif not packed:
            _copy(COPIED[findings.source.format](source), source, workshop.new)
        workshop.swap()
    return findings.summary()


def _is_packed(format: str, source: Path, skip_bad: bool) -> bool:
    """Whether images are packed: those of folders always, those of parquet to drop bad images or shrink row groups."""
    if format == "parquet":
        return skip_bad or parquet.has_large_groups(source)
    return format not in COPIED


def _pack(findings: Findings, new: Path, progress: Progress | None) -> None:
    with PackWriter(new, findings.source.classes) as writer:
        for chunk in examples(findings, progress=progress, with_bytes=True):
            for example in chunk:
                writer.append(example.record)


def _copy(files: list[Path], source: Path, new: Path) -> None:
    for path in files:
        target = new / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)  # not the mode: a source may be read-only


def _copy_clips(format: str, unit: str | None, clips: list[Record], source: Path, new: Path) -> None:
    """Copies files and folders of frames as they are, and lists the valid ones where a list described them."""
    root, names = source.resolve(), []
    for record in clips:
        assert isinstance(record.image, Path)
        inner = record.image.relative_to(root if record.image.is_relative_to(root) else source)
        frames = sorted(path for path in record.image.iterdir() if path.is_file()) if record.image.is_dir() else None
        _copy([record.image] if frames is None else frames, record.image.parents[len(inner.parts) - 1], new)
        names.append(inner.as_posix())
    if format == "folder":
        return
    with (new / (manifest.NAME if unit is None else events.NAME)).open("w", encoding="utf-8", newline="") as stream:
        times = [] if unit is None else events.UNITS[unit]
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["path", *times, "label", "split", "group", "rate"])
        for name, record in zip(names, clips, strict=True):
            rest = (record.split or "", record.group or "", "" if record.rate is None else record.rate)
            if record.events is None:
                writer.writerow([name, record.label, *rest])
            for start, end, label, _ in record.events or ():
                writer.writerow([name, start, end, label, *rest])
            if record.events == ():
                writer.writerow([name, "", "", "", *rest])
