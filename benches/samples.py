#!/usr/bin/env python3
"""Where a workload's time goes, by operation: samples of `rezero bench`, sorted by what their stacks were called from.

    python3 benches/samples.py lm-small [--steps N]          # needs Linux's perf; $REZERO_BIN names the binary

A sample belongs to the first row of KINDS of which a pattern occurs in its stack, innermost frame first where two
kinds nest. Samples before the first step (initialisation) are left out as far as their stacks tell.
"""

import argparse
import collections
import os
import subprocess
import tempfile

KINDS = [
    ("(initialisation)", ["float_random", "materialize"]),
    ("convolution: rows into scratch", ["Winograd::fill", "Correlation::fill"]),
    ("convolution: weight gradient", ["::weight_gradient"]),
    ("convolution: forward and input gradient", ["flex::conv::"]),
    ("batch norm", ["flex::batch_norm"]),
    ("attention", ["flex::attention"]),
    ("cross-entropy", ["flex::cross_entropy"]),
    ("optimizer", ["flex::optim"]),
    ("residual sum", ["flex::gate"]),
    ("shortcut", ["flex::shortcut"]),
    ("activations, norms of rows", ["flex::activation", "flex::row_norm"]),
    ("linear: gradients outside of the products", ["column_sums", "by_rows"]),
    ("linear: products", ["flex::matmul", "gemm_f32", "gemm_common", "flex::linear"]),
    ("waiting for work", ["flex::pool"]),
    ("Burn's own operations", ["burn_flex"]),
    ("Burn's autodiff and modules", ["burn_"]),
]


def kind(stack):
    for name, patterns in KINDS:
        if any(pattern in frame for frame in stack for pattern in patterns):
            return name
    return "other"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--steps", type=int, default=15)
    args = parser.parse_args()
    binary = os.environ.get("REZERO_BIN", "target/release/rezero")
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "perf.data")
        bench = [binary, "bench", "--here", args.workload, "--steps", str(args.steps)]
        subprocess.run(["perf", "record", "-q", "-o", data, "--call-graph", "dwarf,16384", "-F", "149", *bench],
                       check=True, stdout=subprocess.DEVNULL)
        script = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym"], check=True, capture_output=True, text=True)
    counts = collections.Counter(
        kind(block.splitlines()) for block in script.stdout.split("\n\n") if block.strip())
    counts.pop("(initialisation)", None)
    total = sum(counts.values())
    print(f"| {args.workload}, {total} samples | share |\n| - | -: |")
    for name, count in counts.most_common():
        if count >= total / 200:
            print(f"| {name} | {count / total:.1%} |")


if __name__ == "__main__":
    main()
