#!/usr/bin/env python3
"""Run `rezero bench` and benches/pytorch.py in turn and write docs/PERFORMANCE.md and docs/performance.svg.

    just bench-vs-pytorch [WORKLOADS] [--rounds N] [--steps N] [--threads N] [--compile [N]] [--sets NAMES] [--all] [--print]

A round is one run of each program on each workload, in their own processes, one after the other (A B A B …), for each of the
machine's instruction sets: AVX-512 and AVX2 where it has both (--sets AVX2 takes one). A workload's ratio is PyTorch's median step over
rezero's within a round: above 1, rezero is faster. --compile adds torch.compile, of training steps, in the
first N rounds or in all: it compiles again in each, for minutes. Text of docs/PERFORMANCE.md between `<!-- by hand -->` and `<!-- end -->` is kept; --print writes no file. PyTorch's interpreter is $REZERO_PYTHON
(default python3); cargo builds rezero unless $REZERO_BIN names a binary.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ("mlp-64,mlp-1000,lm-small,resnet-20,resnet-56,decode,decode:batch=8,latency,latency:batch=8,"
           "latency:batch=64")
TARGETS = {"mlp-64": 2.0, "mlp-1000": 2.0, "mlp-10000": 2.0, "lm-small": 1.5, "resnet-20": 1.8, "resnet-56": 1.8,
           "decode": 5.0, "latency": 5.0}
# What makes each program use AVX2 where the processor has AVX-512, and torch.compile too. Code that torch.compile has cached for AVX-512
# crashes under it.
AVX2 = {"REZERO_SIMD": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / "torchinductor-avx2")}


def run(command, more):
    # The caller's own variables would choose the set.
    others = {name: value for name, value in os.environ.items() if name not in AVX2}
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**others, **more})
    except OSError as e:
        sys.exit(f"error: cannot start {command[0]}: {e.strerror}; $REZERO_PYTHON and $REZERO_BIN say what to start")
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}")
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        sys.exit(f"error: {' '.join(command)} printed no result")


def split(workloads):
    names = []
    for item in workloads.split(","):
        if names and "=" in item and ":" not in item:
            names[-1] += "," + item
        else:
            names.append(item)
    # Each once, in their order.
    return list(dict.fromkeys(names))


def text(command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def instruction_sets():
    """The machine's sets by name, each with the environment that chooses it."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        flags = []
    if "avx512f" in flags:
        return {"AVX-512": {}, "AVX2": AVX2}
    return {"AVX2" if "avx2" in flags else platform.machine(): {}}


def trains(name):
    return not name.startswith(("decode", "latency"))


def measure(names, rounds, options, sets, ours, theirs, compiled):
    """By instruction set and workload the results of rezero, PyTorch and torch.compile; by set the machine's peaks, the best of
    those printed before and after the rounds."""
    results = {of: {name: ([], [], []) for name in names} for of in sets}
    peaks = [*theirs, "--peaks", *options[2:]]
    best = {of: run(peaks, more) for of, more in sets.items()}
    for i in range(rounds):
        for name in names:
            for of, more in sets.items():
                a = run([*ours, "bench", name, "--json", *options], more)
                b = run([*theirs, name, *options], more)
                results[of][name][0].append(a)
                results[of][name][1].append(b)
                said = f"round {i + 1} {name} {of}: rezero {a['ms_median']:.2f} ms, PyTorch {b['ms_median']:.2f} ms"
                if i < compiled and trains(name):
                    c = run([*theirs, name, "--compile", *options], more)
                    results[of][name][2].append(c)
                    said += f", compiled {c['ms_median']:.2f} ms"
                print(f"{said}, ratio {b['ms_median'] / a['ms_median']:.2f}", flush=True)
        # Other work on the machine, and a slow phase of it, can only lower them.
        for of, more in sets.items():
            now = run(peaks, more)
            best[of] = {key: max(value, now[key]) for key, value in best[of].items()}
    return results, best


def rows(results):
    """A row for each workload of one instruction set."""
    for name, (a, b, c) in results.items():
        ratios = [y["ms_median"] / x["ms_median"] for x, y in zip(a, b)]
        row = {
            "name": name,
            "ours": statistics.median(x["ms_median"] for x in a),
            "theirs": statistics.median(y["ms_median"] for y in b),
            "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
            "our_mb": max(x["peak_rss_mb"] or 0 for x in a), "their_mb": max(y["peak_rss_mb"] for y in b),
            "items": statistics.median(x["items_per_s"] for x in a),
            "gflop": b[0].get("gflop"), "mb_moved": b[0].get("mb_moved"),
        }
        if c:
            row["compiled"] = statistics.median(y["ms_median"] for y in c)
            # zip ends with the rounds in which it ran.
            row["of_compiled"] = statistics.median(y["ms_median"] / x["ms_median"] for x, y in zip(a, c))
        yield row


def table(rows):
    compiled = any("compiled" in row for row in rows)
    more = [" compiled, ms | ratio |", " -: | -: |"] if compiled else ["", ""]
    out = ["| workload | rezero, ms | PyTorch, ms | ratio | over the rounds | target |" + more[0] + " rezero, MB | PyTorch, MB |",
           "| - | -: | -: | -: | - | -: |" + more[1] + " -: | -: |"]
    for r in rows:
        target = TARGETS.get(r["name"])
        more = ""
        if compiled:
            more = f" {r['compiled']:.2f} | {r['of_compiled']:.2f} |" if "compiled" in r else " | |"
        out.append(f"| {r['name']} | {r['ours']:.2f} | {r['theirs']:.2f} | **{r['ratio']:.2f}** | "
                   f"{r['low']:.2f}–{r['high']:.2f} | {target or ''} |{more} {r['our_mb']} | {r['their_mb']} |")
    return "\n".join(out)


def roofline(rows, peaks):
    out = ["| workload | GFLOP | MB moved | floor, ms | bound by | rezero reaches | PyTorch reaches |",
           "| - | -: | -: | -: | - | -: | -: |"]
    for r in rows:
        # Of a tiny step it rounds to 0; inference has none.
        if r["gflop"] is None:
            continue
        compute, memory = 1e3 * r["gflop"] / peaks["gflop_per_s"], r["mb_moved"] / peaks["gb_per_s"]
        floor = max(compute, memory)
        out.append(f"| {r['name']} | {r['gflop']:.1f} | {r['mb_moved']:.0f} | {floor:.1f} | "
                   f"{'products' if compute > memory else 'memory'} | {floor / r['ours']:.0%} | "
                   f"{floor / r['theirs']:.0%} |")
    return "\n".join(out)


def svg(rows):
    # Names of shapes are long.
    left = max([150] + [16 + 7 * len(r["name"]) for r in rows])
    width, bar, top = 570 + left, 26, 34
    scale = (width - left - 70) / max([r["high"] for r in rows] + [2.0])
    height = top + bar * len(rows) + 24
    part = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
            f'font-size="12"><rect width="100%" height="100%" fill="white"/>',
            f'<text x="{left}" y="18">PyTorch\'s time / rezero\'s: median and range over the rounds</text>']
    for i, r in enumerate(rows):
        y = top + i * bar
        part.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(r["name"])}</text>')
        part.append(f'<rect x="{left}" y="{y + 2}" width="{r["ratio"] * scale:.1f}" height="16" fill="#4c78a8"/>')
        low, high = left + r["low"] * scale, left + r["high"] * scale
        part.append(f'<path d="M{low:.1f} {y + 10}H{high:.1f}M{low:.1f} {y + 6}v8M{high:.1f} {y + 6}v8" '
                    'stroke="black" fill="none"/>')
        if r["target"]:
            x = left + r["target"] * scale
            part.append(f'<path d="M{x:.1f} {y}v20" stroke="#e45756" stroke-width="2"/>')
        part.append(f'<text x="{high + 6:.1f}" y="{y + 14}">{r["ratio"]:.2f}</text>')
    x = left + scale
    part.append(f'<path d="M{x:.1f} {top}V{height - 22}" stroke="gray" stroke-dasharray="3"/>')
    part.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">1: equal; red: target</text></svg>')
    return "\n".join(part) + "\n"


def write(by_set, peaks, args):
    path = ROOT / "docs" / "PERFORMANCE.md"
    by_hand = ""
    if path.exists() and "<!-- by hand -->" in path.read_text():
        by_hand = path.read_text().split("<!-- by hand -->")[1].split("<!-- end -->")[0].strip("\n")
    commit = text(["git", "rev-parse", "--short", "HEAD"])
    dirty = " and uncommitted changes" if text(["git", "status", "--porcelain", "-uno"]) else ""
    version = args.version
    threads = f", {args.threads} threads" if args.threads else ""
    compiled = (f"\nCompiled is torch.compile with its defaults, in {min(args.compile, args.rounds)} of the rounds; its ratio is beside it.\n"
                if args.compile else "")
    tables = "\n\n".join(f"### {of}\n\n{table(rows)}" for of, rows in by_set.items())
    floors = "\n\n".join(f"### {of}: {peaks[of]['gflop_per_s']} GFLOP/s, {peaks[of]['gb_per_s']} GB/s\n\n{roofline(rows, peaks[of])}"
                         for of, rows in by_set.items())
    path.write_text(f"""# Performance on the CPU, beside PyTorch

Written by `just bench-vs-pytorch {args.command}`: benches/compare.py runs `rezero bench` and benches/pytorch.py
in turn, {args.rounds} rounds of {args.steps} timed steps. {datetime.date.today()}, commit {commit}{dirty}; {cpu()},
{os.cpu_count()} cores{threads}; {version["ours"]} (flex, default features); {version["theirs"]}; f32, generated inputs, seed 0.

A training step is forward, loss, backward and the optimizer's update; it ends when the loss has been read. A step of
`decode` writes 128 bytes (or `length`) greedily, of each of `batch` texts, from an empty cache, after a prompt of one byte (or
`prompt`) that is read in one pass; a step of `latency` classifies one image (or `batch`).
Milliseconds are the median of the rounds' medians. The ratio is PyTorch's time over rezero's within a round: its median
and its range over the rounds. The target is the ratio that the project aims for. Megabytes are the largest peak of a process.
AVX2 on a processor with AVX-512 is forced by `REZERO_SIMD=avx2`; Burn's own operations keep AVX-512. PyTorch has
`ATEN_CPU_CAPABILITY=avx2`, `ONEDNN_MAX_CPU_ISA=AVX2` and `MKL_ENABLE_INSTRUCTIONS=AVX2`.
Its products come from MKL, which takes AVX2
on AMD processors whatever the variables say; the two peaks show it. A ratio in a table is not the quotient of the columns beside it: the columns are medians over the rounds, and a speed that changes between rounds
moves them by a third.
{compiled}
{tables}

![ratios](performance.svg)

## Roofline

PyTorch measured the machine before the rounds and after each, with each instruction set; the best figures count, of a product of
2048 × 2048 matrices and of a copy. The floor of a step is the larger of

    FLOP / peak,   FLOP  = 2 · Σ weights · places · 3 + 12 · layers · batch · d_model · T (T + 1) / 2
    MB / bandwidth,  MB  = 4 bytes · parameters · (8; Adam: 10)

Σ is over linear layers and convolutions; `places` are the rows or output pixels that the weights are applied to. The
factor 3 counts forward, input gradient and weight gradient; it is 2 for the layer on the images. It counts the multiplications of the direct
sum; rezero's convolutions with three rows of weights take half of them. The second term is causal
attention over T positions, without the masked half. MB counts memory traffic: the forward and the backward pass each read
a parameter once, its gradient is written and read, and the update reads and writes the parameter and each number of its
optimizer state. Activations are not counted.

The floor is an estimate, not a bound: PyTorch's product does not reach the hardware's peak, and the machine's speed may
change during the run. A step whose own products are faster, or that runs while the machine is faster, can reach more than 100 %.

{floors}

<!-- by hand -->
{by_hand}
<!-- end -->
""")
    several = len(by_set) > 1
    bars = [{**row, "name": f"{row['name']}, {of}" if several else row["name"], "target": TARGETS.get(row["name"])}
            for of, rows in by_set.items() for row in rows]
    (ROOT / "docs" / "performance.svg").write_text(svg(bars))
    print(tables)
    print(f"wrote {path.relative_to(ROOT)}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("workloads", nargs="?", default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, help="threads of both programs")
    parser.add_argument("--compile", nargs="?", type=int, const=sys.maxsize, default=0, metavar="N",
                        help="torch.compile as well, in the first N rounds")
    parser.add_argument("--sets", help="instruction sets, separated by commas")
    parser.add_argument("--print", action="store_true", help="print the table, write no file")
    parser.add_argument("--all", action="store_true", help="mlp-10000 as well: PyTorch takes 17 GB for it")
    args = parser.parse_args()
    if min(args.rounds, args.steps) < 1 or args.threads is not None and args.threads < 1 or args.compile < 0:
        parser.error("--rounds, --steps and --threads are from 1 on, --compile from 0 on")
    args.command = " ".join(sys.argv[1:])
    names = split(args.workloads) + (["mlp-10000"] if args.all else [])
    binary = os.environ.get("REZERO_BIN")
    if not binary:
        subprocess.run(["cargo", "build", "--release"], cwd=ROOT, check=True)
        meta = json.loads(text(["cargo", "metadata", "--format-version=1", "--no-deps"]))
        binary = str(Path(meta["target_directory"]) / "release" / "rezero")
    theirs = [os.environ.get("REZERO_PYTHON", "python3"), "benches/pytorch.py"]
    threads = ["--threads", str(args.threads)] if args.threads else []
    options = ["--steps", str(args.steps), *threads]
    sets = instruction_sets()
    if args.sets is not None:
        unknown = set(args.sets.split(",")) - set(sets)
        if unknown:
            parser.error(f"--sets: this machine has {', '.join(sets)}")
        sets = {of: sets[of] for of in args.sets.split(",")}
    results, peaks = measure(names, args.rounds, options, sets, [binary], theirs, args.compile)
    first = next(iter(next(iter(results.values())).values()))
    args.version = {"ours": first[0][0]["framework"], "theirs": first[1][0]["framework"]}
    by_set = {of: list(rows(of_set)) for of, of_set in results.items()}
    if args.print:
        for of, of_set in by_set.items():
            print(f"{of}\n\n{table(of_set)}\n")
    else:
        write(by_set, peaks, args)


if __name__ == "__main__":
    main()
