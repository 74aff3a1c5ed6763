#!/usr/bin/env bash
# What does not fit .ci/run: run before a release, after .ci/run. The stages: docs/CI.md.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/rezero/target}"

stage() {
    local name=$1 begun=$SECONDS status=0
    shift
    echo "== $name"
    "$@" || status=$?
    echo "== $name: $((SECONDS - begun)) s, status $status"
    return "$status"
}

stage .ci/run .ci/run
stage consumers scripts/check-consumers.sh
stage targets scripts/check-targets.sh
stage soak env REZERO_SOAK_KILLS=60 cargo test --locked --release --workspace --test train -- --ignored --nocapture soak::
stage "benchmarks, lints" cargo clippy --locked --manifest-path benches/Cargo.toml --all-targets -- -D warnings

# tool PROGRAM CRATE VERSION: installs it from crates.io, with the versions of its own lock file, unless it is here.
tool() {
    local has
    has=$("$1" --version 2>/dev/null || true)
    [ "${has##* }" = "$3" ] || cargo install --locked --quiet --force "$2@$3"
}
# What cargo installs comes before what another package manager did.
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
tool cargo-deny cargo-deny 0.20.2
# Advisories need their database, from GitHub.
stage "licences, sources, versions" cargo deny --locked check bans licenses sources
if git ls-remote -q https://github.com/rustsec/advisory-db HEAD >/dev/null 2>&1; then
    stage advisories cargo deny --locked check advisories
else
    echo "advisories: left out, GitHub is out of reach"
fi
tool typos typos-cli 1.52.0
stage spelling typos

if compgen -G "/usr/share/vulkan/icd.d/*.json" >/dev/null; then
    stage "conformance on wgpu" env REZERO_TEST_DEVICE=wgpu \
        cargo test --locked --release -p rezero-train --features wgpu,remote --test conformance -- --test-threads 1
else
    echo "conformance on wgpu: left out, there is no Vulkan driver (mesa-vulkan-drivers is one in software)"
fi
if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null; then
    stage "kernels on NEON" scripts/neon.sh
else
    echo "kernels on NEON: left out, it needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user"
fi
if rustup run nightly cargo fuzz --version >/dev/null 2>&1; then
    for target in fuzz/targets/*.rs; do
        stage "fuzz, $(basename "$target" .rs)" scripts/fuzz.sh "$(basename "$target" .rs)" 60
    done
else
    echo "fuzz: left out, it needs the nightly toolchain and cargo-fuzz (cargo install --locked cargo-fuzz)"
fi
if rustup run nightly cargo miri --version >/dev/null 2>&1; then
    export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows"
    stage "miri, pool and convolution" cargo +nightly miri test --locked -p rezero-kernels --lib -- pool:: conv::
    stage "miri, kernels" cargo +nightly miri test --locked -p rezero-kernels --test kernels small::
else
    echo "miri: left out, it needs the nightly toolchain with miri and rust-src"
fi
