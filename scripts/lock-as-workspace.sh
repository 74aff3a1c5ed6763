#!/usr/bin/env bash
# Gives the crate in DIR, which is outside the workspace, the workspace's lock file:
#
#   scripts/lock-as-workspace.sh DIR
#
# Cargo adds the crate itself and drops what it does not use. A package that the workspace does not have is an error, so
# that `cargo build --locked` in DIR builds nothing that was not locked here.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

cp "$root/Cargo.lock" "$1/Cargo.lock"
cargo update --quiet --workspace --manifest-path "$1/Cargo.toml"
if grep '^checksum' "$1/Cargo.lock" | grep -vxFf "$root/Cargo.lock"; then
    echo "$1 depends on packages that the workspace's Cargo.lock does not have: those with these checksums" >&2
    exit 1
fi
