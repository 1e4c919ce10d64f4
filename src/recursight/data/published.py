"""Data sets by name: published ones, downloaded or taken from a folder and verified by checksum, and ones made here.

Published ones are converted to IDX files and classes.txt. Nothing is unpickled: CIFAR-10 is read in its binary version.
"""

import hashlib
import http.client
import tarfile
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from recursight import files
from recursight.data import moving_digits
from recursight.data.readers import idx
from recursight.errors import InputError

TIMEOUT_SECONDS = 30
_BLOCK_BYTES = 1 << 20
_MAX_FILE_BYTES = 1_000_000_000

Transferred = Callable[[int, int], None]
"""Called with the megabytes of a file received so far, and with their total."""


@dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        name: of the file, at each address and in a folder.
        md5: of the file, as published.
        content_md5: of the uncompressed content, for files that were unpacked or recompressed; None if not known.
    """

    name: str
    md5: str
    content_md5: str | None = None


@dataclass(frozen=True)
class Published:
    """A published data set.

    Attributes:
        addresses: URLs of folders with all the files; tried in order.
        files: all of them.
        classes: names, if the files do not contain them.
    """

    addresses: tuple[str, ...]
    files: tuple[File, ...]
    classes: tuple[str, ...] = ()


PUBLISHED: dict[str, Published] = {
    "mnist": Published(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        (
            File("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
            File("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
            File("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
            File("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
        ),
    ),
    "fashion-mnist": Published(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        (
            File("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
            File("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
            File("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
            File("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
        ),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": Published(
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "https://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        (
            File("train-images-idx3-ubyte.gz", "bdb82020997e1d708af4cf47b453dcf7"),
            File("train-labels-idx1-ubyte.gz", "e144d726b3acfaa3e44228e80efcd344"),
            File("t10k-images-idx3-ubyte.gz", "5c965bf0a639b31b8f53240b1b52f4d7"),
            File("t10k-labels-idx1-ubyte.gz", "7320c461ea6c1c855c0b718fb2a4b134"),
        ),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "cifar10": Published(
        ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
        (File("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
}


def obtain(
    name: str, folder: Path, downloads: Path, given: Path | None = None, transferred: Transferred | None = None
) -> None:
    """Puts a named data set into an empty folder: IDX files, or clips of those that are made here.

    Args:
        name: one of `NAMES`.
        folder: target of the files; exists and is empty.
        downloads: cache of downloaded files.
        given: a folder with the published files; then nothing is downloaded.
        transferred: receives the progress of a download.

    Raises:
        InputError: if a file is not available, or is not the published one.
    """
    if name in MADE_HERE:
        MADE_HERE[name](folder)
        return
    published = PUBLISHED[name]
    for file in published.files:
        if given is None:
            path = downloads / name / file.name
            if not _is_published(path, file):
                download(published.addresses, file, path, transferred)
        else:
            path = _find(given, file, name)
        if file.name.endswith(".tar.gz"):
            unpack_cifar(path, folder)
        else:
            (folder / path.name).write_bytes(path.read_bytes())
    if published.classes:
        files.write_text(folder / idx.CLASSES, "\n".join(published.classes) + "\n")


def make_digits(folder: Path) -> None:
    """The 1,797 digits that ship with scikit-learn; the same bytes every time."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    idx.write(folder / "images-idx3-ubyte.gz", np.rint(digits.images * (255 / 16)).astype(np.uint8))
    idx.write(folder / "labels-idx1-ubyte.gz", digits.target.astype(np.uint8))


MADE_HERE: dict[str, Callable[[Path], None]] = {
    "digits": make_digits,
    "moving-digits": moving_digits.make_clips,
    "moving-digits-events": moving_digits.make_streams,
}
"""Data sets that are made from scikit-learn's digits, without a network."""
NAMES = (*MADE_HERE, *PUBLISHED)


def download(addresses: tuple[str, ...], file: File, path: Path, transferred: Transferred | None = None) -> None:
    """Downloads a file from the first address that has it; it appears only when it is complete and verified.

    Raises:
        InputError: with the error of each address.
    """
    failures = []
    for address in addresses:
        try:
            with files.replacing(path) as temporary:
                _transfer(address + file.name, temporary, transferred)
                found = _md5(temporary.open("rb"))
                if found != file.md5:
                    raise InputError(f"its md5 is {found}, not {file.md5}")
            return
        except (OSError, http.client.HTTPException, InputError) as error:
            failures.append(f"{address}{file.name}: {error}")
    raise InputError(
        f"{file.name} could not be downloaded; nothing was changed. Download the files in another way and pass "
        "their folder with --from FOLDER.\n" + "\n".join(failures)
    )


def unpack_cifar(archive: Path, folder: Path) -> None:
    """CIFAR-10's binary version as IDX: records of a label and 32×32 red, green and blue bytes become N H W C.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html, section "Binary version".
    """
    parts = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "t10k": ["test_batch.bin"]}
    try:
        with tarfile.open(archive) as opened:
            for split, names in parts.items():
                records = np.concatenate([_cifar_records(opened, name) for name in names])
                images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
                idx.write(folder / f"{split}-images-idx4-ubyte", np.ascontiguousarray(images))
                idx.write(folder / f"{split}-labels-idx1-ubyte", np.ascontiguousarray(records[:, 0]))
    except (tarfile.TarError, EOFError, KeyError, ValueError, zlib.error) as error:
        raise InputError(f"{archive} is not CIFAR-10's binary version: {error}.") from None


def _cifar_records(archive: tarfile.TarFile, name: str) -> np.ndarray:
    member = archive.extractfile(f"cifar-10-batches-bin/{name}")
    if member is None:
        raise ValueError(f"{name} is not a file")
    return np.frombuffer(member.read(_MAX_FILE_BYTES), np.uint8).reshape(-1, 1 + 3 * 32 * 32)


def _transfer(address: str, path: Path, transferred: Transferred | None) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": "recursight"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as target:
        total, done = int(response.headers.get("Content-Length") or 0), 0
        while block := response.read(_BLOCK_BYTES):
            done += len(block)
            if done > _MAX_FILE_BYTES:
                raise InputError(f"it is larger than {_MAX_FILE_BYTES:,} bytes")
            target.write(block)
            if transferred:
                transferred(done // 1_000_000, max(done, total) // 1_000_000 + 1)


def _find(folder: Path, file: File, name: str) -> Path:
    """The file in a folder, as published or unpacked; a recompressed one is accepted by its content."""
    for path in (folder / file.name, folder / file.name.removesuffix(".gz")):
        if path.is_file():
            if _is_published(path, file):
                return path
            raise InputError(f"{path} is not the published file of {name}: its checksum differs.")
    wanted = ", ".join(each.name for each in PUBLISHED[name].files)
    raise InputError(f"{folder} has no {file.name}; {name} needs {wanted}.")


def _is_published(path: Path, file: File) -> bool:
    if not path.is_file():
        return False
    if _md5(path.open("rb")) == file.md5:
        return True
    if file.content_md5 is None:
        return False
    try:
        return _md5(idx.open_stream(path)) == file.content_md5
    except (idx.Damage, OSError, EOFError, zlib.error):
        return False


def _md5(stream: BinaryIO) -> str:
    digest = hashlib.md5(usedforsecurity=False)  # the published checksum
    with stream:
        size = 0
        while block := stream.read(_BLOCK_BYTES):
            size += len(block)
            if size > _MAX_FILE_BYTES:
                return "of a file that is too large"
            digest.update(block)
    return digest.hexdigest()
