#!/usr/bin/env bash
# A crate outside the workspace (examples/outside) trains its own module on its own data. Killed with
# SIGKILL and resumed, it has the rows and the weights of a run that nobody disturbed; `rezero report`
# shows both. Needs `cargo build --release` first; prints one line for each thing shown.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

# The workspace's versions and profile, so that its builds serve here too.
scripts/lock-as-workspace.sh examples/outside
sed -n '/^\[profile.release/,$p' Cargo.toml >"$work/profile.toml"
cargo build --locked --release --config "$work/profile.toml" --manifest-path examples/outside/Cargo.toml
outside=$CARGO_TARGET_DIR/release/outside
steps=${STEPS:-1200}

"$outside" "$work/whole" "$steps" 2>"$work/log"
echo "undisturbed: $(wc -l <"$work/whole/metrics.jsonl") rows"

newest() { { ls "$1/checkpoints" 2>/dev/null || true; } | sed 's/step-//' | sort -n | tail -1; }
kills=0
for at in 60 300 700; do
    "$outside" "$work/killed" "$steps" 2>>"$work/log" &
    pid=$!
    # Killed wherever it is once its checkpoint of that step is there.
    while kill -0 "$pid" 2>/dev/null; do
        now=$(newest "$work/killed")
        if [ "${now:-0}" -ge "$at" ]; then
            kill -9 "$pid" && kills=$((kills + 1))
            break
        fi
        sleep 0.005
    done
    wait "$pid" 2>/dev/null || true
done
[ "$kills" -ge 1 ] || { echo "no run was killed before its end: give more STEPS"; exit 1; }
"$outside" "$work/killed" "$steps" 2>>"$work/log"

python3 - "$work" <<'PYTHON'
import json, pathlib, sys

work = pathlib.Path(sys.argv[1])
clock = {"seconds", "items_per_s", "warm_up_s"}


def rows(run):
    lines = (work / run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def state(run):
    newest = max((work / run / "checkpoints").iterdir(), key=lambda p: int(p.name.removeprefix("step-")))
    found = json.loads((newest / "state.json").read_text())
    found.pop("metrics_bytes")
    return newest.name, found


assert rows("whole") == rows("killed"), "the rows differ"
assert state("whole") == state("killed"), "the states differ"
PYTHON
echo "killed $kills times with SIGKILL and resumed: rows and state equal, bit for bit"

"$outside" "$work/longer" 200 2>>"$work/log"
"$outside" "$work/longer" "$steps" 2>>"$work/log"
cmp <(sed 's/,"items_per_s.*//' "$work/longer/metrics.jsonl" | tail -1) <(sed 's/,"items_per_s.*//' "$work/whole/metrics.jsonl" | tail -1)
echo "200 steps, made $steps by run.steps: the same last row"

"$CARGO_TARGET_DIR/release/rezero" report "whole=$work/whole" "killed=$work/killed" --out "$work/report" --title "A crate outside"
ls "$work/report"
