# Runs with cargo's release profile throughout, so that dependencies are built once.

# List the recipes
default:
    @just --list

# Train ReZero ResNet-20 on CIFAR-10 (downloads it once) and score it on the test split; e.g. `just train-cifar arm=vanilla epochs=10`
train-cifar *ARGS:
    cargo run --release -- train cifar10-resnet20 --run-dir "${RUN_DIR:-runs/train-cifar}" {{ARGS}}
    cargo run --release -- eval "${RUN_DIR:-runs/train-cifar}" --split test

# Continue `just train-cifar` after an interruption; give the same settings
resume-cifar *ARGS:
    cargo run --release -- train cifar10-resnet20 --run-dir "${RUN_DIR:-runs/train-cifar}" --resume {{ARGS}}
    cargo run --release -- eval "${RUN_DIR:-runs/train-cifar}" --split test

# Train a ReZero language model on a file's bytes; e.g. `just train-lm FILE arm=pre-norm`
train-lm FILE *ARGS:
    cargo run --release -- train enwik8-small --text {{FILE}} {{ARGS}}

# Two minutes on built-in images
quickstart:
    cargo run --release -- train quickstart

# Download and verify the data sets
fetch *ARGS:
    cargo run --release -- fetch {{ARGS}}

# Run all tests; REZERO_TEST_DATA adds those on real data
test:
    cargo test --release --workspace

# Format, lints, documentation
check:
    cargo fmt --all -- --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# The pool and the kernels without matrix products under Miri (nightly with miri and rust-src); some ten minutes
miri:
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows" cargo +nightly miri test -p rezero-kernels --lib pool
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows" cargo +nightly miri test -p rezero-kernels --test kernels small::

# Benchmarks: kernels, loaders, training steps, decoding, checkpoints, start-up
bench:
    cargo bench --workspace

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
    python3 crates/rezero-nn/tests/fixtures/generate_mlp.py
