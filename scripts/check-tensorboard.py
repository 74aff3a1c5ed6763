#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["tensorboard==2.21.0"]
# ///
"""Reads the event files of runs with Python's tensorboard, and compares every curve with metrics.jsonl, exactly.

    uv run scripts/check-tensorboard.py RUN…

A run has an event file if it was trained with run.tensorboard=true, or after `rezero report --tensorboard RUN…`. Values
are f32 in event files. Fails at the first point that is missing, added or different."""

import json
import pathlib
import sys

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

MOST_LAYERS = 256


def number(value) -> np.float32:
    """JSON has no NaN and no infinity: these are strings."""
    with np.errstate(over="ignore"):
        return np.float32(float(value))


def wanted(run: pathlib.Path) -> dict[str, list[tuple[int, np.float32]]]:
    """The curves of metrics.jsonl."""
    known = ["split", "step", "epoch", "loss", "items", "lr", "grad_norm", "layer_grad_norm", "alpha", "items_per_s",
             "warm_up_s", "ema", "seconds"]
    curves = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        point = lambda tag, value: curves.setdefault(tag, []).append((row["step"], number(value)))
        split = row["split"]
        point(f"loss/{split}", row["loss"])
        for key in row.keys() - known:
            point(f"{key}/{split}", row[key])
        for key in ["lr", "grad_norm"]:
            if key in row:
                point(key, row[key])
        if "items_per_s" in row:
            point(f"items_per_s/{split}", row["items_per_s"])
        if "alpha" in row:
            sizes = [abs(float(number(alpha))) for alpha in row["alpha"]]
            point("alpha/mean", sum(sizes) / len(sizes))
        for key in ["alpha", "layer_grad_norm"]:
            values = row.get(key, [])
            if len(values) <= MOST_LAYERS:
                for i, value in enumerate(values):
                    point(f"{key}/{i:03}", abs(number(value)))
    return curves


def check(run: pathlib.Path) -> None:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    curves = wanted(run)
    tags = events.Tags()["scalars"]
    if set(tags) != set(curves):
        sys.exit(f"{run}: the tags differ: {sorted(set(tags) ^ set(curves))}")
    points = 0
    for tag in tags:
        found = [(event.step, np.float32(event.value)) for event in events.Scalars(tag)]
        same = len(found) == len(curves[tag]) and all(
            a[0] == b[0] and a[1].tobytes() == b[1].tobytes() or np.isnan(a[1]) and np.isnan(b[1])
            for a, b in zip(found, curves[tag])
        )
        if not same:
            sys.exit(f"{run}: {tag} differs:\n{found}\n{curves[tag]}")
        points += len(found)
    files = [path.name for path in run.glob("events.out.tfevents.*")]
    print(f"{run}: {len(tags)} curves, {points} points of {', '.join(files)} equal metrics.jsonl")


for name in sys.argv[1:] or sys.exit(__doc__):
    check(pathlib.Path(name))
