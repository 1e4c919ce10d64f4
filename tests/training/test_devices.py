"""A training keeps its memory between steps."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from recursight.models.layers import LAYERS
from recursight.training.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
layer, steps = LAYERS["mingru"](1, 64), torch.rand(200, 784, 1)  # states of 40 MB
def train(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        layer(steps).square().mean().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
train(10)
print(train(10))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked to")
def test_large_tensors_cost_no_page_faults_after_the_first_steps() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True).stdout)
        for how in ("keep", "default")
    }
    assert faults["default"] > 20_000  # mapped anew in each step, 10,000 pages a piece
    assert faults["keep"] < 0.1 * faults["default"]
