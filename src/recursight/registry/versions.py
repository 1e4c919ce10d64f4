"""Versions in the registry: found by bundle, number or alias."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from recursight.errors import InputError
from recursight.tracking.runs import BUNDLE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
REQUEST = "recursight.request"  # id of the request that created a version; the same if it was sent twice
FILES = "recursight.files"
ADDED_BY_MLFLOW = "registered_model_meta"  # on download


def file_digests(folder: Path) -> str:
    """JSON: by name, the SHA-256 of each of a model's files."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found.pop(ADDED_BY_MLFLOW, None)
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}
    return json.dumps(digests, sort_keys=True)


def changed_files(recorded: str, folder: Path) -> list[str]:
    """Names of a model's files that are other than `file_digests` has recorded, missing or additional."""
    before, now = set(json.loads(recorded).items()), set(json.loads(file_digests(folder)).items())
    return sorted({name for name, _ in before ^ now})


def version_of(client: "MlflowClient", name: str, bundle_digest: str) -> "ModelVersion | None":
    """The version of a bundle; the oldest if two machines have registered it at the same time."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{BUNDLE}` = '{bundle_digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def only_one(client: "MlflowClient", name: str, made: "ModelVersion") -> "ModelVersion":
    """Deletes a version if the same bundle already has one, and returns the first.

    Another clone may have registered the bundle at the same time, and a request whose response was lost is sent again.
    Version numbers increase, so the writer of the higher number sees the lower one.
    """
    found = client.search_model_versions(f"name = '{name}' and tags.`{BUNDLE}` = '{made.tags[BUNDLE]}'")
    first, *twins = sorted(found, key=lambda version: int(version.version))
    for twin in twins:
        if twin.tags.get(REQUEST) == made.tags[REQUEST]:
            client.delete_model_version(name, twin.version)
    return first


def version_with(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    """The version that has an alias."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def version_number(client: "MlflowClient", name: str, alias: str) -> int | None:
    """The number of the version that has an alias."""
    version = version_with(client, name, alias)
    return int(version.version) if version else None


def find_version(client: "MlflowClient", name: str, version: int) -> "ModelVersion":
    """A version by its number; raises InputError if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        known = sorted(int(found.version) for found in client.search_model_versions(f"name = '{name}'"))
        listed = ", ".join(map(str, known)) or "none; make one with `recursight register`"
        raise InputError(f"{name!r} has no version {version}; it has: {listed}.") from None
