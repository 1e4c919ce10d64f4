"""DVC under a flow's name: `python -m recursight.executors.dvc NAME repro --single-item STAGE`.

DVC records its command line in its table of locks and shows it to every other `dvc` that has to wait. Beginning with
NAME, which describes the pipeline, it tells users which pipeline is running.
"""

import sys
from pathlib import Path

from dvc.cli import main

from recursight.data.versions import complete_cache

if __name__ == "__main__":
    del sys.argv[0]
    root, stage = Path.cwd(), sys.argv[-1]
    complete_cache(root, stage)  # otherwise DVC would run a stage again only because its outputs are not in the cache
    status = main(sys.argv[1:])
    if status == 0 and not complete_cache(root, stage):
        sys.exit("recursight: DVC's cache could not store the results; free some space on its disk.")
    sys.exit(status)
