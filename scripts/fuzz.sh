#!/usr/bin/env bash
# Feeds damaged files to a reader: scripts/fuzz.sh TARGET SECONDS. A file that breaks it is put into
# fuzz/artifacts/TARGET. The seeds in fuzz/corpus are read and not added to.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$1 seconds=${2:-60}
# Instrumented crates are built apart from the others. The sanitizers are off: unsafe code is in the kernels alone,
# which Miri checks.
export CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-$HOME/.cache/rezero/fuzz}"
# Files in memory, where there is such a file system, are read more often.
memory=/dev/shm
[ -d "$memory" ] || memory=/tmp
TMPDIR=$(mktemp -d -p "$memory" rezero-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
mkdir "$TMPDIR/found"
cargo +nightly fuzz run --release --sanitizer none "$target" "$TMPDIR/found" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -max_len=8192 -print_final_stats=1
