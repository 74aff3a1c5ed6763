#!/usr/bin/env python3
"""What scripts/gpu-suite.sh found on a GPU, to docs/GPU.md and docs/BACKENDS.md.

    python3 results/gpu.py OUT NAME             adds the lines of OUT/bench.jsonl, and what the check and the conformance suite said, to
                                                results/gpu/NAME.jsonl, and writes the tables
                                                of docs/GPU.md and docs/BACKENDS.md
    python3 results/gpu.py                      writes the tables of both pages again
    python3 results/gpu.py --agree RUN RUN      fails if the losses of two runs differ by more than 0.5 % in the first ten rows

A line is one of `rezero bench --json` or of benches/pytorch.py, or the end of a part of the suite (`part`), with the GPU, its driver, the date, the commit and the number of the
measurement.
"""

import argparse
import datetime
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES = ROOT / "results" / "gpu"
PAGE = ROOT / "docs" / "GPU.md"
BACKENDS = ROOT / "docs" / "BACKENDS.md"
TIMINGS, CHECKS, END = "<!-- timings -->", "<!-- gpus -->", "<!-- end -->"
# As in docs/BACKENDS.md for products in TF32; rounding grows with the steps.
TOLERANCE = 5e-3


def said(*words):
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def measured(out, name):
    """The GPU, its driver, the day and the commit, as the suite has noted them where it ran."""
    here = said("git", "rev-parse", "--short", "HEAD")
    found = {"gpu": name, "driver": "", "date": datetime.date.today().isoformat(), "commit": here}
    log = out / "machine.log"
    for line in log.read_text().splitlines() if log.exists() else []:
        if line.startswith("gpu: "):
            found["gpu"], _, found["driver"] = line.removeprefix("gpu: ").partition(", ")
        elif line.startswith(("date: ", "commit: ")):
            key, value = line.split(": ", 1)
            found[key] = value
        elif "Driver Version:" in line:
            found["driver"] = line.split("Driver Version:")[1].split()[0]
    return found


def parts(out):
    """The ends of the check and of the conformance suite, as far as they came."""
    ends = {
        "check": r"largest error +(?P<error>[^ ,]+), allowed (?P<allowed>[^ :]+): (?P<result>.+)",
        "conformance": r"test result: (?P<result>\w+)\. (?P<passed>\d+) passed; (?P<failed>\d+) failed; .* finished in (?P<seconds>[\d.]+) s",
    }
    for part, end in ends.items():
        log = out / f"{part}.log"
        text = log.read_text() if log.exists() else ""
        for found in re.finditer(end, text):
            device = re.search(r"running \d+ tests? on (\S+)", text) if part == "conformance" else re.match(r"\S+", text)
            yield {"part": part, "device": device[device.lastindex or 0] if device else ""} | found.groupdict()


def add(out, name):
    """The suite's lines, with where and when they were measured."""
    file = LINES / f"{name}.jsonl"
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    about = measured(out, name) | {
        "run": 1 + max((row["run"] for row in known), default=0),
    }
    # A part that was stopped and repeated has its lines twice, and so has a second call for one suite.
    same = [row for row in known if all(row.get(key) == about[key] for key in ("gpu", "driver", "date", "commit"))]
    seen = [{key: row[key] for key in row.keys() - about.keys()} for row in same]
    lines = out / "bench.jsonl"
    new = []
    for line in dict.fromkeys(lines.read_text().splitlines()) if lines.exists() else []:
        try:
            new.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{lines}: a line that was cut is left out: {line[:60]}", file=sys.stderr)
    rows = [about | row for row in new + list(parts(out)) if row not in seen]
    if not rows:
        sys.exit(f"{out} has nothing that results/gpu/{name}.jsonl does not have")
    LINES.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in known + rows))


def table(rows):
    """A row for each workload and type: the newest timing of each program, its ratio and its memory, and the launches of our step."""
    newest = {}
    for row in rows:
        ours = row["framework"].startswith("rezero")
        if ours and "profile" in row:
            kind = "profile"
        else:
            kind = ("captured" if row.get("captured") else "plain") if ours else row.get("mode", "eager")
        newest[row["workload"], "f32" if row["dtype"] == "tf32" else row["dtype"], kind] = row
    lines = [
        "| workload | type | rezero, captured | each launch alone | PyTorch, eager | ratio | reduce-overhead | ratio | launches | memory, MB | PyTorch's | first step, s |",
        "| - | - | -: | -: | -: | -: | -: | -: | -: | -: | -: | -: |",
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
        profile = newest.get((name, dtype, "profile"))
        cells.append(str(profile["profile"]["launches"]) if profile else "")
        for kind in ("captured", "eager"):
            row = newest.get((name, dtype, kind), {})
            cells.append(str(row.get("gpu_mb", "")))
        lines.append("| " + " | ".join([*cells, f"{own['ms_first'] / 1e3:.1f}"]) + " |")
    return "\n".join(lines)


def checks(rows):
    """A row for each device: the newest check and the newest run of the conformance suite."""
    newest = {}
    for row in sorted(rows, key=lambda row: (row["date"], row["run"])):
        newest.setdefault((row["file"], row["gpu"], row["device"]), {})[row["part"]] = row
    lines = ["| lines in results/gpu | GPU | `--device` | check: largest error | suite | date, commit |", "| - | - | - | -: | - | - |"]
    for (file, gpu, device), found in newest.items():
        check, suite = found.get("check"), found.get("conformance")
        error = f"{check['error']} of {check['allowed']}: {check['result']}" if check else ""
        passed = f"{suite['passed']} passed, {suite['failed']} failed, {suite['seconds']} s" if suite else ""
        dates = dict.fromkeys(f"{row['date']}, {row['commit']}" for row in found.values())
        lines.append(f"| {file} | {gpu} | `{device}` | {error} | {passed} | {'; '.join(dates)} |")
    return "\n".join(lines) if newest else "None yet: the check of `cuda` above was a call of its own."


def put(page, begin, text):
    """Writes the text between the marks of a page."""
    before, rest = page.read_text().split(begin)
    _, after = rest.split(END, 1)
    page.write_text(before + begin + "\n" + text + "\n" + END + after)


def write():
    timings, ends = [], []
    for file in sorted(LINES.glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        ends += [row | {"file": file.name} for row in rows if "part" in row]
        rows = [row for row in rows if "part" not in row]
        if not rows:
            continue
        last = rows[-1]
        commits = " and ".join(dict.fromkeys(row["commit"] for row in rows if row["commit"]))
        torch = next((row["framework"] for row in reversed(rows) if row["framework"].startswith("pytorch")), "no PyTorch")
        driver = f", driver {last['driver']}" if last["driver"] else ""
        head = f"{last['gpu']}{driver}, {last['date']}, commit {commits}; {torch}."
        timings.append(f"{head} Lines: results/gpu/{file.name}\n\n{table(rows)}")
    put(PAGE, TIMINGS, "\n\n".join(timings))
    put(BACKENDS, CHECKS, checks(ends))


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
    if args.out and not re.fullmatch(r"[\w.-]+", args.name or ""):
        parser.error("give NAME, the name of the GPU, of letters, digits, dots and dashes")
    if args.out and not args.out.is_dir():
        parser.error(f"{args.out} is no directory of scripts/gpu-suite.sh")
    if args.out:
        add(args.out, args.name)
    write()
