#!/usr/bin/env python3
"""Makes named models of finished runs: weights, rows of the registry, cards.

    python3 results/models.py make NAME RUN [--baseline RUN] [--cifar DIR --official DIR | --text FILE] [--dtype bf16]
    python3 results/models.py cards                      writes every card again, from results/records/models

`make` exports the best checkpoint of RUN, puts length and SHA-256 into the registry, scores the weights and the runs, and keeps
their record in results/records/models/NAME. DIR of --cifar is the data that the runs have seen; --official is the folder
with the official records, if those are other data. The binary is $REZERO, else `cargo run --release`.
"""

import argparse
import hashlib
import json
import math
import pathlib
import re
import shlex
import subprocess
import tempfile

import runs

ROOT = runs.ROOT
CRATE = ROOT / "crates" / "rezero-nn"
REGISTRY = CRATE / "src" / "pretrained" / "registry.rs"
CARDS = CRATE / "src" / "pretrained" / "cards"
RECORDS = runs.RECORDS / "models"
# Weights that are part of the crate.
INSIDE = {"resnet20-cifar10"}
# What a card says of the data, by the data set.
DATA = {
    "images": """All 60,000 images of CIFAR-10 with their labels, compressed as JPEG and unpacked: the mean error is 5.8 of 255 per pixel. These files are not
published, and `rezero fetch cifar10` gets the images as they are: a repetition of the command has other data.
The first 45,000 train, the next 5,000 validate and chose the checkpoint, the 10,000 test images do neither.
"Official" is the first 1,000 records of the official test file, byte for byte.""",
    "text": """The first 4,000,000 bytes of enwik8 (`head -c 4000000 enwik8`): 3,600,000 train, 200,000 validate and chose the checkpoint, 200,000 test.""",
}
LICENCE = {
    "images": "CIFAR-10 (Krizhevsky, 2009) is a labelled part of the 80 Million Tiny Images. Its page asks to cite the technical report and states no licence.",
    "text": "enwik8 is a part of the English Wikipedia of March 2006, whose text was then under the GNU Free Documentation License.",
}
LIMITS = {
    "images": "It knows ten classes and images of 32×32 pixels, and gives every image one of the classes. Of a folder with fewer images, `--split valid` takes images that it was trained on. Neither rate nor weight decay was tuned for 30 epochs. It has seen recompressed images. One seed.",
    "bytes12-enwik8": "It is small: it writes words and markup, not sense. It reads 64 bytes at a time in training. The rates are those of 400 steps (results/lm12-tune.toml), not of 30,000. One seed.",
    "bytes48-enwik8": "It is small: it writes words and markup, not sense. It reads 64 bytes at a time in training. Its rate is half of the best of 250 steps (results/lm48-tune.toml), with which a longer run diverged; the baseline's is the best of 250 steps. One seed.",
}


def weights(name):
    folder = CRATE / "weights" if name in INSIDE else ROOT / "weights"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}.safetensors"


def said(*words):
    """The JSON that a command prints."""
    done = subprocess.run([*runs.rezero(), *map(str, words), "--json"], cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def score(run, split, place):
    """The metrics of a split: of all images, or of all of a text's bytes."""
    found = said("eval", run, "--split", split, *place)
    return {key: found[key] for key in ("items", "loss", "accuracy", "bpb", "data") if key in found}


def make(args):
    record = RECORDS / args.name
    place = ["--data-dir", args.cifar] if args.cifar else ["--text", args.text]
    subprocess.run([*runs.rezero(), "export", args.run, "--out", str(weights(args.name)), "--dtype", args.dtype], cwd=ROOT, check=True)
    data = weights(args.name).read_bytes()
    register(args.name, len(data), hashlib.sha256(data).hexdigest())
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        # The weights as they are in the file, rounded or not.
        stored = pathlib.Path(folder) / "stored"
        words = ["import", str(weights(args.name)), "--run-dir", str(stored)]
        subprocess.run([*runs.rezero(), *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for label, run in (("stored", stored), ("run", args.run), ("baseline", args.baseline)):
            if run is None:
                continue
            scores[label] = {split: score(run, split, place) for split in ("valid", "test")}
            if args.official:
                scores[label]["official"] = score(run, "test", ["--data-dir", args.official])
    runs.record(pathlib.Path(args.run), record / "run")
    if args.baseline:
        runs.record(pathlib.Path(args.baseline), record / "baseline")
    about = {"dtype": args.dtype, "hardware": args.hardware, "scores": scores}
    (record / "scores.json").write_text(json.dumps(about, indent=1) + "\n")
    card(args.name)


def register(name, length, sha256):
    """Puts the file's length and hash into its row of the registry."""
    text = REGISTRY.read_text()
    begin = text.index(f'name: "{name}"')
    end = text.index("};", begin)
    row = re.sub(r"bytes: [\d_]+,", f"bytes: {length:_},", text[begin:end])
    row = re.sub(r'sha256:\s*"[^"]*"', f'sha256: "{sha256}"', row)
    REGISTRY.write_text(text[:begin] + row + text[end:])


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def figure(scores):
    """A metric with its sampling error."""
    if "accuracy" in scores and "bpb" not in scores:
        share, n = scores["accuracy"], scores["items"]
        return f"{100 * share:.2f} ± {100 * math.sqrt(share * (1 - share) / n):.2f} %"
    return f"{scores['bpb']:.4f} bits per byte"


def card(name):
    record = RECORDS / name
    about = json.loads((record / "scores.json").read_text())
    scores = about["scores"]
    env = json.loads((record / "run" / "env.json").read_text())
    base = record / "baseline" / "env.json"
    base = json.loads(base.read_text()) if base.exists() else None
    task = "text" if "bpb" in scores["stored"]["test"] else "images"
    of_run, of_baseline = rows(record / "run"), rows(record / "baseline") if base else []
    data = weights(name).read_bytes()
    step = int(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["step"])
    command = shlex.join(env["commands"][0])
    scheme = "plain residual network" if task == "images" else "pre-norm"
    lines = [
        f"# {name}",
        "",
        "| | |",
        "| - | - |",
        f"| parameters | {env['parameters']:,} |",
        f"| file | {len(data):,} bytes, {about['dtype']}, SHA-256 `{hashlib.sha256(data).hexdigest()}` |",
        f"| command | `{command}` |",
        f"| version | rezero {env['version']}, commit {env['commit'][:12]}, Burn {env['burn']} |",
        f"| machine | {about['hardware']} |",
        f"| time | {wall(of_run)}" + (f"; the baseline {wall(of_baseline)} |" if base else " |"),
        f"| seed | {env['seed']} |",
        f"| checkpoint | step {step:,}, the best on validation |",
        f"| data | `{env['data']}`: name, training examples, SHA-256 of the training and of the validation part |",
        "",
        "## Figures",
        "",
        f"| data | examples | {name} |" + (f" baseline: {scheme} |" if base else ""),
        "| - | -: | -: |" + (" -: |" if base else ""),
    ]
    for split, label in (("valid", "validation"), ("test", "test"), ("official", "official test records")):
        if split in scores["stored"]:
            of = scores["stored"][split]
            row = f"| {label} | {of['items']:,} | {figure(of)} |"
            lines.append(row + (f" {figure(scores['baseline'][split])} |" if base else ""))
    if about["dtype"] != "f32":
        lines += ["", f"Before rounding to {about['dtype']}: {figure(scores['run']['test'])} on the test split."]
    if task == "images":
        lines += ["", "± is the standard error of a share among that many images; it says nothing of other seeds."]
    if task == "text":
        part = [row["items"] for row in of_run if row["split"] == "valid"][-1]
        lines += ["", f"`eval` with its default windows. While it trains, a run scores the first {part:,} bytes of the validation split: the curve."]
    key, scale, digits = ("bpb", 1, 3) if task == "text" else ("accuracy", 100, 2)
    lines += ["", "## Curve", "", f"Validation, {'bits per byte' if task == 'text' else 'accuracy in %'}:", ""]
    lines += [f"| step | {name} |" + (" baseline |" if base else ""), "| -: | -: |" + (" -: |" if base else "")]
    other = {row["step"]: row for row in of_baseline if row["split"] == "valid"}
    valid = [row for row in of_run if row["split"] == "valid"]
    every = max(1, len(valid) // 15)
    for row in valid[::-1][::every][::-1]:
        of = other.get(row["step"])
        cell = f" {f'{scale * of[key]:.{digits}f}' if of else '–'} |" if base else ""
        lines.append(f"| {row['step']:,} | {scale * row[key]:.{digits}f} |{cell}")
    gates = [row["alpha"] for row in of_run if row.get("alpha") and row["step"] <= step][-1]
    lines += ["", "## Gates", "", "α of each layer at that checkpoint:", "", ", ".join(f"{v:.3g}" for v in gates) + "."]
    if base:
        of_base = base["commands"][0]
        other = ", ".join(f"`{word}`" for word in of_base if word not in env["commands"][0])
        lines += ["", "## Baseline", "", f"The same command with {other}."]
    limits = LIMITS.get(name) or LIMITS[task]
    lines += ["", "## Data and its licence", "", DATA[task], "", LICENCE[task], "", "## Limits", "", limits, ""]
    (CARDS / f"{name}.md").write_text("\n".join(lines))


def wall(of):
    """Hours of all processes that the run took: each counts its seconds from 0."""
    seconds = [row["seconds"] for row in of]
    minutes = sum(a for a, b in zip(seconds, [*seconds[1:], 0]) if b < a) / 60
    return f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    making = actions.add_parser("make")
    making.add_argument("name")
    making.add_argument("run")
    making.add_argument("--baseline")
    making.add_argument("--hardware", required=True)
    making.add_argument("--dtype", default="f32")
    making.add_argument("--cifar")
    making.add_argument("--official")
    making.add_argument("--text")
    actions.add_parser("cards")
    args = parser.parse_args()
    if args.action == "make":
        if (args.cifar is None) == (args.text is None):
            parser.error("give --cifar or --text")
        make(args)
    else:
        for record in sorted(RECORDS.glob("*/scores.json")):
            card(record.parent.name)


if __name__ == "__main__":
    main()
