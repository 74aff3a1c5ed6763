#!/usr/bin/env bash
# Type-checks the crates for other platforms, with the features that need no C compiler for them: without downloads (TLS)
# and without the allocator mimalloc. For WebAssembly, the kernels alone, with vectors of 128 bits. Linking is not tried.
set -euo pipefail
cd "$(dirname "$0")/.."

# Warnings of our own crates are errors: no other build has these features.
export RUSTFLAGS="-D warnings"
targets=("$@")
[ $# -gt 0 ] || targets=(aarch64-apple-darwin x86_64-pc-windows-gnu aarch64-unknown-linux-gnu wasm32-wasip1)
for target in "${targets[@]}"; do
    rustup target add "$target"
    echo "== $target"
    if [[ $target == wasm32-* ]]; then
        RUSTFLAGS="$RUSTFLAGS -C target-feature=+simd128" cargo check --locked --target "$target" -p rezero-kernels --features flex
        continue
    fi
    cargo check --locked --target "$target" -p rezero-train --no-default-features --features flex
    cargo check --locked --target "$target" -p rezero-nn --features flex,train,jacobian,import,schema
done
