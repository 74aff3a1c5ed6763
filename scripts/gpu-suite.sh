#!/usr/bin/env bash
# Everything that docs/BACKENDS.md wants to know of a GPU, in one go:
#
#   scripts/gpu-suite.sh DEVICE OUT
#
# DEVICE is as for --device (cuda, vulkan, …), OUT a directory for the results. Parts that are done are not
# done again, so that a suite that was stopped goes on; each part has its own time limit.
#
#   REZERO=…       the program; without it, it is built with --features ${FEATURES:-DEVICE}
#   CONFORMANCE=…  the conformance suite's binary, likewise
#   REZERO_PYTHON=…       Python with torch, to compare with; without it PyTorch is left out
#   DATA=…         CIFAR-10's binary layout, to train on; without it nothing is trained
#   WORKLOADS=…    what is timed (lm-paper,resnet-56)
#   TRAIN=…        recipe keys of the two runs (cifar10-resnet56's own)
#   LIMIT=…        seconds for each part (1800)
set -uo pipefail

if [ $# != 2 ]; then
    sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 1
fi
device=$1 out=$2
cd "$(dirname "$0")/.."
mkdir -p "$out"
features=${FEATURES:-${device%%:*}}
limit=${LIMIT:-1800}
workloads=${WORKLOADS:-lm-paper,resnet-56}
failed=0

if [ -z "${REZERO:-}" ]; then
    cargo build --locked --release --features "$features" || exit 1
    REZERO=${CARGO_TARGET_DIR:-target}/release/rezero
fi

# part NAME COMMAND…: its output goes to OUT/NAME.log, and a mark beside it says that it succeeded.
part() {
    local name=$1
    shift
    [ -e "$out/$name.ok" ] && return
    echo "== $name"
    if timeout -k 10 "$limit" "$@" >"$out/$name.log" 2>&1; then
        touch "$out/$name.ok"
    elif grep -q "it does not compute in" "$out/$name.log"; then
        # A device without a type is a result.
        touch "$out/$name.ok"
    else
        echo "   failed with $? ($out/$name.log): $(tail -n 1 "$out/$name.log")"
        failed=1
    fi
}

conformance() {
    if [ -n "${CONFORMANCE:-}" ]; then
        REZERO_TEST_DEVICE=$device "$CONFORMANCE" --test-threads 1
    else
        REZERO_TEST_DEVICE=$device cargo test --locked --release -p rezero-train --features "$features" \
            --test conformance -- --test-threads 1
    fi
}
export -f conformance
export device features CONFORMANCE

train() { # SCHEME: continues where a run was stopped.
    local run="$out/resnet56-$1" resume=()
    [ -d "$run/checkpoints" ] && resume=(--resume)
    # shellcheck disable=SC2086
    "$REZERO" train cifar10-resnet56 "scheme=$1" ${TRAIN:-} --device "$device" --plain \
        --data-dir "$DATA" --run-dir "$run" "${resume[@]}" &&
        "$REZERO" eval "$run" --split test
}
export -f train
export REZERO DATA TRAIN out

part machine sh -c 'uname -a; lscpu | grep "Model name"; nvidia-smi 2>/dev/null || vulkaninfo --summary 2>/dev/null || true'
part devices "$REZERO" devices
part check "$REZERO" devices --check "$device"
part conformance bash -c conformance
for dtype in f32 bf16; do
    part "bench-$dtype" "$REZERO" bench "$workloads" --device "$device" --dtype "$dtype" --steps 20 --json
done
if [ -n "${REZERO_PYTHON:-}" ]; then
    for dtype in f32 tf32 bf16; do
        part "pytorch-$dtype" "$REZERO_PYTHON" benches/pytorch.py "$workloads" --device "${TORCH_DEVICE:-cuda}" --dtype $dtype --steps 20
        part "compiled-$dtype" "$REZERO_PYTHON" benches/pytorch.py "$workloads" --device "${TORCH_DEVICE:-cuda}" --dtype $dtype --steps 20 --compile
    done
fi
if [ -n "${DATA:-}" ]; then
    for scheme in rezero residual; do
        part "train-$scheme" bash -c "train $scheme"
    done
fi

echo "== $(find "$out" -name '*.ok' | wc -l) parts are done; the results are in $out"
exit $failed
