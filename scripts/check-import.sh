#!/usr/bin/env bash
# CIFAR ResNets from PyTorch and back: one with projection shortcuts beside an optimizer's state, one with option A
# under `module.` in half precision. Each is trained a little and scored by PyTorch, imported, scored and exported by
# rezero, and loaded back in PyTorch with strict=True. Needs `cargo build --release`, a Python with torch 2.9.1 and
# numpy, and CIFAR-10 in its binary form:
#
#   PYTHON=~/.cache/rezero/torch/bin/python scripts/check-import.sh DATA_DIR
#
# DATA_DIR holds cifar-10-batches-bin; a part of the images is enough. Fails where a number or a tensor differs.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$(realpath "${1:?usage: check-import.sh DATA_DIR}")
python=${PYTHON:-python3}
rezero=${REZERO:-${CARGO_TARGET_DIR:-target}/release/rezero}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" scripts/check-import.py make "$data" "$work"
for name in projection option_a; do
    echo "== $name"
    "$rezero" import "$work/$name.pt" scheme=residual normalization=table --run-dir "$work/$name"
    "$rezero" eval "$work/$name" --split test --data-dir "$data" --offline --json >"$work/$name.json"
    "$rezero" export "$work/$name" --out "$work/$name.safetensors"
    "$python" scripts/check-import.py back "$data" "$work" "$name"
done
