"""params.yaml, typed and validated: everything that determines a result.

An invalid file is rejected as a whole. Each error gives the path of its key and, for an unknown name, the most similar
known one. Names of scans, layers, stems, readouts and optimizers are checked where they are used, against the tables
that list them.
"""

from recursight.params.experiment import Augment, Candidate, Compare, Evaluate, Execution, Prepare, Task, Train
from recursight.params.file import Params, load
from recursight.params.operation import Gate, Monitor, Registry, Retrain, Serve

__all__ = [
    "Augment",
    "Candidate",
    "Compare",
    "Evaluate",
    "Execution",
    "Gate",
    "Monitor",
    "Params",
    "Prepare",
    "Registry",
    "Retrain",
    "Serve",
    "Task",
    "Train",
    "load",
]
