"""Named data sets: from a server on this machine, and from a folder."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from recursight.data import published
from recursight.data.published import NAMES, PUBLISHED, File, Published, download, obtain, unpack_cifar
from recursight.data.readers import open_source
from recursight.data.records import Record
from recursight.errors import InputError

from .pictures import pictures, splits_of, write_idx

FASHION = Path(__file__).parents[3] / "shared" / "data" / "fashion-mnist"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_download(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "a.gz").write_bytes(b"x" * 3_000_000)
    told: list[tuple[int, int]] = []
    file = File("a.gz", md5(b"x" * 3_000_000))
    broken = "http://127.0.0.1:9/"  # the first address does not answer, the second has it
    download((broken, address), file, tmp_path / "to" / "a.gz", lambda done, total: told.append((done, total)))
    assert (tmp_path / "to" / "a.gz").read_bytes() == b"x" * 3_000_000
    assert told[-1] == (3, 4)


def test_wrong_checksum_and_missing_file_and_no_server(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "a.gz").write_bytes(b"changed")
    with pytest.raises(InputError) as error:
        download(("http://127.0.0.1:9/", address), File("a.gz", md5(b"original")), tmp_path / "to" / "a.gz")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("a.gz could not be downloaded; nothing was changed.")
    assert "--from FOLDER" in lines[0]
    assert "Connection refused" in lines[1]
    assert f"its md5 is {md5(b'changed')}, not {md5(b'original')}" in lines[2]
    assert list((tmp_path / "to").iterdir()) == []
    with pytest.raises(InputError, match="HTTP Error 404"):
        download((address,), File("b.gz", md5(b"")), tmp_path / "to" / "b.gz")


def test_obtain_downloads_once(served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = served
    write_idx(folder, splits_of(pictures(), True))
    (folder / "classes.txt").unlink()
    files = tuple(File(path.name, md5(path.read_bytes())) for path in sorted(folder.iterdir()))
    monkeypatch.setitem(PUBLISHED, "small", Published((address,), files, ("two", "ten")))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        obtain("small", tmp_path / name, tmp_path / "downloads")
        assert open_source(tmp_path / name).classes == ("two", "ten")
        for path in folder.iterdir():
            path.unlink()  # the second time they come from what was kept


@pytest.mark.skipif(not FASHION.is_dir(), reason="no copy of Fashion-MNIST")
def test_from_a_folder(tmp_path: Path) -> None:
    obtain("fashion-mnist", tmp_path, tmp_path / "downloads", given=FASHION)
    source = open_source(tmp_path)
    assert (source.count, source.classes[9]) == (70_000, "Ankle boot")
    with pytest.raises(InputError, match="is not the published file of kmnist: its checksum differs"):
        obtain("kmnist", tmp_path, tmp_path / "downloads", given=FASHION)


def test_files_that_were_compressed_again_or_unpacked_pass(mnist: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for path in mnist.iterdir():
        content = gzip.decompress(path.read_bytes())
        if "labels" in path.name:
            (given / path.name).write_bytes(gzip.compress(content, 1))
        else:
            (given / path.stem).write_bytes(content)
    (tmp_path / "data").mkdir()
    obtain("mnist", tmp_path / "data", tmp_path / "downloads", given=given)
    assert open_source(tmp_path / "data").count == 70_000


def test_folder_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no train-images-idx3-ubyte.gz; mnist needs train-images.*t10k-labels"):
        obtain("mnist", tmp_path, tmp_path / "downloads", given=tmp_path)


def test_digits_are_the_same_every_time(tmp_path: Path, digits: Path) -> None:
    obtain("digits", tmp_path, tmp_path / "downloads")
    for path in digits.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def cifar(path: Path, parts: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in parts.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_cifar_planes_become_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 32, 32, 3), np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 10
    rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(60, -1)], axis=1)
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    archive = tmp_path / "cifar-10-binary.tar.gz"
    cifar(archive, {name: rows[10 * number : 10 * number + 10].tobytes() for number, name in enumerate(names)})
    genuine = PUBLISHED["cifar10"]
    small = Published(genuine.addresses, (File(archive.name, md5(archive.read_bytes())),), genuine.classes)
    monkeypatch.setitem(PUBLISHED, "cifar10", small)
    (tmp_path / "data").mkdir()
    obtain("cifar10", tmp_path / "data", tmp_path / "downloads", given=tmp_path)
    records = [item for item in open_source(tmp_path / "data").read() if isinstance(item, Record)]
    np.testing.assert_array_equal(np.stack([np.asarray(record.image) for record in records]), images)
    assert [record.label for record in records] == [genuine.classes[label] for label in labels]
    assert [record.split for record in records] == ["train"] * 50 + ["test"] * 10


def test_damaged_cifar(tmp_path: Path) -> None:
    cifar(tmp_path / "a.tar.gz", {"data_batch_1.bin": b"short"})
    with pytest.raises(InputError, match="is not CIFAR-10's binary version"):
        unpack_cifar(tmp_path / "a.tar.gz", tmp_path)


def test_the_table_is_complete() -> None:
    assert NAMES == ("digits", "moving-digits", "moving-digits-events", "mnist", "fashion-mnist", "kmnist", "cifar10")
    for entry in PUBLISHED.values():
        assert all(address.startswith("http") and address.endswith("/") for address in entry.addresses)
        assert all(len(bytes.fromhex(file.md5)) == 16 for file in entry.files)
    assert published.PUBLISHED is PUBLISHED
