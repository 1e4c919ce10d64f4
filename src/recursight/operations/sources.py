"""The inputs of a retraining: data, code and parameters; their versions, and what has changed.

The files in data/ and the version pinned by data.dvc may differ. If one of them is new, it is used; if both are, the
user must decide. Data that is not in DVC's cache is never overwritten.
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

FIRST = "some stages have not run in this clone yet"


@dataclass(frozen=True)
class Sources:
    """Versions of everything that a result depends on.

    Attributes:
        data: DVC's md5 of the files in data/.
        code: SHA-256 over the package's Python files.
        params: SHA-256 of params.yaml's values.
        git_commit: of the project, with `-dirty` if files differ from it; None outside git.
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
    """The state of data/ and data.dvc.

    Attributes:
        present: md5 of the files in data/; None if there are none.
        pinned: md5 in data.dvc.
        present_is_kept: whether DVC's cache contains the files in data/.
        pinned_is_kept: whether DVC's cache contains the version that data.dvc pins.
    """

    present: str | None
    pinned: str
    present_is_kept: bool
    pinned_is_kept: bool


def settle_data(layout: Layout, prepare: Callable[[], None]) -> str | None:
    """Makes data/ and data.dvc agree.

    Args:
        layout: of the project.
        prepare: validates data/; new files are pinned only if it succeeds.

    Returns:
        A sentence on what was done; None if they agreed.

    Raises:
        InputError: if there is no data, it cannot be pulled, both are new, or data/ changed while it was read.
    """
    if not layout.data_dvc.exists():
        if not layout.data.exists():
            raise InputError("there is no data: import some with `recursight data import SOURCE`.")
        prepare()
        pin(layout)
        return "data/ had no data.dvc; it is pinned now: commit data.dvc."
    sides = _sides(layout)
    if sides.present == sides.pinned:
        return None
    if sides.present is None or sides.present_is_kept:
        _pull(layout)
        return f"data/ was updated to the version that data.dvc pins, {sides.pinned}."
    if not sides.pinned_is_kept:
        raise InputError(
            "both data/ and data.dvc are new: `dvc add data` keeps the files in data/, "
            "`dvc pull --force data.dvc` replaces them by the version that data.dvc pins."
        )
    prepare()
    if _sides(layout).present != sides.present:
        raise InputError("data/ was changed while it was read; run again when it is complete.")
    pin(layout)
    return f"data/ has new files; data.dvc pins them now as {sides.present}: commit data.dvc."


def causes(layout: Layout) -> list[str]:
    """The changes of data, code and parameters because of which stages have to run.

    Outputs of other stages are listed only if they were changed or removed by hand.

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
    """Sentences for one of a stage's changes in `dvc status`."""
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
    """Fetches the pinned version completely before it changes data/; `dvc pull` deletes data/ if files are missing."""
    fetch(layout)
    sides = _sides(layout)
    if not sides.pinned_is_kept:
        raise InputError(
            f"data.dvc pins version {sides.pinned}, which no configured DVC remote has completely: run `dvc push` "
            "where it was made, or return to an earlier version with `git checkout COMMIT data.dvc`."
        )
    checkout(layout)


def _sides(layout: Layout) -> _Sides:
    from dvc.repo import Repo

    with Repo(str(layout.root)) as repo:
        out = repo.stage.load_one(str(layout.data_dvc)).outs[0]
        pinned = out.hash_info
        present = out.get_hash() if layout.data.exists() else None
        if present is not None and present.value == pinned.value:
            return _Sides(present.value, pinned.value, present_is_kept=True, pinned_is_kept=True)
        return _Sides(
            present=present.value if present else None,
            pinned=pinned.value,
            present_is_kept=present is not None and _is_kept(out.cache, present),
            pinned_is_kept=_is_kept(out.cache, pinned),
        )


def _is_kept(cache: Any, version: Any) -> bool:
    """Whether DVC's cache contains a version with all its files."""
    from dvc_data.hashfile import check, load
    from dvc_objects.errors import ObjectFormatError

    try:
        check(cache, load(cache, version))
    except (FileNotFoundError, ObjectFormatError):
        return False
    return True
