#!/usr/bin/env bash
# Training by several processes over MPI (docs/CLUSTERS.md), on this machine: 2, 3 and 4 ranks against one process, kills,
# hangs, wrong starts. Installs Open MPI and libclang by apt where they are absent. MPI_KILLS: the number of SIGKILLs,
# by default 4.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"

has_libclang() { ldconfig -p | grep -q 'libclang[-.]' || compgen -G "/usr/lib/llvm-*/lib/libclang*.so*" >/dev/null; }
if ! command -v mpirun >/dev/null || ! command -v mpicc >/dev/null || ! has_libclang; then
    if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends libopenmpi-dev openmpi-bin libclang-dev; } >/dev/null 2>&1; then
        echo "mpi: left out, Open MPI and libclang are not here and cannot be installed"
        exit 0
    fi
fi

# The features of the workspace's other builds and this one, so that only rezero-train is built again.
cargo clippy --locked --release --workspace --features rezero-train/mpi -- -D warnings
cargo build --locked --release --workspace --features rezero-train/mpi --bin rezero --example own_model
exec python3 scripts/test-mpi.py "$CARGO_TARGET_DIR/release/rezero"
