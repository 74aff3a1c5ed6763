#!/usr/bin/env bash
# Packs the four crates and type-checks them as dependencies of a user's crate, from the packages alone.
set -euo pipefail
cd "$(dirname "$0")/.."

# What is packed is the commit, or with ALLOW_DIRTY=1 the working tree.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
cargo package --locked --workspace --no-verify ${ALLOW_DIRTY:+--allow-dirty}
packages=$CARGO_TARGET_DIR/package
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
patches=""
for crate in kernels nn data train; do
    package=$(ls -t "$packages/rezero-$crate"-*.crate | head -1)
    mkdir "$work/rezero-$crate"
    tar -xf "$package" -C "$work/rezero-$crate" --strip-components 1
    patches+="rezero-$crate = { path = \"$work/rezero-$crate\" }"$'\n'
done

# consumer NAME BURN DEPENDENCY CODE
consumer() {
    local dir=$work/$1
    mkdir -p "$dir/src"
    cat >"$dir/Cargo.toml" <<END
[package]
name = "$1"
version = "0.1.0"
edition = "2024"

[dependencies]
burn = $2
$3

[workspace]

[patch.crates-io]
$patches
END
    echo "$4" >"$dir/src/lib.rs"
    # The versions that the workspace is tested with.
    scripts/lock-as-workspace.sh "$dir"
    echo "== $1: burn = $2, $3"
    cargo check --locked --release --manifest-path "$dir/Cargo.toml"
}

block='pub fn block(device: &burn::tensor::Device) -> rezero_nn::ReZero { rezero_nn::ReZeroConfig::new().init(device) }'
consumer default '"0.22"' 'rezero-nn = "0.1"' "$block"
consumer flex-import '"0.22"' 'rezero-nn = { version = "0.1", features = ["flex", "import"] }' "$block"
consumer no-default-features '{ version = "0.22", default-features = false, features = ["std"] }' \
    'rezero-nn = { version = "0.1", default-features = false }' "$block"
consumer data '{ version = "0.22", default-features = false, features = ["std"] }' \
    'rezero-data = { version = "0.1", default-features = false }' 'pub use rezero_data::cifar10;'
consumer train '{ version = "0.22", default-features = false, features = ["std"] }' \
    'rezero-train = "0.1"' 'pub use rezero_train::fit::Trainer;'
echo "all consumers type-check"
