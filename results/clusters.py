#!/usr/bin/env python3
"""Measures training by several processes on this machine, fits a model of a step's time to it, and writes both into docs/CLUSTERS.md.

    python3 results/clusters.py measure       to results/records/clusters.json: ten minutes of a quiet machine, as root
    python3 results/clusters.py report        the tables of docs/CLUSTERS.md and docs/clusters.svg

`measure` needs a `rezero` with the feature `mpi` ($REZERO) and scripts/two-hosts.sh's tools. The model:

    step = compute + sum
    sum  = 2 latency + 2 (n - 1) message + 2 (n - 1)/n w P / bandwidth + P add

n ranks, P numbers of w bytes. `latency` is that of one message, `message` the time that a rank spends on each, `add` the time per number to
copy and add. `compute` is a rank's share alone, on one thread, with the optimizer's update; where ranks share cores, times their number.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORD = ROOT / "results" / "records" / "clusters.json"
PAGE = ROOT / "docs" / "CLUSTERS.md"
FIGURE = ROOT / "docs" / "clusters.svg"
REZERO = os.environ.get("REZERO", str(ROOT / "target" / "release" / "rezero"))
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe"]
HOSTS = ["bash", str(ROOT / "scripts" / "two-hosts.sh"), "mpirun"]
CORES = 2
ONE_THREAD = {"RAYON_NUM_THREADS": "1"}
# Recipe, its batch, and what keeps a run short. A step has the same work each time.
RUNS = {
    "enwik8-small": ("enwik8-small data.set=wiki-like steps=10 log_every=1 eval_every=10 valid_items=2000 schedule=constant".split(), 8),
    "cifar10-resnet56": ("cifar10-resnet56 data.set=shapes run.steps=10 log_every=1 valid_items=128".split(), 128),
}
# The first steps of a process warm up.
WARM = 3
ROUNDS = 3


def run(command, environment=None):
    environment = os.environ | ONE_THREAD | (environment or {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


def sums(ranks, launcher=MPIRUN, environment=None):
    """The times of sums: `{numbers, reduce, ms}` each."""
    out = run([*launcher, "-n", str(ranks), REZERO, "devices", "--check", "--mpi", "--json"], environment)
    return json.loads(out)["sums"]


def step(words, ranks=1, launcher=MPIRUN, environment=None):
    """Seconds of a step, the share of communication, and the bytes that rank 0 sends in it."""
    begin = [*launcher, "-n", str(ranks)] if ranks > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / "run"
        run([*begin, REZERO, "train", *words, "--plain", "--run-dir", str(place)], environment)
        rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "train"][WARM:]
    return {
        "ms": 1e3 * statistics.median(row["items"] / row["items_per_s"] for row in rows),
        "share": statistics.median(row.get("ranks", {}).get("share", 0.0) for row in rows),
        "bytes": rows[-1].get("ranks", {}).get("bytes", 0),
    }


def best(words, **how):
    """The fastest of several runs: others on the machine only slow it."""
    return min((step(words, **how) for _ in range(ROUNDS)), key=lambda found: found["ms"])


LINKS = {"no limit": {"RATE": ""}, "1 Gbit/s": {}, "1 Gbit/s, 10 ms": {"DELAY": "10"}}


def measured_sums():
    found = {f"shared memory, {n} ranks": sums(n) for n in (2, 3, 4)}
    for link in ("1 Gbit/s", "1 Gbit/s, 10 ms"):
        found[f"{link}, 2 ranks"] = sums(2, HOSTS, LINKS[link])
    return found


def measured_hosts(words):
    return {
        f"{link}, {reduce}": best([*words, f"train.reduce={reduce}"], ranks=2, launcher=HOSTS, environment=environment)
        for link, environment in LINKS.items()
        for reduce in ("f32", "bf16")
    }


def measure(args):
    parts = {
        "sums": measured_sums,
        "alone": lambda: {
            name: {n: best([*words, f"train.batch={-(-batch // n)}"]) for n in (1, 2, 3, 4)} for name, (words, batch) in RUNS.items()
        },
        "threads": lambda: {name: best(words, environment={"RAYON_NUM_THREADS": str(CORES)}) for name, (words, _) in RUNS.items()},
        "ranks": lambda: {name: {n: best(words, ranks=n) for n in (2, 3, 4)} for name, (words, _) in RUNS.items()},
        "hosts": lambda: {name: measured_hosts(words) for name, (words, _) in RUNS.items()},
    }
    found = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name in args.parts or parts:
        found[name] = parts[name]()
    found |= {
        "date": str(datetime.date.today()),
        "commit": run(["git", "rev-parse", "--short=12", "HEAD"]).strip(),
        "cpu": next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
        "mpi": run(["mpirun", "--version"]).splitlines()[0],
    }
    RECORD.write_text(json.dumps(found, indent=1) + "\n")


def terms(n, numbers, width):
    """What the parameters of a link are multiplied by: latency, message, seconds per byte, seconds per number."""
    return [2, 2 * (n - 1), 2 * (n - 1) / n * width * numbers, numbers]


def sum_time(n, numbers, width, link):
    """The model's time of a sum, in seconds."""
    return sum(map(math.prod, zip(terms(n, numbers, width), link)))


def fit(observed, fixed):
    """The parameters, none negative, with the least squares of relative errors. `observed`: (terms, seconds); `fixed`: known parameters."""
    link = [fixed.get(i, 0.0) for i in range(4)]
    free = [i for i in range(4) if i not in fixed]
    for _ in range(20_000):
        for i in free:
            over = under = 0.0
            for of, seconds in observed:
                rest = seconds - sum(of[j] * link[j] for j in range(4) if j != i)
                over += of[i] * rest / seconds**2
                under += (of[i] / seconds) ** 2
            link[i] = max(0.0, over / under)
    return link


def links(found):
    """The parameters of each link, for each type. Messages and numbers cost what they cost in shared memory."""
    def observed(name, reduce):
        for key, sums in found["sums"].items():
            if key.rsplit(", ", 1)[0] == name:
                n = int(key.rsplit(", ", 1)[1].split()[0])
                for s in sums:
                    if s["reduce"] == reduce:
                        yield terms(n, s["numbers"], WIDTH[reduce]), 1e-3 * s["ms"]

    names = {key.rsplit(", ", 1)[0] for key in found["sums"]}
    of = {}
    for reduce in WIDTH:
        # There, moving a byte and adding a number cannot be told apart.
        memory = fit(list(observed("shared memory", reduce)), {2: 0.0})
        known = {1: memory[1], 3: memory[3]}
        for name in names:
            of[name, reduce] = memory if name == "shared memory" else fit(list(observed(name, reduce)), known)
    return of


WIDTH = {"f32": 4, "bf16": 2}
DASH = {"f32": "", "bf16": ' stroke-dasharray="5 3"'}


def numbers_of(found, name):
    """The numbers that travel in a step: two ranks send 4 bytes of each."""
    return found["ranks"][name]["2"]["bytes"] / 4


def checked(found, of):
    """The model beside what was measured."""
    for name, alone in found["alone"].items():
        numbers = numbers_of(found, name)
        for n in (2, 3, 4):
            compute = 1e-3 * alone[str(n)]["ms"] * max(1, n / CORES)
            model = compute + sum_time(n, numbers, 4, of["shared memory", "f32"])
            yield name, f"{n} ranks, shared memory, f32", 1e3 * model, found["ranks"][name][str(n)]["ms"]
        for key, measured in found["hosts"][name].items():
            link, reduce = key.rsplit(", ", 1)
            if (link, reduce) in of:
                model = 1e-3 * alone["2"]["ms"] + sum_time(2, numbers, WIDTH[reduce], of[link, reduce])
                yield name, f"2 ranks, {key}", 1e3 * model, measured["ms"]


# What is assumed of GPUs and their networks. `compute`: a step of docs/GPU.md in which each launch is its own, since several ranks do not
# capture one; for lm-paper the captured step and the time between launches. Each rank has the whole batch of one GPU there, so that the step's batch grows with their number.
ASSUMED = {"lm-paper": {"compute": 85e-3, "numbers": 38_066_444}, "resnet-56": {"compute": 33.7e-3, "numbers": 853_045}}
RATES = (10, 100, 400)
LATENCY, USED, TO_HOST = 25e-6, 0.8, 20e9
RANKS = (2, 4, 8, 16, 32, 64, 128, 256)


def predicted(name, n, rate, reduce, links):
    """Seconds of a step of n GPUs on hosts with this rate in Gbit/s."""
    of = ASSUMED[name]
    memory = links["shared memory", reduce]
    link = [LATENCY, memory[1], 8 / (rate * 1e9 * USED), memory[3]]
    # Gradients to the host, their sum back.
    return of["compute"] + 2 * 4 * of["numbers"] / TO_HOST + sum_time(n, of["numbers"], WIDTH[reduce], link)


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "| - |" + " -: |" * (len(head) - 1), *("| " + " | ".join(row) + " |" for row in rows)])


def svg(links):
    """The time of a step over the ranks: a panel for each model, a line for each rate and type."""
    colours = {10: "#e45756", 100: "#4c78a8", 400: "#54a24b"}
    width, height, left, top = 360, 220, 46, 30
    part = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * (width + left) + 180}" height="{height + top + 46}" font-family="sans-serif" '
            'font-size="12"><rect width="100%" height="100%" fill="white"/>']
    for panel, name in enumerate(ASSUMED):
        x0 = left + panel * (width + left)
        times = {(rate, reduce): [1e3 * predicted(name, n, rate, reduce, links) for n in RANKS] for rate in RATES for reduce in WIDTH}
        most = max(map(max, times.values()))
        # Five steps of 1, 2 or 5 times a power of ten.
        tick = next(t for t in (m * 10**e for e in range(6) for m in (1, 2, 5)) if 5 * t >= most)
        at = lambda n, ms: (x0 + width * (math.log2(n) - 1) / 7, top + height * (1 - ms / (5 * tick)))  # noqa: E731
        part.append(f'<text x="{x0}" y="{top - 10}">{name}: milliseconds of a step, predicted</text>')
        part.append(f'<path d="M{x0} {top}v{height}h{width}" stroke="black" fill="none"/>')
        for n in RANKS:
            x, y = at(n, 0)
            part.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{n}</text>')
        for ms in range(0, 5 * tick + 1, tick):
            x, y = at(2, ms)
            part.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{ms}</text>')
        x, y = at(2, 1e3 * ASSUMED[name]["compute"])
        part.append(f'<path d="M{x:.1f} {y:.1f}h{width}" stroke="gray" stroke-dasharray="2 3"/>')
        for (rate, reduce), line in times.items():
            path = "L".join("{:.1f} {:.1f}".format(*at(n, ms)) for n, ms in zip(RANKS, line))
            part.append(f'<path d="M{path}" stroke="{colours[rate]}" fill="none" stroke-width="1.5"{DASH[reduce]}/>')
    x = 2 * (width + left) + 16
    legend = [(colours[rate], DASH[reduce], f"{rate} Gbit/s, {reduce}") for rate in RATES for reduce in WIDTH]
    for i, (colour, dash, label) in enumerate([*legend, ("gray", ' stroke-dasharray="2 3"', "compute alone")]):
        y = top + 20 * i
        part.append(f'<path d="M{x} {y}h24" stroke="{colour}" stroke-width="1.5"{dash}/><text x="{x + 30}" y="{y + 4}">{label}</text>')
    part.append(f'<text x="{left}" y="{height + top + 36}">ranks, a GPU each</text></svg>')
    return "\n".join(part) + "\n"


def between(text, mark, new):
    begin, end = f"<!-- {mark} -->\n", "<!-- end -->"
    head, rest = text.split(begin)
    return head + begin + new + "\n" + end + rest.split(end, 1)[1]


def report(_args):
    found = json.loads(RECORD.read_text())
    of = links(found)
    about = f"{found['cpu']}, {CORES} cores, Flex, {found['mpi']}, commit {found['commit']}, {found['date']}; the best of {ROUNDS} runs"
    threads = [
        (f"`{name}`", f"{found['threads'][name]['ms']:.1f}", f"{ranks['2']['ms']:.1f}", f"{found['threads'][name]['ms'] / ranks['2']['ms']:.2f}", f"{100 * ranks['2']['share']:.0f} %")
        for name, ranks in found["ranks"].items()
    ]
    hosts = [
        (f"`{name}`", key, f"{measured['bytes'] / 1e6:.1f}", f"{measured['ms']:.1f}", f"{100 * measured['share']:.0f} %")
        for name, all_links in found["hosts"].items() for key, measured in all_links.items()
    ]
    fits = [(f"{name[0]}, {name[1]}", f"{1e6 * p[0]:.1f}", f"{1e6 * p[1]:.1f}", f"{1e-9 / p[2]:.2f}" if p[2] else "–", f"{1e9 * p[3]:.2f}") for name, p in sorted(of.items())]
    checks = [(f"`{name}`", what, f"{model:.1f}", f"{measured:.1f}", f"{model / measured - 1:+.0%}") for name, what, model, measured in checked(found, of)]
    steps = [
        (f"{name}, {rate} Gbit/s, {reduce}", *(f"{1e3 * predicted(name, n, rate, reduce, of):.0f}" for n in RANKS))
        for name in ASSUMED for rate in RATES for reduce in WIDTH
    ]
    text = PAGE.read_text()
    text = between(text, "measured", "\n\n".join([
        f"{about}. Milliseconds of a step.",
        table(["recipe", "1 process, 2 threads", "2 ranks, 1 thread each", "ratio", "share in communication"], threads),
        "Two ranks on two hosts by `scripts/two-hosts.sh`, one thread each; 10 ms are each way, by `DELAY=10`; bytes that a rank sends in a step:",
        table(["recipe", "link, type", "MB sent", "ms", "share in communication"], hosts),
    ]))
    text = between(text, "model", "\n\n".join([
        "Fitted to `devices --check --mpi`, sums of 1,000 to 16,777,216 numbers on 2, 3 and 4 ranks:",
        table(["link", "latency, µs", "per message, µs", "GB/s", "per number, ns"], fits),
        "The model beside the runs above. 3 and 4 ranks share two cores:",
        table(["recipe", "", "model, ms", "measured, ms", "difference"], checks),
        "Predicted, not measured: milliseconds of a step on n ranks:",
        table(["", *map(str, RANKS)], steps),
    ]))
    PAGE.write_text(text)
    FIGURE.write_text(svg(of))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "report"))
    parser.add_argument("parts", nargs="*", help="of measure: sums, alone, threads, ranks, hosts; the others stay as they are")
    args = parser.parse_args()
    {"measure": measure, "report": report}[args.action](args)


if __name__ == "__main__":
    main()
