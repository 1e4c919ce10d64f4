import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from recursight.data import archives
from recursight.data.archives import is_archive, unpack
from recursight.errors import InputError


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def link(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("link.png")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_tar(tmp_path: Path, name: str) -> None:
    archive = tar(tmp_path / name, (tarfile.TarInfo("cat/1.png"), b"one"), (tarfile.TarInfo("./dog/2.png"), b"two"))
    assert is_archive(archive)
    unpack(archive, tmp_path / "to")
    assert (tmp_path / "to" / "cat" / "1.png").read_bytes() == b"one"
    assert (tmp_path / "to" / "dog" / "2.png").read_bytes() == b"two"


def test_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("cat")
        archive.writestr("cat/1.png", b"one")
    unpack(tmp_path / "a.zip", tmp_path / "to")
    assert (tmp_path / "to" / "cat" / "1.png").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png"])
def test_member_that_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="points outside the folder"):
        unpack(tar(tmp_path / "a.tar", (tarfile.TarInfo(name), b"x")), tmp_path / "in" / "to")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(InputError, match="points outside the folder"):
        unpack(tmp_path / "a.zip", tmp_path / "in" / "to")
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(InputError, match=r"'link.png' is a link or a device"):
        unpack(tar(tmp_path / "a.tar", (link(kind), b"")), tmp_path / "to")


def test_link_in_zip(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("link.png")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(InputError, match=r"'link.png' is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "to")


def test_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED_BYTES", 1_000_000)
    bomb = tar(tmp_path / "a.tar.gz", (tarfile.TarInfo("a.png"), bytes(20_000_000)))
    with pytest.raises(InputError, match="unpacks to more than 200 times its size: a decompression bomb"):
        unpack(bomb, tmp_path / "to")
    assert (tmp_path / "to" / "a.png").stat().st_size < 8_000_000


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_not_an_archive(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"is not a readable archive: .*\."):
        unpack(tmp_path / name, tmp_path / "to")


def test_truncated(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar.gz", (tarfile.TarInfo("a.png"), bytes(range(256)) * 1000)).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is not a readable archive"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "to")
