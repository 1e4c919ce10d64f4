"""The paths of a project. dvc.yaml contains the same paths; a test compares the two."""

from dataclasses import dataclass
from pathlib import Path

from recursight.errors import InputError


@dataclass(frozen=True)
class Layout:
    """The paths of one project.

    Args:
        root: the folder that holds params.yaml and dvc.yaml.
    """

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Layout":
        """Finds the project that contains a folder by searching upwards, as git and dvc do.

        Raises:
            InputError: if neither the folder nor any of its parents is a project.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
                return cls(folder)
        raise InputError(
            f"{here} is not inside a recursight project: no params.yaml and dvc.yaml here or in a parent folder."
        )

    def require_data(self) -> None:
        """Raises InputError if there is no data/."""
        if not self.data.exists():
            raise InputError(
                "data/ is missing: get it with `dvc pull data.dvc`, or bring images: `recursight data import`."
            )

    # Owned by the user.
    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def data_dvc(self) -> Path:
        return self.root / "data.dvc"

    # Written by stages; each is an output in dvc.yaml.
    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def store(self) -> Path:
        return self.artifacts / "store"

    def candidate(self, name: str) -> Path:
        """Output of train@name: one bundle per seed, in seed-N."""
        return self.artifacts / "candidates" / name

    def bundle(self, name: str, seed: int) -> Path:
        return self.candidate(name) / f"seed-{seed}"

    def history_plot(self, name: str) -> Path:
        return self.artifacts / "plots" / name / "history.csv"

    def evaluation(self, name: str) -> Path:
        """Output of evaluate@name: one folder per seed, in seed-N."""
        return self.artifacts / "evaluations" / name

    def evaluation_of(self, name: str, seed: int) -> Path:
        return self.evaluation(name) / f"seed-{seed}"

    def metrics(self, name: str) -> Path:
        return self.artifacts / "metrics" / f"{name}.json"

    def answers_plot(self, name: str) -> Path:
        return self.artifacts / "plots" / name / "answers.csv"

    @property
    def comparison(self) -> Path:
        return self.artifacts / "comparison"

    # Working state: not versioned, may be deleted when nothing runs.
    @property
    def state(self) -> Path:
        return self.root / ".recursight"

    def checkpoint(self, name: str, seed: int) -> Path:
        return self.state / "checkpoints" / name / f"seed-{seed}.safetensors"

    @property
    def predictions(self) -> Path:
        """The log of the champion's predictions, which monitoring reads."""
        return self.state / "predictions"

    @property
    def monitoring(self) -> Path:
        """Drift reports and the latest alarm."""
        return self.state / "monitoring"

    def lock(self, work: str) -> Path:
        """Lock file of a stage such as train@gru, held by the process that runs it."""
        return self.state / "locks" / f"{work}.lock"
