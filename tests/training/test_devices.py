"""A training keeps its memory between steps."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from recursight.training.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    torch.ones(8_000_000)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked to")
def test_large_tensors_cost_no_page_faults_after_the_first_step() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True).stdout)
        for how in ("keep", "default")
    }
    assert faults["default"] > 20_000  # 32 MB in pages of 4 kB, five times
    assert faults["keep"] < 1_000
