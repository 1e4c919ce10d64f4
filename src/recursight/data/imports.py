"""Import: from any source to data/, validated before anything is replaced, and pinned by DVC."""

import shutil
from pathlib import Path
from typing import Any

from recursight.data.examples import Progress, examples
from recursight.data.findings import Findings, Strata, each_value
from recursight.data.packing import PackWriter
from recursight.data.readers import idx, open_source, parquet, unwrapped
from recursight.data.versions import Workshop, replace_data, require_restorable
from recursight.layout import Layout

COPIED = {"idx": idx.files, "parquet": parquet.files}
"""Formats whose files are copied as they are; those of thousands of small files are packed."""


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
        validation: share that `prepare` will carve for validation; a source too small for it is refused now.
        test: likewise for the test split.
        strata: as `prepare` will share them out.
        skip_bad: leaves out images that cannot be used, instead of refusing the source.
        force: replaces data/ even if its present content could not be restored.
        progress: called with how many images are done, and of how many.

    Returns:
        What was found, see `Findings.summary`.

    Raises:
        InputError: with everything that is wrong with the source, or why data/ must not be replaced. Nothing is
            changed then.
    """
    source = unwrapped(source)
    findings = Findings(open_source(source))
    with Workshop(layout) as workshop:
        if not force:
            require_restorable(layout)
        workshop.new.mkdir()
        packed = _is_packed(findings.source.format, source, skip_bad)
        if packed:
            _pack(findings, workshop.new, progress)
        else:
            for _ in examples(findings, progress=progress):
                pass
        findings.refuse(skip_bad)
        findings.splits(validation, test, 0, strata)
        if not packed:
            _copy(COPIED[findings.source.format](source), source, workshop.new)
        replace_data(layout, workshop.new, workshop.previous)
    return findings.summary()


def _is_packed(format: str, source: Path, skip_bad: bool) -> bool:
    """Bad images can only be left out by packing anew, and large row groups would cost `prepare` much memory."""
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
