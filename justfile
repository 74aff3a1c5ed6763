# Runs with cargo's release profile throughout, so that dependencies are built once.

# Backends to build in beside Flex, as cargo features: `FEATURES=vulkan,tch just train-cifar --device tch`
features := env("FEATURES", "")
with := if features == "" { "" } else { "--features " + features }

# List the recipes
default:
    @just --list

# Train ReZero ResNet-20 on CIFAR-10 (downloads it once) and score it on the test split; e.g. `just train-cifar scheme=residual epochs=10`
train-cifar *ARGS:
    cargo run --release {{with}} -- train cifar10-resnet20 --run-dir "${RUN_DIR:-runs/train-cifar}" {{ARGS}}
    cargo run --release {{with}} -- eval "${RUN_DIR:-runs/train-cifar}" --split test

# Continue `just train-cifar` after an interruption; give the same settings
resume-cifar *ARGS:
    cargo run --release {{with}} -- train cifar10-resnet20 --run-dir "${RUN_DIR:-runs/train-cifar}" --resume {{ARGS}}
    cargo run --release {{with}} -- eval "${RUN_DIR:-runs/train-cifar}" --split test

# Train a ReZero language model on a file's bytes; e.g. `just train-lm FILE scheme=pre-norm`
train-lm FILE *ARGS:
    cargo run --release {{with}} -- train enwik8-small --text {{FILE}} {{ARGS}}

# About a minute on generated images
quickstart *ARGS:
    cargo run --release {{with}} -- train quickstart {{ARGS}}

# Download and verify the data sets
fetch *ARGS:
    cargo run --release -- fetch {{ARGS}}

# Run all tests; REZERO_TEST_DATA adds those on real data
test:
    cargo test --release --workspace

# The tests that take seconds: sums against closed forms, data, recipes, and short runs of the loop
test-quick:
    cargo test --release --workspace --lib --test data --test kernels --test nn --test train -- {{quick}}

quick := "tests:: attention:: convolution:: edges:: losses:: normalisation:: products:: small:: updates:: \
  loading:: texts:: rng:: contract:: gates:: recipes:: schema:: families:: model:: trainer:: \
  a_run_explains_itself a_run_that_is_made_longer a_run_on_a_file numbers_are_those the_command_writes"

# The tests of kernels, layers and data with debug assertions and overflow checks in those crates alone
test-debug:
    cargo test --release --workspace --test kernels --test nn --test data {{checked}}

checked := "--config profile.release.package.rezero-kernels.debug-assertions=true \
  --config profile.release.package.rezero-kernels.overflow-checks=true \
  --config profile.release.package.rezero-nn.debug-assertions=true \
  --config profile.release.package.rezero-nn.overflow-checks=true \
  --config profile.release.package.rezero-data.debug-assertions=true \
  --config profile.release.package.rezero-data.overflow-checks=true"

# 200 SIGKILLs, and full disks, at random moments of runs of every family with every optimizer: every resumed run equals its undisturbed run
soak KILLS="200":
    REZERO_SOAK_KILLS={{KILLS}} cargo test --release --workspace --test train -- --ignored --nocapture soak::

# A crate outside the workspace trains its own module: killed, resumed, equal, reported
test-outside:
    cargo build --release
    scripts/test-outside.sh

# Training by 2, 3 and 4 processes over MPI against one process, with kills and wrong starts (docs/CLUSTERS.md); installs Open MPI
test-mpi:
    scripts/test-mpi.sh

# CIFAR ResNets from PyTorch and back, scored by both on the CIFAR-10 in DIR; $REZERO_PYTHON is a Python with torch 2.9.1
check-import DIR:
    cargo build --release
    PYTHON="${REZERO_PYTHON:-python3}" scripts/check-import.sh {{DIR}}

# `just test-DEVICE`: what must hold on every backend (docs/BACKENDS.md), built with Flex and that backend.
# FEATURES=ndarray,vulkan,tch builds one binary for several. A program with the feature `conformance` runs the same tests without
# cargo: `rezero conformance --device DEVICE`.

# What must hold on every backend, on Flex; the others likewise
test-flex: (conformance "flex" "flex")
test-ndarray: (conformance "ndarray" "ndarray")
test-wgpu: (conformance "wgpu" "wgpu")
test-vulkan: (conformance "vulkan" "vulkan")
test-tch: (conformance "tch" "tch")
test-cpu: (conformance "cpu" "cpu")
test-cuda: (conformance "cuda" "cuda")

[private]
conformance DEVICE FEATURE:
    REZERO_TEST_DEVICE={{DEVICE}} cargo test --release -p rezero-train --features {{ if features == "" { FEATURE } else { features } }},remote --test conformance -- --test-threads 1

# List the devices and check that they compute what Flex does
devices *ARGS:
    cargo run --release {{with}} -- devices --check {{ARGS}}

# Check, time and train on a GPU within 14 minutes, beside PyTorch, into OUT: `just gpu-suite cuda`; see scripts/gpu-suite.sh
gpu-suite DEVICE OUT="runs/gpu-suite":
    scripts/gpu-suite.sh {{DEVICE}} {{OUT}}

# Format, lints, documentation
check:
    cargo fmt --all -- --check
    cargo clippy --release --workspace --all-targets --features rezero-train/png,rezero-train/conformance -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# The stages of CI (docs/CI.md), and those that do not fit there
ci:
    .ci/run

ci-full:
    scripts/ci-full.sh

# Pack the crates, and type-check crates that use them: docs/RELEASE.md
package:
    scripts/check-consumers.sh

# Type-check for macOS, Windows and Linux on ARM, as far as no C compiler is needed, and the kernels for WebAssembly
check-targets *TARGETS:
    scripts/check-targets.sh {{TARGETS}}

# Instructions of each kernel, counted by valgrind's callgrind, beside benches/guard.json; `just guard --write` writes the table
guard *ARGS:
    python3 benches/guard.py {{ARGS}}

# The kernels' tests on ARM's NEON, under qemu (docs/CI.md); builds Burn once for it
neon *TESTS:
    scripts/neon.sh {{TESTS}}

# The pool, the convolution and the other kernels without matrix products under Miri (nightly with miri and rust-src); some ten minutes
miri:
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows" cargo +nightly miri test -p rezero-kernels --lib -- pool:: conv::
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows" cargo +nightly miri test -p rezero-kernels --test kernels small::

# Feed damaged files to a reader: `just fuzz torch 600`; the targets are in fuzz/targets. Needs nightly, cargo-fuzz and a C++ compiler
fuzz TARGET SECONDS="60":
    scripts/fuzz.sh {{TARGET}} {{SECONDS}}

# Benchmarks: kernels, loaders, training steps, decoding, checkpoints, start-up; `just bench kernels conv` some of them
bench NAME="" *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release
    # The program's profile.
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
    sed -n '/^\[profile.release/,$p' Cargo.toml >"$folder/profile.toml"
    cargo bench --config "$folder/profile.toml" --manifest-path benches/Cargo.toml {{ if NAME == "" { "" } else { "--bench " + NAME } }} -- {{ARGS}}

# CPU seconds of a build from nothing, by crate, and what `cargo test` compiles again: docs/BUILD.md
build-cost *ARGS:
    python3 scripts/build-cost.py {{ARGS}}

# Time rezero and PyTorch in turn and write docs/PERFORMANCE.md (needs Python with torch: $REZERO_PYTHON)
bench-vs-pytorch *ARGS:
    python3 benches/compare.py {{ARGS}}

# Rebuild docs/RESULTS.md's tables and figures from results/records; `just results lm12` one experiment's
results *ARGS:
    cargo build --release
    python3 results/runs.py report {{ARGS}}

# Run the experiments of docs/RESULTS.md again (hours): `just results-run lm12 --cifar DIR --text FILE`
results-run *ARGS:
    cargo build --release
    python3 results/runs.py run {{ARGS}}

# Make the PyTorch fixtures anew (needs Python with torch; see the scripts)
golden:
    python3 crates/rezero-nn/tests/fixtures/generate.py
    python3 crates/rezero-nn/tests/fixtures/generate_transformer.py
    python3 crates/rezero-nn/tests/fixtures/generate_import.py
    python3 crates/rezero-nn/tests/fixtures/generate_import_images.py
    python3 crates/rezero-nn/tests/fixtures/generate_import_odd.py
    python3 crates/rezero-nn/tests/fixtures/generate_mlp.py
    python3 crates/rezero-nn/tests/fixtures/generate_vit.py
    python3 crates/rezero-nn/tests/fixtures/generate_mixer.py
