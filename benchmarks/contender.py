"""A contender of `contend.py` or `contend_keras.py` in its own process, asked for one round after the other."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What our kernels set for themselves. Without it torch gives freed memory back and faults it in again, or does not, as
# chance has it: torch.nn's LSTM did 3,500 images a second, or 6,600.
KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_MMAP_MAX_": "0"}


@dataclass
class Contender:
    """A running process, and what it has given."""

    name: str
    process: "subprocess.Popen[str]"
    loss: float = 0.0
    rounds: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def start(cls, name: str, command: list[str], threads: int) -> "Contender":
        """Begins one, and reads the loss that it has before any training."""
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        if name in ("torch", "double-loop"):
            environment |= KEEPS_MEMORY
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        contender = cls(name, subprocess.Popen(command, text=True, env=environment, **pipes))
        (contender.loss,) = contender.answer()
        return contender

    def answer(self) -> list[float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early: {self.process.communicate()[1].strip()[-2000:]}")
        return [float(figure) for figure in line.split()]

    def ask(self) -> list[float]:
        """What one round gives."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()

    def round(self) -> tuple[float, float]:
        """Images a second, and a second of processor time."""
        rate, by_processor = self.ask()
        return rate, by_processor
