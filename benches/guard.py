#!/usr/bin/env python3
"""Count the instructions of each kernel's forward and backward pass, and compare them with benches/guard.json.

    benches/guard.py [--write] [KERNEL…]

The example `kernel` of rezero-kernels runs each kernel at a fixed shape, on one thread, under valgrind's callgrind. Valgrind's
processor has AVX2 and not AVX-512, whatever the machine has, so the counts are of the AVX2 path. Fails if a count differs by more than 5 % from
the table: with more instructions a kernel has become slower; with fewer, the table is old and hides the next change. --write
writes the table anew. With names, only those kernels are counted.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "benches" / "guard.json"
ALLOWED = 0.05
FUNCTION = "kernel::counted_by_callgrind"


def text(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def build():
    """Builds the example with the features that the workspace's other builds have, and returns its file."""
    lines = text("cargo", "build", "--locked", "--release", "--workspace", "--example", "kernel",
                 "--message-format", "json-render-diagnostics").splitlines()
    built = [message["executable"] for message in map(json.loads, lines)
             if message.get("executable") and message["target"]["name"] == "kernel"]
    return built[0]


def count(binary, kernels):
    """The instructions of each pass, by the names that the example prints."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={out}",
                   f"--dump-before={FUNCTION}", f"--dump-after={FUNCTION}", binary, *kernels]
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "REZERO_SIMD": "avx2"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"error: {' '.join(command)} ended with {done.returncode}")
        counts = []
        for part in range(1, 1 + len(list(Path(folder).glob("out.*")))):
            lines = (out.parent / f"out.{part}").read_text().splitlines()
            # A dump at the function's start has what came between.
            if f"desc: Trigger: --dump-after={FUNCTION}" in lines:
                counts += [int(line.split()[1]) for line in lines if line.startswith("summary: ")]
    names = done.stdout.splitlines()
    if not names or len(names) != len(counts):
        sys.exit(f"error: {len(names)} passes ran, and callgrind counted {len(counts)}; does the example have {FUNCTION}?")
    return dict(zip(names, counts))


def compare(counts, expected):
    """Prints a line for each pass, and returns the names of those that differ."""
    differ = []
    for name in sorted({*counts, *expected}, key=[*counts, *expected].index):
        found, known = counts.get(name), expected.get(name)
        if found is None or known is None:
            note = "is not counted" if found is None else "is not in the table"
        else:
            change = found / known - 1
            note = f"{known:>12,} {found:>12,} {change:>+7.1%}"
            if abs(change) <= ALLOWED:
                print(f"{name:<36} {note}")
                continue
            note += "  slower" if change > 0 else "  faster: write the table anew"
        print(f"{name:<36} {note}")
        differ.append(name)
    return differ


def cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--write", action="store_true", help="write the table")
    arguments.add_argument("kernels", nargs="*", metavar="KERNEL", help="count these alone, e.g. gelu")
    asked = arguments.parse_args()
    if asked.write and asked.kernels:
        arguments.error("--write counts all kernels")
    counts = count(build(), asked.kernels)
    if asked.write:
        table = {
            "about": "Instructions of one pass under callgrind, REZERO_SIMD=avx2, one thread; written by benches/guard.py --write",
            "machine": f"{cpu()}, {os.cpu_count()} cores",
            "rustc": text("rustc", "--version").strip(),
            "valgrind": text("valgrind", "--version").strip(),
            "libc": " ".join(platform.libc_ver()),
            "counts": counts,
        }
        TABLE.write_text(json.dumps(table, indent=2) + "\n")
        print(f"wrote {len(counts)} counts to {TABLE}")
        return
    table = json.loads(TABLE.read_text())
    expected = {name: number for name, number in table["counts"].items()
                if not asked.kernels or name.split(", forward")[0].split(", backward")[0] in asked.kernels}
    differ = compare(counts, expected)
    if differ:
        sys.exit(f"{len(differ)} of {len(counts)} differ by more than {ALLOWED:.0%} from benches/guard.json "
                 f"({table['machine']}; {table['rustc']}; {table['valgrind']}; {table['libc']}): {'; '.join(differ)}")


if __name__ == "__main__":
    main()
