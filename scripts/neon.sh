#!/usr/bin/env bash
# Runs the kernels' tests for AArch64, with NEON and without vectors, under the emulator qemu: scripts/neon.sh [TEST…].
# $NEON_BUDGET is the seconds that they may take, 1800: some five minutes of CPU, on a machine that may be busy. The emulator
# keeps the memory order of its own machine, so the pool's atomics are not tested for Arm's order.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in aarch64-linux-gnu-gcc qemu-aarch64; do
    if ! command -v "$program" >/dev/null; then
        echo "error: there is no $program; Debian and Ubuntu: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" >&2
        exit 1
    fi
done
target=aarch64-unknown-linux-gnu
rustup target add "$target"
# Burn is built apart from the other builds, for the kernels alone.
export CARGO_TARGET_DIR="${CROSS_TARGET_DIR:-$HOME/.cache/rezero/cross}"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64
# Where the emulator finds the C library, and what tests start a child process with.
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
export REZERO_TEST_RUNNER=qemu-aarch64
tests=(cargo test --locked --release --target "$target" -p rezero-kernels --lib --test kernels)
"${tests[@]}" --no-run
timeout "${NEON_BUDGET:-1800}" "${tests[@]}" -- "$@"
