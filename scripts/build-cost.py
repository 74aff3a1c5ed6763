#!/usr/bin/env python3
"""CPU seconds and crates of a build from nothing: the README's first command, then its tests.

    scripts/build-cost.py [--out FILE.json] [--target DIR] [--first ARGS] [--then ARGS]

Both commands run in one new target directory (an empty DIR, which is kept), with this file as cargo's RUSTC_WRAPPER: each rustc
process writes its user and system seconds. Build scripts, and the C that they compile, are counted in
the total alone. Prints a table per command: crates compiled, CPU seconds, the twenty dearest crates,
and the packages that the second command compiled again.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile


def wrap(log, command):
    """Runs one rustc and appends what it took: cargo calls this for each crate."""
    status = subprocess.run(command, close_fds=False).returncode  # cargo's job server is a file descriptor
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    name = next((b for a, b in zip(command, command[1:]) if a == "--crate-name"), None)
    if name and name != "___":
        version = os.environ.get("CARGO_PKG_VERSION", "")
        package = os.environ.get("CARGO_PKG_NAME", name)
        row = {"crate": name, "package": package, "version": version, "cpu_s": used.ru_utime + used.ru_stime}
        with open(log, "a") as out:  # one write of a short line: appended whole
            out.write(json.dumps(row) + "\n")
    return status


def build(arguments, target):
    """Runs `cargo arguments`, returning its total CPU seconds and the rows of its rustc processes."""
    log = os.path.join(target, "rustc.jsonl")
    open(log, "w").close()
    environment = os.environ | {
        "CARGO_TARGET_DIR": target,
        "RUSTC_WRAPPER": os.path.abspath(__file__),
        "REZERO_BUILD_COST": log,
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    result = subprocess.run(["cargo", *arguments], env=environment, cwd=root)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        sys.exit(f"cargo {' '.join(arguments)} failed")
    total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with open(log) as rows:
        return total, [json.loads(row) for row in rows]


def table(title, total, rows):
    by_package = collections.Counter()
    for row in rows:
        by_package[f"{row['package']} {row['version']}"] += row["cpu_s"]
    print(f"\n{title}: {len(by_package)} packages, {total:.0f} CPU s ({total / 60:.1f} min)")
    for name, seconds in by_package.most_common(20):
        print(f"  {seconds:7.1f} s  {name}")
    return by_package


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="write all rows as JSON")
    parser.add_argument("--first", default="build --release")
    parser.add_argument("--then", default="test --release --workspace --no-run")
    parser.add_argument("--target", help="an empty directory, which is kept; else a temporary one")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        # Cargo runs rustc in each crate's folder, so the path must be absolute.
        target = os.path.abspath(options.target) if options.target else stack.enter_context(tempfile.TemporaryDirectory(prefix="build-cost-"))
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            parser.error(f"{target} is not empty")
        commands = [options.first] + ([options.then] if options.then else [])
        results = [(f"cargo {command}", *build(command.split(), target)) for command in commands]
    tables = [table(*result) for result in results]
    print(f"\ntogether: {sum(total for _, total, _ in results):.0f} CPU s")
    if len(tables) == 2:
        ours = re.compile(r"(rezero-|outside)")
        again = sorted(name for name in tables[0] & tables[1] if not ours.match(name))
        print("compiled again by the second command: " + (", ".join(again) or "none"))
    if options.out:
        with open(options.out, "w") as out:
            json.dump([{"command": c, "cpu_s": t, "rustc": r} for c, t, r in results], out, indent=1)


if __name__ == "__main__":
    if log := os.environ.get("REZERO_BUILD_COST"):
        sys.exit(wrap(log, sys.argv[1:]))
    main()
