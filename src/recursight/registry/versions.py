"""Versions in the registry: found by what they are, and named by alias."""

from typing import TYPE_CHECKING

from recursight.errors import InputError
from recursight.tracking.runs import BUNDLE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
REQUEST = "recursight.request"  # that made a version, however often it was sent


def version_of(client: "MlflowClient", name: str, bundle_digest: str) -> "ModelVersion | None":
    """The version that was made of a bundle; the oldest, should two machines have registered it at once."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{BUNDLE}` = '{bundle_digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def only_one(client: "MlflowClient", name: str, made: "ModelVersion") -> "ModelVersion":
    """Takes a version back that turns out to be a bundle's second one, and returns the first.

    Another clone may have registered the same bundle at that moment, and a request whose answer was lost is sent
    again. Numbers rise, so the writer of the higher one sees the lower.
    """
    found = client.search_model_versions(f"name = '{name}' and tags.`{BUNDLE}` = '{made.tags[BUNDLE]}'")
    first, *twins = sorted(found, key=lambda version: int(version.version))
    for twin in twins:
        if twin.tags.get(REQUEST) == made.tags[REQUEST]:
            client.delete_model_version(name, twin.version)
    return first


def version_with(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    """The version that bears an alias."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


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
        raise InputError(f"{name!r} has no version {version}; there are: {listed}.") from None
