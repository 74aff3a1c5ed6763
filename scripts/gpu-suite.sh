#!/usr/bin/env bash
# shellcheck disable=SC2317 # `part` calls functions by their names.
# Everything that docs/GPU.md and docs/BACKENDS.md want to know of a GPU, in the order of its worth, within a time:
#
#   scripts/gpu-suite.sh DEVICE OUT
#
# DEVICE is as for --device (cuda, vulkan, …), OUT a directory for the results. Parts that are done are not done again, so that a suite that
# was stopped goes on. `python3 results/gpu.py OUT NAME` then puts what it found into results/gpu/NAME.jsonl, docs/GPU.md and
# docs/BACKENDS.md.
#
# The parts: machine, check, bench-f32, captured (a captured run beside a plain one), pytorch-tf32, plain (each launch alone), bench-bf16, pytorch-bf16, profile,
# train-rezero, train-residual, compiled-tf32, compiled-bf16, conformance. Their limits are beside their calls below.
#
#   REZERO=…       the program; without it, it is built with --features ${FEATURES:-DEVICE},conformance. One without the feature
#                  `conformance` leaves out the conformance suite
#   REZERO_PYTHON=…       Python with torch, to compare with; without it PyTorch is left out
#   DATA=…         CIFAR-10's binary layout, to train on; without it nothing is trained
#   WORKLOADS=…    what is timed (resnet-56,mlp-64,mlp-1000,lm-paper)
#   TRAIN=…        recipe keys of the two runs (cifar10-resnet56's own)
#   CAPTURED=…     further recipe keys of the captured run and its plain twin (enwik8-tiny's own, 100 steps)
#   SECONDS_LEFT=… seconds for all (840): a part that is not done by then is stopped, and those after it are left out
#   SLOWER=…       what the limits of the parts are multiplied by (1), for software Vulkan or a slow machine
#   CACHES=…       a tar.xz of an earlier suite's OUT/caches.tar.xz, which saves the compilation of kernels
set -uo pipefail

if [ $# != 2 ]; then
    sed -n '3,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 1
fi
device=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
features=${FEATURES:-${device%%:*}}
workloads=${WORKLOADS:-resnet-56,mlp-64,mlp-1000,lm-paper}
failed=0

if [ -z "${REZERO:-}" ]; then
    (cd "$root" && cargo build --locked --release --features "$features,conformance") || exit 1
    REZERO=${CARGO_TARGET_DIR:-$root/target}/release/rezero
fi

# The parts run elsewhere.
for name in REZERO REZERO_PYTHON DATA CACHES; do
    [ -n "${!name:-}" ] && export "$name=$(realpath -s "${!name}")"
done
# What was built does not count.
deadline=$((SECONDS + ${SECONDS_LEFT:-840}))

# CubeCL's kernels and choices stay with the results.
mkdir -p "$out/caches"
if [ -n "${CACHES:-}" ] && [ ! -e "$out/caches/cubecl.toml" ]; then
    tar -C "$out/caches" -xJf "$CACHES" || exit 1
fi
printf '[compilation]\ncache = true\n[environment]\npath = "local"\n' >"$out/caches/cubecl.toml"
cd "$out/caches" || exit 1

# part NAME SECONDS COMMAND…: its output goes to OUT/NAME.log, and a mark beside it says that it succeeded.
part() {
    local name=$1 limit=$(($2 * ${SLOWER:-1})) left=$((deadline - SECONDS))
    shift 2
    [ -e "$out/$name.ok" ] && return
    if [ "$left" -lt 10 ]; then
        echo "== $name: left out, no time is left"
        failed=1
        return
    fi
    echo "== $name ($left s are left)"
    local status=0
    timeout -k 10 "$((left < limit ? left : limit))" "$@" >"$out/$name.log" 2>"$out/$name.err" || status=$?
    # A device without a type is a result.
    if [ $status = 0 ] || grep -q "it does not compute in" "$out/$name.err"; then
        touch "$out/$name.ok"
    else
        case $status in
        124 | 137) echo "   stopped after $((left < limit ? left : limit)) s ($out/$name.log has what is done)" ;;
        *) echo "   failed with $status ($out/$name.err): $(grep -v '^ ' "$out/$name.err" | tail -n 1)" ;;
        esac
        failed=1
    fi
}

# results/gpu.py reads the line of the GPU.
machine() {
    echo "date: $(date -I)"
    local commit
    commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null) && echo "commit: $commit"
    uname -a
    lscpu | grep "Model name"
    nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | sed -n '1s/^/gpu: /p'
    nvidia-smi 2>/dev/null || vulkaninfo --summary 2>/dev/null
    "$REZERO" devices "$device"
}
# The lines of a timing also go to one file, which results/gpu.py reads.
bench() { "$REZERO" bench "$workloads" --device "$device" --json "$@" | tee -a "$out/bench.jsonl"; }
torch() {
    "$REZERO_PYTHON" "$root/benches/pytorch.py" "$workloads" --device "${TORCH_DEVICE:-cuda}" --steps 20 "$@" |
        tee -a "$out/bench.jsonl"
}
# A captured run and a plain one, whose losses must agree.
captured() {
    for capture in true false; do
        rm -rf "$out/captured-$capture"
        # shellcheck disable=SC2086
        "$REZERO" train enwik8-tiny data=wiki-like steps=100 log_every=1 eval_every=100 ${CAPTURED:-} "run.capture=$capture" \
            --device "$device" --plain --run-dir "$out/captured-$capture" || return 1
    done
    python3 "$root/results/gpu.py" --agree "$out/captured-true" "$out/captured-false"
}
train() { # SCHEME: continues where a run was stopped.
    local run="$out/resnet56-$1" resume=()
    [ -d "$run/checkpoints" ] && resume=(--resume)
    # shellcheck disable=SC2086
    "$REZERO" train cifar10-resnet56 "scheme=$1" ${TRAIN:-} log_every=44 --device "$device" --plain \
        --data-dir "$DATA" --run-dir "$run" "${resume[@]}" &&
        "$REZERO" eval "$run" --split test
}
export -f machine bench torch captured train
export device workloads root out REZERO REZERO_PYTHON TORCH_DEVICE DATA TRAIN CAPTURED

part machine 20 bash -c machine
part check 90 "$REZERO" devices --check "$device"
# The first steps compile kernels; their time is ms_first of these lines, if the caches were empty.
part bench-f32 240 bash -o pipefail -c "bench --steps 20"
part captured 120 bash -o pipefail -c captured
if [ -n "${REZERO_PYTHON:-}" ]; then
    part pytorch-tf32 90 bash -o pipefail -c "torch --dtype tf32"
fi
part plain 120 bash -o pipefail -c "bench --steps 20 --no-capture"
part bench-bf16 180 bash -o pipefail -c "bench --steps 20 --dtype bf16"
if [ -n "${REZERO_PYTHON:-}" ]; then
    part pytorch-bf16 90 bash -o pipefail -c "torch --dtype bf16"
fi
part profile 90 bash -o pipefail -c "bench --steps 3 --profile"
if [ -n "${DATA:-}" ]; then
    for scheme in rezero residual; do
        part "train-$scheme" 600 bash -o pipefail -c "train $scheme"
    done
fi
if [ -n "${REZERO_PYTHON:-}" ]; then
    part compiled-tf32 180 bash -o pipefail -c "torch --dtype tf32 --compile reduce-overhead"
    part compiled-bf16 180 bash -o pipefail -c "torch --dtype bf16 --compile reduce-overhead"
fi
if "$REZERO" conformance --list >/dev/null 2>&1; then
    part conformance 600 "$REZERO" conformance --device "$device"
else
    echo "== conformance: left out, the program was built without it"
fi

(cd "$out/caches" && tar -cJf ../caches.tar.xz .)
echo "== $(find "$out" -maxdepth 1 -name '*.ok' | wc -l) parts are done; the results are in $out"
exit $failed
