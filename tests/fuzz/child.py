"""Feeds mutants to one target until the time is over: `python -m tests.fuzz.child NAME SEED SECONDS FOLDER`.

Each mutant is written to FOLDER/input before it is read, so that the process that started this one has it after a crash
or a hang, and under FOLDER/found if the target fails on it.
"""

import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from random import Random

from tests.fuzz.faults import Faults
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, corpus, own_folder, refuses_or_reads

MEMORY_BYTES = 4 << 30  # of addresses; a target that asks for more fails with a MemoryError


def main(name: str, seed: int, seconds: float, folder: Path) -> None:
    target = TARGETS[name]
    samples = [*target.samples(), *(path.read_bytes() for path in corpus(name))]
    for sample in target.samples():
        target.read(sample, own_folder(folder / "work"))  # a sample that is refused tests nothing
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")  # of Pillow about what is odd in an image
    began, count, faults = time.monotonic(), 0, Faults(name, folder)
    while time.monotonic() - began < seconds:
        content = mutated(Random(f"{seed} {count}"), samples, target.words)
        (folder / "input").write_bytes(content)
        try:
            refuses_or_reads(target, content, own_folder(folder / "work"))
        except BaseException as fault:
            place = traceback.extract_tb(fault.__traceback__)[-1]
            kind = f"{type(fault).__name__} at {Path(place.filename).name}:{place.lineno}"
            faults.keep(kind, content, str(fault))
            if isinstance(fault, KeyboardInterrupt):
                raise
        count += 1
        if count % 50 == 0:
            (folder / "count").write_text(str(count))
    (folder / "count").write_text(str(count))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
