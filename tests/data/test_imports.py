"""Imports into a real project, with real git and DVC."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from filelock import FileLock

from recursight.data.imports import import_data
from recursight.data.prepare import prepare
from recursight.data.published import make_digits
from recursight.data.readers import open_source
from recursight.data.readers import parquet as parquet_reader
from recursight.data.records import Record
from recursight.errors import InputError
from recursight.layout import Layout
from recursight.operations import cleanup

from .conftest import dvc, git
from .pictures import WRITERS, parquet_table, pictures, png, splits_of

SHARES = {"validation": 0.15, "test": 0.2}


def content(folder: Path) -> dict[str, str]:
    """Every file's hash, and all of the project's that an import may touch."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def state(project: Layout) -> dict[str, str]:
    pinned = {name: (project.root / name).read_text() for name in ("data.dvc", ".gitignore")}
    return content(project.data) | pinned


def pin(project: Layout) -> dict[str, object]:
    out: dict[str, object] = yaml.safe_load(project.data_dvc.read_text())["outs"][0]
    return out


@pytest.mark.parametrize("format", WRITERS)
def test_every_format_is_imported_and_prepared_alike(project: Layout, tmp_path: Path, format: str) -> None:
    WRITERS[format](tmp_path / "source", splits_of(pictures(), True))
    before = content(tmp_path / "source")
    summary = import_data(project, tmp_path / "source", **SHARES)
    assert summary["splits"] == {"train": {"2": 15, "10": 15}, "test": {"2": 5, "10": 5}}
    assert (summary["sizes"], summary["channels"]) == ({"6×5": 40}, {"grey": 40})
    assert content(tmp_path / "source") == before
    direct = prepare(tmp_path / "source", tmp_path / "direct")
    imported = prepare(project.data, tmp_path / "imported")
    assert imported["splits"] == direct["splits"]
    assert imported["mean"] == direct["mean"]
    assert dvc(project.root, "status", "data.dvc").strip() == "Data and pipelines are up to date."


def test_folders_are_packed_with_their_bytes_unchanged(project: Layout, flowers: Path) -> None:
    import_data(project, flowers, **SHARES)
    assert [path.name for path in project.data.iterdir()] == ["images-00000.parquet"]
    packed = {item.id: item for item in open_source(project.data).read() if isinstance(item, Record)}
    assert len(packed) == 40
    for path in flowers.rglob("*.png"):
        record = packed[path.relative_to(flowers).as_posix()]
        assert record.image == path.read_bytes()
        assert record.label == path.parent.name


def test_whole_files_are_copied_as_they_are(project: Layout, tmp_path: Path) -> None:
    for format in ("idx", "parquet"):
        WRITERS[format](tmp_path / format, splits_of(pictures(), True))
        (tmp_path / format / "README.md").write_text("not data")
        expected = {name: sha for name, sha in content(tmp_path / format).items() if name != "README.md"}
        import_data(project, tmp_path / format, force=True, **SHARES)
        assert content(project.data) == expected


def test_parquet_with_large_row_groups_is_written_anew(
    project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `prepare` would need memory for a row group."""
    monkeypatch.setattr(parquet_reader, "LARGE_GROUP_BYTES", 1000)
    WRITERS["parquet"](tmp_path / "source", splits_of(pictures(), True))
    import_data(project, tmp_path / "source", **SHARES)
    assert {path.name for path in project.data.iterdir()} == {"train-00000.parquet", "test-00000.parquet"}


def test_the_old_version_is_restorable(project: Layout, flowers: Path) -> None:
    before = state(project)
    import_data(project, flowers, **SHARES)
    assert state(project) != before
    git(project.root, "checkout", "data.dvc")
    dvc(project.root, "checkout")
    assert state(project) == before


def test_other_data_never_points_at_the_embedded_remote(project: Layout, flowers: Path) -> None:
    embedded = content(project.root / "embedded")
    assert pin(project)["remote"] == "embedded"
    import_data(project, flowers, **SHARES)
    assert "remote" not in pin(project)
    dvc(project.root, "remote", "add", "--default", "mine", str(project.root.parent / "mine"))
    dvc(project.root, "push")
    assert content(project.root / "embedded") == embedded
    assert len(content(project.root.parent / "mine")) == 2


def test_coming_back_to_the_digits_restores_data_dvc(project: Layout, flowers: Path, tmp_path: Path) -> None:
    original = project.data_dvc.read_text()
    import_data(project, flowers, **SHARES)
    git(project.root, "commit", "--all", "--message", "Flowers")
    (tmp_path / "digits").mkdir()
    make_digits(tmp_path / "digits")
    import_data(project, tmp_path / "digits", **SHARES)
    assert project.data_dvc.read_text() == original


def test_a_remote_of_ones_own_stays(project: Layout, flowers: Path) -> None:
    project.data_dvc.write_text(project.data_dvc.read_text().replace("remote: embedded", "remote: mine"))
    git(project.root, "commit", "--all", "--message", "Mine")
    dvc(project.root, "remote", "add", "mine", str(project.root.parent / "mine"))
    import_data(project, flowers, **SHARES)
    assert pin(project)["remote"] == "mine"


def test_bad_images_change_nothing_unless_skipped(project: Layout, flowers: Path) -> None:
    before = state(project)
    (flowers / "2" / "0.png").write_bytes(b"")
    (flowers / "10" / "20.png").write_bytes(b"junk")
    with pytest.raises(InputError) as error:
        import_data(project, flowers, **SHARES)
    assert "2 errors" in str(error.value)
    assert "2/0.png is empty." in str(error.value)
    assert "10/20.png is not an image" in str(error.value)
    assert state(project) == before
    summary = import_data(project, flowers, skip_bad=True, **SHARES)
    assert (summary["count"], len(summary["skipped"])) == (38, 2)
    assert prepare(project.data, project.store)["count"] == 38


def test_bad_rows_of_parquet_are_left_out(project: Layout, tmp_path: Path) -> None:
    images: list[bytes | None] = [png(pixels) for each in pictures().values() for pixels in each]
    images[0] = b"junk"
    (tmp_path / "source").mkdir()
    pq.write_table(parquet_table(images, [0] * 20 + [1] * 20), tmp_path / "source" / "a.parquet")
    import_data(project, tmp_path / "source", skip_bad=True, **SHARES)
    assert prepare(project.data, project.store)["count"] == 39


def test_too_few_images_are_refused_before_anything_is_replaced(project: Layout, flowers: Path) -> None:
    before = state(project)
    for path in sorted((flowers / "2").iterdir())[2:]:
        path.unlink()
    with pytest.raises(InputError, match="each needs 3 or more"):
        import_data(project, flowers, **SHARES)
    assert state(project) == before


def test_contradicting_labels_are_reported(project: Layout, flowers: Path) -> None:
    (flowers / "2" / "0.png").write_bytes((flowers / "10" / "20.png").read_bytes())
    assert import_data(project, flowers, **SHARES)["conflicts"] == [["2/0.png", "10/20.png"]]


def test_data_that_could_not_be_restored_is_not_replaced(project: Layout, flowers: Path) -> None:
    (project.data / "mine.txt").write_text("an hour of work")
    before = state(project)
    with pytest.raises(InputError, match=r"data/ is not what data.dvc pins: .*--force"):
        import_data(project, flowers, **SHARES)
    dvc(project.root, "add", "--quiet", "data")
    with pytest.raises(InputError, match=r"data.dvc is not committed: `git add data.dvc && git commit -m ...` first"):
        import_data(project, flowers, **SHARES)
    project.data_dvc.unlink()
    with pytest.raises(InputError, match=r"data/ has no data.dvc"):
        import_data(project, flowers, **SHARES)
    assert content(project.data).items() <= before.items()
    import_data(project, flowers, force=True, **SHARES)
    assert [path.name for path in project.data.iterdir()] == ["images-00000.parquet"]


def test_data_that_is_not_in_the_cache_is_put_there_first(project: Layout, flowers: Path) -> None:
    """As after `dvc gc`: data/ is as pinned, but this is the only copy."""
    before = state(project)
    for path in [*(project.root / ".dvc" / "cache").rglob("*"), *(project.root / "embedded").rglob("*")]:
        if path.is_file():
            path.chmod(0o644)
            path.unlink()
    import_data(project, flowers, **SHARES)
    git(project.root, "checkout", "data.dvc")
    dvc(project.root, "checkout", "data.dvc")
    assert state(project) == before


def test_a_failing_dvc_puts_everything_back(project: Layout, flowers: Path) -> None:
    before = state(project)
    (project.root / "dvc.yaml").write_text(
        "stages:\n  own:\n    cmd: 'true'\n    outs: [data/x]\n"
    )  # overlaps with data/
    with pytest.raises(InputError, match=r"`dvc .* failed: .*data"):
        import_data(project, flowers, force=True, **SHARES)
    assert state(project) == before
    assert not (project.state / "import").exists()


# An import that kills itself, with SIGKILL, when it is about to take a step, and before or after that.
KILLED = """
import os, shutil, signal, subprocess, sys
from pathlib import Path
from recursight import files
from recursight.data import imports, versions
from recursight.layout import Layout

step, source = int(sys.argv[1]), Path(sys.argv[2])
taken = 0

def killing(function):
    def stepped(*arguments, **options):
        global taken
        taken += 1
        if taken == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return stepped

Path.rename, Path.unlink, Path.replace = map(killing, (Path.rename, Path.unlink, Path.replace))
shutil.rmtree = killing(shutil.rmtree)
subprocess.run = killing(subprocess.run)
imports.import_data(Layout.find(), source, validation=0.15, test=0.2)
print(taken, flush=True)
"""


def killed_import(project: Layout, source: Path, step: int) -> int:
    """The number of steps of an import; 0 if it was killed."""
    command = [sys.executable, "-c", KILLED, str(step), str(source)]
    finished = subprocess.run(command, cwd=project.root, capture_output=True, text=True)
    assert finished.returncode in (0, -signal.SIGKILL), finished.stderr
    return int(finished.stdout or 0)


def require_whole(project: Layout, before: dict[str, str], imported: list[str]) -> None:
    """data/ is the old or the new data, and data.dvc pins it."""
    assert not (project.state / "import").exists()
    assert [*project.state.glob(".*")] == []
    if [path.name for path in project.data.iterdir()] == imported:
        assert "remote" not in pin(project)
    else:
        assert state(project) == before
    assert dvc(project.root, "status", "data.dvc").strip() == "Data and pipelines are up to date."


STEPS = 16


@pytest.mark.parametrize(
    "step", [step if step in (6, 8) else pytest.param(step, marks=pytest.mark.thorough) for step in range(1, STEPS)]
)
def test_an_import_killed_at_any_step_is_undone_or_complete(project: Layout, flowers: Path, step: int) -> None:
    before = state(project)
    if steps := killed_import(project, flowers, step):
        pytest.skip(f"an import has {steps} steps")
    cleanup.on_this_machine(project, clear=True)
    require_whole(project, before, ["images-00000.parquet"])
    assert cleanup.on_this_machine(project, clear=False) == []


def test_the_steps_above_are_all_there_are(project: Layout, flowers: Path) -> None:
    assert 0 < killed_import(project, flowers, 1000) < STEPS


def test_a_dvc_that_outlives_its_import_pins_nothing(project: Layout, flowers: Path) -> None:
    """It would pin the new data after the old data is restored."""
    before = state(project)
    script = KILLED.replace("imports.import_data", "commands_dvc()\nimports.import_data")
    slow = "import time; time.sleep(3); from dvc.cli import main; main(['add', 'data'])"
    script = script.replace(
        "step, source =",
        f"""
def commands_dvc():
    import recursight.data.versions
    def run(layout, *words):
        if words[0] != "add":
            return ""
        subprocess.Popen([sys.executable, "-c", {slow!r}])
        os.kill(os.getpid(), signal.SIGKILL)
    recursight.data.versions._dvc = run

step, source =""",
    )
    finished = subprocess.run([sys.executable, "-c", script, "1000", str(flowers)], cwd=project.root)
    assert finished.returncode == -signal.SIGKILL
    assert [path.name for path in project.data.iterdir()] == ["images-00000.parquet"]
    cleanup.on_this_machine(project, clear=True)
    time.sleep(4)
    require_whole(project, before, ["images-00000.parquet"])


def test_one_import_at_a_time(project: Layout, flowers: Path) -> None:
    project.lock("import").parent.mkdir(parents=True)
    with FileLock(project.lock("import")), pytest.raises(InputError, match="another import is running"):
        import_data(project, flowers, **SHARES)


def test_packed_schema_is_hugging_faces(project: Layout, flowers: Path) -> None:
    import_data(project, flowers, **SHARES)
    schema = pq.read_schema(project.data / "images-00000.parquet")
    assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert b'"names": ["2", "10"], "_type": "ClassLabel"' in schema.metadata[b"huggingface"]


HOSTILE = [b"caf\xe9", b"red\x1b[31m", b"title\x1b]0;pwned\x07", b"line\nbreak", "left\u202eright".encode()]


def test_hostile_names_are_imported_escaped(project: Layout, flowers: Path) -> None:
    for number, name in enumerate(HOSTILE):
        os.rename(flowers / "2" / f"{number}.png", os.path.join(os.fsencode(flowers), b"2", name + b".png"))  # noqa: PTH104, PTH118
    os.rename(os.fsencode(flowers / "10"), os.path.join(os.fsencode(flowers), b"ten\xff\x1b[2J"))  # noqa: PTH104, PTH118
    summary = import_data(project, flowers, **SHARES)
    assert summary["classes"] == ["2", "ten\\udcff\\x1b[2J"]
    prepare(project.data, project.store)
    table = pq.read_table(project.store / "examples.parquet")
    names = ["caf\\udce9", "red\\x1b[31m", "title\\x1b]0;pwned\\x07", "line\\nbreak", "left\\u202eright"]
    assert {f"2/{name}.png" for name in names} <= set(table["id"].to_pylist())
    assert prepare(flowers, project.root / "direct")["count"] == 40
    assert dvc(project.root, "status", "data.dvc").strip() == "Data and pipelines are up to date."


def test_parquet_files_whose_names_are_not_utf8_are_refused(project: Layout, tmp_path: Path) -> None:
    WRITERS["parquet"](tmp_path / "source", splits_of(pictures(), True))
    (train,) = (tmp_path / "source").glob("train*.parquet")
    os.rename(train, os.fsencode(tmp_path / "source") + b"/train-\xff.parquet")  # noqa: PTH104
    with pytest.raises(InputError, match="the file name is not UTF-8"):
        import_data(project, tmp_path / "source", **SHARES)
