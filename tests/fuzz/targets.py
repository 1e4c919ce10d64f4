"""What reads untrusted input, each with valid samples. A target reads its input or refuses it with a reason."""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from recursight.data.archives import unpack
from recursight.data.images import FORMATS, BadImage, decode
from recursight.data.prepare import prepare
from recursight.data.readers import idx
from recursight.errors import InputError
from recursight.params import load
from tests.workspace import ROOT


@dataclass(frozen=True)
class Target:
    """Something that reads untrusted input.

    Attributes:
        samples: valid input.
        read: reads one input, in an empty folder.
        words: of the format.
    """

    samples: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]
    words: tuple[bytes, ...] = ()


def refuses_or_reads(target: Target, content: bytes, folder: Path) -> None:
    """Runs a target once.

    Raises:
        AssertionError: if it refuses without a reason, or with a line of thousands of characters.
        Exception: whatever else the target raises: it is a fault of it.
    """
    try:
        target.read(content, folder)
    except (InputError, BadImage) as refusal:
        message = str(refusal)
        assert message.strip(), "refused without a reason"
        assert max(map(len, message.splitlines())) < 5_000, message[:500]


def _images() -> list[bytes]:
    generator = np.random.default_rng(0)
    samples = []
    for mode, shape in (("L", (9, 7)), ("RGB", (9, 7, 3)), ("RGBA", (9, 7, 4))):
        image = Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8), mode)
        for name in FORMATS:
            with io.BytesIO() as file:
                try:
                    image.save(file, name)
                except (OSError, KeyError):  # JPEG has no transparency, and not every Pillow writes every format
                    continue
                samples.append(file.getvalue())
    with io.BytesIO() as file:
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "JPEG", progressive=True)
        samples.append(file.getvalue())
    return samples


def _png(number: int = 0) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 7), dtype=np.uint8)).save(file, "PNG")
        return file.getvalue()


def _archives() -> list[bytes]:
    samples = []
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
                for name in ("cat/1.png", "dog/2.png", "list.csv"):
                    member = tarfile.TarInfo(name)
                    member.size = len(_png())
                    archive.addfile(member, io.BytesIO(_png()))
            samples.append(b"t" + file.getvalue())
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with io.BytesIO() as file:
            with zipfile.ZipFile(file, "w", method) as archive:
                for name in ("cat/1.png", "dog/2.png", "list.csv"):
                    archive.writestr(name, _png())
            samples.append(b"z" + file.getvalue())
    return samples


def _unpack(content: bytes, folder: Path) -> None:
    """The first byte is no part of the archive: it says what the file is called."""
    archive = folder / ("archive.zip" if content[:1] == b"z" else "archive.tar")
    archive.write_bytes(content[1:])
    (folder / "inside").mkdir()
    try:
        unpack(archive, folder / "inside")
    finally:
        assert sorted(path.name for path in folder.iterdir()) == sorted([archive.name, "inside"]), "outside the folder"


def _manifests() -> list[bytes]:
    return [
        b"path,label\n1.png,cat\n2.png,dog\n3.png,cat\n4.png,dog\n5.png,cat\n6.png,dog\n",
        b'path,label,split\n1.png,"a,b",train\n2.png,c,train\n3.png,"a,b",validation\n4.png,c,validation\n5.png,c,test\n6.png,"a,b",test\n',
        b"\xef\xbb\xbfpath,label\r\n" + b"".join(b"%d.png,%s\r\n" % (n, (b"cat", b"dog")[n % 2]) for n in range(1, 7)),
    ]


def _manifest(content: bytes, folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    for number in range(1, 7):
        (source / f"{number}.png").write_bytes(_png(number))
    (source / "manifest.csv").write_bytes(content)
    prepare(source, folder / "store", validation=0.3, test=0.3)


def _idx_files() -> list[bytes]:
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 4), dtype=np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 3
    pair = []
    for values in (images, labels):
        header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
        pair.append(header + values.tobytes())
    return [len(pair[0]).to_bytes(4, "big") + pair[0] + pair[1]]


def _idx(content: bytes, folder: Path) -> None:
    """Length of the images' file, that file, and the labels' file."""
    source = folder / "source"
    source.mkdir()
    length = int.from_bytes(content[:4], "big")
    (source / "train-images-idx3-ubyte").write_bytes(content[4 : 4 + length])
    (source / "train-labels-idx1-ubyte").write_bytes(content[4 + length :])
    assert idx.detect(source)
    prepare(source, folder / "store", validation=0.3, test=0.3)


def _parquets() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [{"bytes": _png(number), "path": None} for number in range(8)], "label": [0, 1] * 4})
    samples = []
    for compression in ("none", "snappy", "zstd"):
        with io.BytesIO() as file:
            pq.write_table(table, file, compression=compression)
            samples.append(file.getvalue())
    return samples


def _parquet(content: bytes, folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    (source / "train.parquet").write_bytes(content)
    prepare(source, folder / "store", validation=0.3, test=0.3)


def _params(content: bytes, folder: Path) -> None:
    (folder / "params.yaml").write_bytes(content)
    load(folder / "params.yaml")


YAML = (
    b"&a",
    b"*a",
    b"<<: *a",
    b".inf",
    b"1e999",
    b"010",
    b"1:30",
    b"null",
    b"!!python/object:os.system",
    b"\t",
    b"- ",
)
YAML += (b"{", b"}", b"[", b"]", b"? ", b"---\n", b"%YAML 1.1\n", b"\xff\xfe", b"\x00", b"\x1b[31m", b"'", b'"', b"|\n")

TARGETS = {
    "archives": Target(_archives, _unpack, (b"../", b"/etc/", b"C:", b"\x00", b"\\")),
    "idx": Target(_idx_files, _idx),
    "images": Target(
        _images, lambda content, folder: decode(content, (8, 8)), (b"IHDR", b"IDAT", b"\xff\xda", b"%!PS")
    ),
    "manifests": Target(_manifests, _manifest, (b"../", b'"', b"\n", b",", b"\x00", b"\x1b[2J", b"\xff", b"path")),
    "params": Target(lambda: [(ROOT / "params.yaml").read_bytes()], _params, YAML),
    "parquet": Target(_parquets, _parquet),
}


def own_folder(folder: Path) -> Path:
    """An empty folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def corpus(name: str) -> list[Path]:
    """The former failures of a target, oldest first."""
    folder = Path(__file__).parent / "corpus" / name
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def words_of_json() -> tuple[bytes, ...]:
    return tuple(json.dumps(value).encode() for value in (None, True, -1, 1e308, 256, "a" * 50, [], {}, [[]], 10**30))
