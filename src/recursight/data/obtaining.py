"""Turns the source that a user names into a folder: a data set, an archive, a parquet file, or a folder."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from recursight import files
from recursight.data import archives, published
from recursight.errors import InputError, nearest
from recursight.layout import Layout

Reporting = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""Opens a progress report with a title and a unit."""


@contextmanager
def opened(
    source: str, layout: Layout, given: Path | None, reporting: Reporting, inner: str | None = None
) -> Iterator[Path]:
    """Yields a folder that contains the source; unpacked files are removed afterwards.

    Args:
        source: a name of `published.NAMES`, or a path.
        layout: of the project; downloads and unpacked files are stored in its working state.
        given: for a name, a folder with the published files.
        reporting: opens the progress report of a download.
        inner: a folder inside the source, which is the one to yield.

    Raises:
        InputError: if the source or the folder inside it does not exist, or cannot be downloaded or unpacked.
    """
    path = Path(source).expanduser()
    if source not in published.NAMES:
        if given is not None:
            raise InputError(f"--from needs the name of a data set ({', '.join(published.NAMES)}), not a path.")
        if path.is_dir():
            yield _inside(path, inner, source)
            return
        if not path.exists():
            raise InputError(
                f"{source} is neither a path nor the name of a data set; {nearest(source, published.NAMES)}"
            )
    layout.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=files.staging_prefix("source"), dir=layout.state) as temporary:
        folder = Path(temporary) / path.name
        folder.mkdir()
        if source in published.NAMES:
            with reporting(f"download {source}", "MB") as report:
                published.obtain(source, folder, layout.state / "downloads", given, report)
        elif archives.is_archive(path):
            archives.unpack(path, folder)
        elif path.suffix == ".parquet":
            shutil.copyfile(path, folder / path.name)
        else:
            raise InputError(
                f"{source} is a single file; pass its folder, or an archive: {', '.join(archives.SUFFIXES)}."
            )
        yield _inside(folder, inner, source)


def _inside(folder: Path, inner: str | None, source: str) -> Path:
    if inner is None:
        return folder
    found = folder / inner
    if not found.resolve().is_relative_to(folder.resolve()) or not found.is_dir():
        names = sorted(path.relative_to(folder).as_posix() for path in _folders(folder))
        raise InputError(f"{source} has no folder {inner}; {nearest(inner, names) if names else 'it has none.'}")
    return found


def _folders(folder: Path) -> Iterator[Path]:
    """Folders in a folder, and in those."""
    for pattern in ("*/", "*/*/"):
        yield from (path for path in folder.glob(pattern) if path.is_dir())
