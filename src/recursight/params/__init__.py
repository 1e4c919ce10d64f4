"""params.yaml, typed and validated: every number and name that decides a result.

A wrong file is refused as a whole, each fault with the path of its key and, where a name is unknown, the nearest one
that exists. Names of scans, layers, stems, readouts and optimizers are checked where they are used, by the tables
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
