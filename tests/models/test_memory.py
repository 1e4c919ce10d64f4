"""With the kernels comes memory that is kept between steps."""

import subprocess
import sys

import pytest

from recursight.models.kernels.build import library

COUNT = """
import resource, sys, torch
from recursight.models.layers import LAYERS
from recursight.models.kernels import build
if sys.argv[1] == "default":
    build.keep_freed_memory = lambda: None
layer, steps = LAYERS["mingru"](1, 64), torch.rand(200, 784, 1)  # states of 40 MB
def train(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        layer(steps)[0].square().mean().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
train(10)
print(train(10))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked to")
@pytest.mark.skipif(library() is None, reason="no compiler on this machine")
def test_large_tensors_cost_no_page_faults_after_the_first_steps() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True).stdout)
        for how in ("keep", "default")
    }
    assert faults["default"] > 20_000  # mapped anew in each step, 10,000 pages a piece
    assert faults["keep"] < 0.1 * faults["default"]


BLOCKS = """
import resource, psutil, torch
from recursight.models.kernels.memory import keep_freed_memory
keep_freed_memory(32 << 20)
def compute(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        first = torch.zeros(6_400_000)  # 25 MB, as after a convolution
        second, third = first + 1, first + 2
        del first, second, third
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
compute(30)  # until blocks lie where they fit
faults = compute(5)
small = psutil.Process().memory_info().rss
large = torch.zeros(50_000_000)
del large
print(faults, psutil.Process().memory_info().rss - small)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked to")
def test_blocks_up_to_a_size_are_kept_and_larger_ones_go_back() -> None:
    said = subprocess.run([sys.executable, "-c", BLOCKS], capture_output=True, check=True).stdout
    faults, grown = map(int, said.split())
    assert faults < 5_000  # of 94,000, if each block were mapped anew
    assert grown < 20_000_000
