"""Unpacks untrusted archives: no paths outside the folder, no links, no decompression bombs."""

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from recursight.errors import InputError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
MAX_RATIO = 200
_ALWAYS_ALLOWED_BYTES = 100_000_000
_MAX_MEMBERS = 20_000_000
_BLOCK_BYTES = 1 << 20

Member = tuple[str, IO[bytes] | None]
"""A name, and the content of a file or None for a folder."""


def is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a tar or zip archive into a folder.

    Raises:
        InputError: if it is damaged, contains a member that is not a plain file or points outside the folder, or is
            a decompression bomb.
    """
    left = max(_ALWAYS_ALLOWED_BYTES, MAX_RATIO * archive.stat().st_size)
    try:
        with _members(archive) as members:
            for number, (name, content) in enumerate(members):
                target = folder / _inside(archive, name)
                if content is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                left = _copy(content, target, left)
                if left < 0 or number > _MAX_MEMBERS:
                    raise InputError(
                        f"{archive} unpacks to more than {MAX_RATIO} times its size: a decompression bomb?"
                    )
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{archive} could not be unpacked: {error}.") from None
    except Exception as error:  # Python's parsers raise almost any exception on malformed bytes
        raise InputError(f"{archive} is not a readable archive: {str(error).rstrip('.')}.") from None


def _copy(content: IO[bytes], target: Path, left: int) -> int:
    """Copies one member and returns how many bytes are still allowed; it stops when this falls below zero."""
    with target.open("wb") as stream:
        while left >= 0 and (block := content.read(_BLOCK_BYTES)):
            left -= len(block)
            stream.write(block)
    return left


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise InputError(f"{archive}: {name!r} points outside the folder.")
    return path


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[Member]]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield _zip_members(archive, opened)
    else:
        with tarfile.open(archive, "r|*") as streamed:
            yield _tar_members(archive, streamed)


def _tar_members(archive: Path, opened: tarfile.TarFile) -> Iterator[Member]:
    for member in opened:
        if not (member.isreg() or member.isdir()):
            raise InputError(f"{archive}: {member.name!r} is a link or a device; only files and folders are unpacked.")
        yield member.name, opened.extractfile(member) if member.isreg() else None
        opened.members = []  # type: ignore[attr-defined]  # otherwise all headers would stay in memory


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[Member]:
    for member in opened.infolist():
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(f"{archive}: {member.filename!r} is a link; only files and folders are unpacked.")
        if member.is_dir():
            yield member.filename, None
        else:
            with opened.open(member) as content:
                yield member.filename, content
