#!/bin/sh
# Installs the torch that requirements.torch.lock pins: its CUDA build where there is an NVIDIA driver, else its CPU build.
# A wheel in the folder UV_FIND_LINKS comes first and needs no index. UV_TORCH_BACKEND (cpu, cu130, ...) comes before both.
# Usage: install-torch.sh PYTHON, with `uv` on the PATH.
set -eu
python=$1
lock=$(dirname "$0")/../requirements.torch.lock
folder=${UV_FIND_LINKS:-}
backend=${UV_TORCH_BACKEND:-}
unset UV_TORCH_BACKEND
install() { uv pip install --quiet --python "$python" -r "$lock" "$@"; }

if [ -n "$backend" ]; then
    why="UV_TORCH_BACKEND=$backend" folder=
elif [ "$(uname)" != Linux ]; then
    why=$(uname)  # PyPI has one build
elif [ -e /proc/driver/nvidia/version ] || nvidia-smi -L >/dev/null 2>&1; then
    why="NVIDIA driver found" backend=auto
else
    why="no NVIDIA driver found" backend=cpu
fi

if [ -n "$folder" ] && install --no-index 2>/dev/null; then
    from=$folder
elif [ -n "$backend" ] && install --torch-backend "$backend" --reinstall-package torch 2>/dev/null; then
    from="PyTorch's index"
else
    [ -z "$backend" ] || echo "torch: PyTorch's index does not answer; taking PyPI's build, which on Linux is for CUDA" >&2
    install
    from=PyPI
fi
"$python" - "$why" "$from" <<'END'
import sys
import torch
build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
print(f"torch {torch.__version__}, the build for {build} ({sys.argv[1]}; from {sys.argv[2]})")
END
