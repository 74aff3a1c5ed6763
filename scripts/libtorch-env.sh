#!/usr/bin/env bash
# Prints what the feature `tch` needs to build and run with the libtorch of a Python environment that has
# PyTorch 2.9.1:
#
#   python3 -m venv ~/torch && ~/torch/bin/pip install torch==2.9.1 setuptools
#   eval "$(scripts/libtorch-env.sh ~/torch)"
#   cargo run --release --features tch -- devices --check
set -euo pipefail

if [ $# != 1 ] || [ ! -x "$1/bin/python" ]; then
    echo "usage: eval \"\$($0 DIR)\", where DIR is a Python environment with torch 2.9.1" >&2
    exit 1
fi
venv=$(CDPATH="" cd -- "$1" && pwd)
lib=$("$venv/bin/python" - <<'PY'
import sys
import torch

version = torch.__version__.split("+")[0]
if not version.startswith("2.9."):
    sys.exit(f"this environment has torch {version}; the bindings need 2.9.1")
print(f"{torch.__path__[0]}/lib")
PY
)
# A path may have any characters: %q quotes it for the shell that reads these lines.
printf 'export VIRTUAL_ENV=%q PATH=%q:"$PATH"\n' "$venv" "$venv/bin"
# The bindings were made for 2.9.0, whose functions 2.9.1 has.
echo "export LIBTORCH_USE_PYTORCH=1 LIBTORCH_BYPASS_VERSION_CHECK=1"
# Without a colon at the end: an empty entry is the current folder.
printf 'export LD_LIBRARY_PATH=%q"${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"\n' "$lib"
