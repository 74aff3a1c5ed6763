#!/usr/bin/env python3
"""Times training steps of two binaries in turn: percentiles of the seconds between rows of their metrics.jsonl.

    scripts/pair-runs.py BEFORE AFTER PAIRS -- quickstart steps=100

ARGS are those of `rezero train`; log_every=1 and a run directory are added. The first ten steps of each run are left
out. Every second pair runs in the other order, so that a drift of the machine meets both alike."""

import argparse
import json
import pathlib
import subprocess
import tempfile


def steps(binary: str, arguments: list[str]) -> list[float]:
    """Milliseconds of each step of one run."""
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        command = [binary, "train", *arguments, "log_every=1", "--run-dir", str(run)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = [row["seconds"] for row in rows if row["split"] == "train"][10:]
    return [1e3 * (b - a) for a, b in zip(seconds, seconds[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("pairs", type=int)
    parser.add_argument("arguments", nargs="+")
    given = parser.parse_args()
    found: dict[str, list[float]] = {"before": [], "after": []}
    for pair in range(given.pairs):
        order = ["before", "after"]
        for which in order if pair % 2 == 0 else reversed(order):
            found[which] += steps(getattr(given, which), given.arguments)
    for percent in (10, 25, 50):
        before, after = (sorted(times)[len(times) * percent // 100] for times in found.values())
        print(f"p{percent}: {before:.2f} ms before, {after:.2f} ms after, rate {100 * (before / after - 1):+.2f} %")


if __name__ == "__main__":
    main()
