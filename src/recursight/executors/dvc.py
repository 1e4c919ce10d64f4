"""DVC under a flow's name: `python -m recursight.executors.dvc NAME ARGUMENTS...`.

DVC notes its command line in its table of locks, and shows it to every other `dvc` that has to stop. So that people see
which pipeline they met, and not only a DVC process inside it, that line begins with the pipeline.
"""

import sys

from recursight import processes

if __name__ == "__main__":
    processes.reduce_garbage_collection()
    from dvc.cli import main

    del sys.argv[0]
    sys.exit(main(sys.argv[1:]))
