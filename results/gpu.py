#!/usr/bin/env python3
"""The timings of a GPU, from scripts/gpu-suite.sh to docs/GPU.md.

    python3 results/gpu.py OUT NAME             adds the lines of OUT/bench.jsonl to results/gpu/NAME.jsonl, and writes the tables
    python3 results/gpu.py                      writes the tables of docs/GPU.md again
    python3 results/gpu.py --agree RUN RUN      fails if the losses of two runs differ by more than 0.5 % in the first ten rows

A line is one of `rezero bench --json` or of benches/pytorch.py, with the GPU, its driver, the date, the commit and the number of the
measurement.
"""

import argparse
import datetime
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES = ROOT / "results" / "gpu"
PAGE = ROOT / "docs" / "GPU.md"
BEGIN, END = "<!-- timings -->", "<!-- end -->"
# As in docs/BACKENDS.md for products in TF32; rounding grows with the steps.
TOLERANCE = 5e-3


def said(*words):
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def measured(out, name):
    """The GPU, its driver and the day, as the suite has noted them where it ran."""
    found = {"gpu": name, "driver": "", "date": datetime.date.today().isoformat()}
    for line in (out / "machine.log").read_text().splitlines():
        if line.startswith("gpu: "):
            found["gpu"], found["driver"] = line.removeprefix("gpu: ").rsplit(", ", 1)
        elif line.startswith("date: "):
            found["date"] = line.removeprefix("date: ")
        elif "Driver Version:" in line:
            found["driver"] = line.split("Driver Version:")[1].split()[0]
    return found


def add(out, name):
    """The suite's lines, with where and when they were measured."""
    file = LINES / f"{name}.jsonl"
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    about = measured(out, name) | {
        "run": 1 + max((row["run"] for row in known), default=0),
        "commit": said("git", "rev-parse", "--short", "HEAD"),
    }
    # A part that was stopped and repeated has its lines twice, and so has a second call.
    seen = [{key: row[key] for key in row.keys() - about.keys()} for row in known]
    rows = []
    for line in dict.fromkeys((out / "bench.jsonl").read_text().splitlines()):
        if json.loads(line) not in seen:
            rows.append(about | json.loads(line))
    LINES.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in known + rows))


def table(rows):
    """A row for each workload and type: the newest timing of each program, and its ratio."""
    newest = {}
    for row in rows:
        ours = row["framework"].startswith("rezero")
        if ours and "profile" in row:
            continue
        kind = ("captured" if row.get("captured") else "plain") if ours else row.get("mode", "eager")
        newest[row["workload"], "bf16" if row["dtype"] == "bf16" else "f32", kind] = row
    lines = [
        "| workload | type | rezero, captured | each launch alone | PyTorch, eager | ratio | reduce-overhead | ratio | first step, s |",
        "| - | - | -: | -: | -: | -: | -: | -: | -: |",
    ]
    for name, dtype in dict.fromkeys((name, dtype) for name, dtype, _ in newest):
        own = newest.get((name, dtype, "captured"))
        if own is None:
            continue

        def ms(kind):
            row = newest.get((name, dtype, kind))
            return f"{row['ms_median']:.2f}" if row else ""

        def ratio(kind):
            row = newest.get((name, dtype, kind))
            if row is None:
                return ""
            mark = "" if row["run"] == own["run"] else " *"
            return f"{row['ms_median'] / own['ms_median']:.2f}{mark}"

        cells = [name, dtype, ms("captured"), ms("plain"), ms("eager"), ratio("eager"), ms("reduce-overhead"), ratio("reduce-overhead")]
        lines.append("| " + " | ".join([*cells, f"{own['ms_first'] / 1e3:.1f}"]) + " |")
    return "\n".join(lines)


def write():
    parts = []
    for file in sorted(LINES.glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        last = rows[-1]
        commits = " and ".join(dict.fromkeys(row["commit"] for row in rows if row["commit"]))
        torch = next((row["framework"] for row in reversed(rows) if row["framework"].startswith("pytorch")), "no PyTorch")
        driver = f", driver {last['driver']}" if last["driver"] else ""
        head = f"{last['gpu']}{driver}, {last['date']}, commit {commits}; {torch}."
        parts.append(f"{head} Lines: results/gpu/{file.name}\n\n{table(rows)}")
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + "\n" + "\n\n".join(parts) + "\n" + END + after)


def agree(runs):
    """Compares the losses of two runs, step by step."""
    losses = []
    for run in runs:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if row["split"] == "train"])
    apart = [abs(a / b - 1) for a, b in zip(*losses, strict=True)]
    print(f"{len(apart)} steps, largest relative difference of a loss {max(apart):.1e}, of the first ten {max(apart[:10]):.1e}")
    return max(apart[:10]) <= TOLERANCE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agree", nargs=2, type=pathlib.Path, metavar="RUN")
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    parser.add_argument("name", nargs="?")
    args = parser.parse_args()
    if args.agree:
        sys.exit(0 if agree(args.agree) else 1)
    if args.out and not args.name:
        parser.error("give NAME, the name of the GPU")
    if args.out:
        add(args.out, args.name)
    write()
