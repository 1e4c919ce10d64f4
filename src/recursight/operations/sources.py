"""What a retraining looks at: data, code and parameters; what of them has changed, and what their versions are.

data/ has two sides, the files and the version that data.dvc pins. Whichever of them is new is taken; where both are,
people decide. Nothing is ever overwritten that DVC does not hold.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from recursight.data.versions import checkout, fetch, pin
from recursight.errors import InputError
from recursight.executors.graph import status
from recursight.files import digest
from recursight.layout import Layout
from recursight.params import load
from recursight.provenance import code_digest, git_commit

FIRST = "some stages have not run here yet"


@dataclass(frozen=True)
class Sources:
    """All that decides a result, by version: equal for equal results.

    Attributes:
        data: DVC's md5 of data/, as it lies on disk.
        code: SHA-256 over the package's Python files.
        params: SHA-256 of params.yaml's values.
        git_commit: of the project, with `-dirty` where files differ from it; None outside git.
    """

    data: str | None
    code: str
    params: str
    git_commit: str | None

    @classmethod
    def of(cls, layout: Layout) -> "Sources":
        return cls(
            data=_sides(layout).present if layout.data_dvc.exists() else None,
            code=code_digest(layout.root / "src", layout.root / "flows"),
            params=digest(load(layout.params).model_dump(mode="json")),
            git_commit=git_commit(layout.root),
        )

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)


@dataclass(frozen=True)
class _Sides:
    """data/ and data.dvc.

    Attributes:
        present: md5 of what lies in data/; None if nothing does.
        pinned: md5 in data.dvc.
        present_is_kept: whether DVC's cache holds what lies in data/.
        pinned_is_kept: whether DVC's cache holds what data.dvc pins.
    """

    present: str | None
    pinned: str
    present_is_kept: bool
    pinned_is_kept: bool


def settle_data(layout: Layout, prepare: Callable[[], None]) -> str | None:
    """Makes data/ and data.dvc agree.

    Args:
        layout: of the project.
        prepare: reads and checks data/; new files are pinned only if it raises nothing.

    Returns:
        What was done, in a sentence; None if they agreed.

    Raises:
        InputError: if there is no data, it cannot be pulled, both sides are new, or data/ changed while it was read.
    """
    if not layout.data_dvc.exists():
        if not layout.data.exists():
            raise InputError("there is no data: `recursight data import SOURCE` brings some.")
        prepare()
        pin(layout)
        return "data/ was pinned by no data.dvc; it is now: commit data.dvc."
    sides = _sides(layout)
    if sides.present == sides.pinned:
        return None
    if sides.present is None or sides.present_is_kept:
        _pull(layout)
        return f"data/ was brought to the version that data.dvc pins, {sides.pinned}."
    if not sides.pinned_is_kept:
        raise InputError(
            "both data/ and data.dvc are new: `dvc add data` keeps what lies in data/, "
            "`dvc pull --force data.dvc` takes what data.dvc pins."
        )
    prepare()
    if _sides(layout).present != sides.present:
        raise InputError("data/ was changed while it was read; run again when it is complete.")
    pin(layout)
    return f"data/ held new files; data.dvc pins them now as {sides.present}: commit data.dvc."


def causes(layout: Layout) -> list[str]:
    """Why stages have to run: what has changed of data, code and parameters since they ran last.

    Outputs of other stages are no causes, unless somebody changed or removed them.

    Raises:
        InputError: if `dvc status` fails.
    """
    stages = {name: changes for name, changes in status(layout.root).items() if not name.endswith(".dvc")}
    found: dict[str, None] = {}  # an ordered set
    for changes in stages.values():
        for change in changes:
            found |= dict.fromkeys(_sentences(change))
    return list(found)


def _sentences(change: Any) -> list[str]:
    """One of a stage's changes, as `dvc status` puts it."""
    if not isinstance(change, dict):
        return ["a stage of dvc.yaml has changed" if change == "changed command" else str(change)]
    found = []
    for path, state in change.get("changed deps", {}).items():
        if path == "params.yaml":
            keys = state if isinstance(state, dict) else {"": state}
            found += [f"{key} in params.yaml is {how}" if key else FIRST for key, how in keys.items()]
        elif not path.startswith("artifacts/"):
            found.append(f"{path} is {state}")
    for path, state in change.get("changed outs", {}).items():
        if "changed deps" not in change:
            found.append(f"{path} is {state}")
    return found


def _pull(layout: Layout) -> None:
    """What is pinned is fetched whole before data/ is touched: `dvc pull` removes data/ where it finds only a part."""
    fetch(layout)
    sides = _sides(layout)
    if not sides.pinned_is_kept:
        raise InputError(
            f"data.dvc pins version {sides.pinned}, which no DVC remote named here holds in full: `dvc push` it where "
            "it was made, or go back to an earlier one with `git checkout COMMIT data.dvc`."
        )
    checkout(layout)


def _sides(layout: Layout) -> _Sides:
    from dvc.repo import Repo

    with Repo(str(layout.root)) as repo:
        out = repo.stage.load_one(str(layout.data_dvc)).outs[0]
        pinned = out.hash_info
        present = out.get_hash() if layout.data.exists() else None
        if present is not None and present.value == pinned.value:
            return _Sides(present.value, pinned.value, present_is_kept=True, pinned_is_kept=True)  # all that is asked
        return _Sides(
            present=present.value if present else None,
            pinned=pinned.value,
            present_is_kept=present is not None and _is_kept(out.cache, present),
            pinned_is_kept=_is_kept(out.cache, pinned),
        )


def _is_kept(cache: Any, version: Any) -> bool:
    """Whether a version lies in DVC's cache, with each of its files."""
    from dvc_data.hashfile import check, load
    from dvc_objects.errors import ObjectFormatError

    try:
        check(cache, load(cache, version))
    except (FileNotFoundError, ObjectFormatError):
        return False
    return True
