"""The native kernels, compiled with sanitizers, on random shapes: `python -m tests.fuzz.kernels SEED SECONDS FOLDER`.

AddressSanitizer reports every access outside of an array, UndefinedBehaviorSanitizer every overflow and misaligned
access. They have to be loaded before Python itself, so this process starts another one.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

FLAGS = ["-std=c++20", "-O1", "-g", "-fPIC", "-shared", "-march=native", "-fopenmp", "-fno-math-errno"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def main(seed: int, seconds: float, folder: Path) -> int:
    from recursight.models.kernels import build

    source = next(path for path in build.SOURCES if path.suffix == ".cpp")
    compiler = build._compiler()
    library = folder / "kernels.so"
    shared = [] if "clang" not in Path(compiler).name else ["-shared-libasan"]
    subprocess.run([compiler, *FLAGS, *SANITIZERS, *shared, str(source), "-o", str(library)], check=True)
    loaded = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(loaded),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=77",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=78",
        "OMP_NUM_THREADS": "2",
    }
    command = [sys.executable, "-m", "tests.fuzz.kernels", str(seed), str(seconds), str(folder), str(library)]
    return subprocess.run(command, env=environment, check=False).returncode


def shapes(seed: int, seconds: float, folder: Path, library: Path) -> None:
    """Forward and backward passes of every recurrent layer, with this library in place of the usual one."""
    import ctypes

    import torch

    from recursight.models.kernels import build, native
    from recursight.models.layers import LAYERS

    kernels = ctypes.CDLL(str(library))
    build.library = native.library = lambda: kernels  # type: ignore[assignment]
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        random = Random(f"{seed} {count}")
        name = random.choice(sorted(LAYERS))
        dtype = random.choice((torch.float32, torch.float64))
        batch, features, hidden = (
            random.choice((1, 2, 7, 16, 63, 64, 129)),
            random.randint(1, 40),
            random.randint(1, 70),
        )
        steps = (random.randint(1, 9), random.randint(1, 9)) if LAYERS[name].grid else (random.randint(1, 40),)
        torch.set_num_threads(random.randint(1, 3))
        description = f"{name} {dtype} batch {batch}, steps {steps}, {features} features, {hidden} hidden"
        (folder / "input").write_text(description)
        torch.manual_seed(count)
        layer = LAYERS[name](features, hidden).to(dtype)
        inputs = torch.randn(batch, *steps, features, dtype=dtype, requires_grad=random.random() < 0.5)
        outputs, _ = layer(inputs)
        outputs.square().sum().backward()
        assert torch.isfinite(outputs).all(), description
        count += 1
        (folder / "count").write_text(str(count))


if __name__ == "__main__":
    numbers = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    sys.exit(shapes(*numbers, Path(sys.argv[4])) if len(sys.argv) > 4 else main(*numbers))
