"""DVC under a flow's name: `python -m recursight.executors.dvc NAME repro --single-item STAGE`.

DVC records its command line in its table of locks and shows it to every other `dvc` that has to wait. The command line
begins with NAME, a description of the pipeline, so that users see which pipeline is running.

If a disk is full, DVC logs that it could not copy an output into its cache, and then either fails with a question about
overwriting files, or records the output and succeeds. Here the stage fails with the reason, and keeps its output.
"""

import logging
import sys
from pathlib import Path

from recursight import processes
from recursight.data.versions import complete_cache

NO_ROOM = "recursight: DVC's cache could not store the results; free some space on its disk."


class Failures(logging.Handler):
    """Remembers whether DVC logged that it could not copy a file."""

    seen = False

    def emit(self, record: logging.LogRecord) -> None:
        self.seen = True


if __name__ == "__main__":
    processes.reduce_garbage_collection()
    from dvc.cli import main

    del sys.argv[0]
    root, stage = Path.cwd(), sys.argv[-1]
    failures = Failures(logging.ERROR)
    logging.getLogger("dvc_data.hashfile.transfer").addHandler(failures)
    complete_cache(root, stage)  # otherwise DVC runs a stage again only because its outputs are not in the cache
    status = main(sys.argv[1:])
    is_stored = not failures.seen if status else complete_cache(root, stage)
    sys.exit(status if is_stored else NO_ROOM)
