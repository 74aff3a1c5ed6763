#!/usr/bin/env python3
"""What `rezero sweep` leaves to do for docs/RESULTS.md: grown networks, records, and the pages made of them.

    python3 results/runs.py list   [EXPERIMENT…]
    python3 results/runs.py run    [EXPERIMENT…] --cifar DIR --text FILE [--jobs N]    runs what results/work lacks, then records it
    python3 results/runs.py record [EXPERIMENT…]                                       records what results/work has
    python3 results/runs.py report [EXPERIMENT…]                                       rebuilds tables and figures from results/records,
                                                                                       and README's table of claims

An experiment is a sweep, results/EXPERIMENT.toml. DIR holds CIFAR-10's binary batches, FILE the first 4,000,000 bytes of enwik8.
`run` gives each of N trials one thread. A record is a run's recipe, environment and metrics, thinned to some 60 rows; weights are
not kept. The binary is $REZERO, else `cargo run --release`.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shlex
import shutil
import statistics
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
WORK, RECORDS, REPORTS = HERE / "work", HERE / "records", ROOT / "docs" / "results"
PAGE, README = ROOT / "docs" / "RESULTS.md", ROOT / "README.md"
ROWS = 60

EXPERIMENTS = [path.stem for path in sorted(HERE.glob("*.toml"))]
# The runs that are grown from those of growth.toml: name, layers, place, words.
GROWN = [
    ("6-12-even", "12", "even", "steps=500"),
    ("6-12-end", "12", "end", "steps=500"),
    ("6-24-even", "24", "even", "steps=250 eval_every=25"),
]


def sweep(experiment, args):
    """The command of an experiment's sweep."""
    words = ["sweep", str(HERE.relative_to(ROOT) / f"{experiment}.toml"), "--dir", str(WORK / experiment)]
    place = ["--text", args.text] if "enwik8" in (HERE / f"{experiment}.toml").read_text() else ["--data-dir", args.cifar]
    return [*words, *place, "--jobs", str(args.jobs), "--threads", "1"]


def grown(experiment):
    """{run: its command}, of the runs that no sweep makes."""
    if experiment != "growth":
        return {}
    return {
        f"{name}_seed={seed}": ["grow", str(WORK / "growth" / f"6_seed={seed}"), "--layers", layers, "--place", place, *words.split()]
        for seed in (1, 2, 3)
        for name, layers, place, words in GROWN
    }


# What a report is called, its baseline and its target.
REPORTED = {
    "mlp64": ("64 fully connected layers", None, "50"),
    "mlp32": ("32 fully connected layers", None, "50"),
    "lm12": ("12 layers", "pre-norm", "3.0"),
    "lm48": ("48 layers", "pre-norm", "3.5"),
    "resnet20": ("ResNet-20, one epoch", "vanilla", None),
    "resnet56": ("ResNet-56, one epoch", None, None),
    "resnet110": ("ResNet-110, one epoch", None, None),
    "vit": ("Vision Transformers of 12 layers", "pre-norm", None),
    "mixer": ("MLP-Mixers of 12 layers", "pre-norm", None),
    "growth": ("Growing", "12 layers", "3.0"),
    "alpha-lm": ("Gates of 12 layers", None, None),
    "alpha-resnet": ("Gates of ResNet-20", None, None),
}
# Reports that show more than their sweep: run and label, by the start of the run's name.
LABELLED = {
    "growth": {
        "../lm12/rezero": "12 layers",
        "6": "6 layers",
        "6-long": "6 layers, 2,000 steps",
        "6-12-even": "6, grown to 12 evenly",
        "6-12-end": "6, grown to 12 at the end",
        "6-24-even": "6, grown to 24 evenly",
        "24": "24 layers",
    },
    "alpha-lm": {
        "../lm12/rezero": "ReZero",
        "../lm12/rezero-alpha-lr": "α at rate 0.01",
        "norm": "norm in the branch",
        "adamw-all": "weight decay on all",
        "adamw-not-alpha": "weight decay but on α",
        "alpha-lr-0.1": "α at rate 0.1",
        "alpha-lr-1": "α at rate 1",
    },
}


def rezero():
    return shlex.split(os.environ.get("REZERO", "cargo run --quiet --release --"))


def grow_one(name, words):
    target = WORK / "growth" / name
    if (target / "DONE").exists():
        return f"{name}: done before"
    if (target / "recipe.toml").exists():
        # Interrupted: go on from its last checkpoint.
        words = ["train", str(target), "--resume"]
    else:
        words = [*words, "--run-dir", str(target)]
    env = dict(os.environ, RAYON_NUM_THREADS="1")
    done = subprocess.run([*rezero(), *words, "--plain"], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        return f"{name}: {done.stderr.strip().splitlines()[-1:]}"
    return f"{name}: {'diverged' if done.returncode else 'done'}"


def short(value):
    """Numbers by layer with three digits: more than a figure shows."""
    return float(f"{value:.3g}")


def record(source, target):
    """Copies what a report needs of a run."""
    target.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (source / "metrics.jsonl").read_text().splitlines()]
    train = [row for row in rows if row["split"] == "train"]
    step = max(1, -(-len(train) // ROWS))
    # Tuning runs are known by their results alone.
    kept = [] if "tune" in target.parent.name else train[::-1][::step][::-1]
    steps = {row["step"] for row in kept}
    with open(target / "metrics.jsonl", "w") as out:
        for row in rows:
            if row["split"] == "train" and row["step"] not in steps:
                continue
            for key in ("alpha", "layer_grad_norm"):
                if key in row:
                    row[key] = [short(v) if v is not None else None for v in row[key]]
            out.write(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n")
    for name in ("recipe.toml", "DONE", "jacobian.json"):
        if (source / name).exists():
            (target / name).write_text((source / name).read_text())
    if source.parent.name.startswith("mlp"):
        # The notebook prints the mean training loss of each epoch.
        epochs = {}
        for row in train:
            total = epochs.setdefault(row["epoch"], [0.0, 0])
            total[0] += row["loss"] * row["items"]
            total[1] += row["items"]
        means = [total / items for total, items in epochs.values()]
        (target / "epochs.json").write_text(json.dumps([float(f"{mean:.6g}") for mean in means]) + "\n")
    env = json.loads((source / "env.json").read_text())
    env["commands"] = [public(words) for words in env["commands"]]
    env["data_dir"] = env["text"] = None
    (target / "env.json").write_text(json.dumps(env, indent=1, ensure_ascii=False) + "\n")


def public(words):
    """A command without the places of the machine that ran it."""
    words = ["rezero", *words[1:]]
    for flag, name in (("--data-dir", "DIR"), ("--text", "FILE"), ("--run-dir", "RUN")):
        if flag in words:
            words[words.index(flag) + 1] = name
    if words[1] == "grow":
        words[2] = pathlib.Path(words[2]).name
    return [word.removesuffix(".toml") for word in words if word not in ("--plain", "--of-sweep")]


def epochs(experiment):
    """Mean training loss of each epoch, by arm."""
    rows = {path.parent.name.rsplit("_", 1)[0]: json.loads(path.read_text()) for path in (RECORDS / experiment).glob("*/epochs.json")}
    plan = json.loads((RECORDS / experiment / "sweep.json").read_text())
    order = [trial["name"].rsplit("_", 1)[0] for trial in plan["trials"]]
    n = max(map(len, rows.values()))
    lines = [f"| arm | {' | '.join(str(i + 1) for i in range(n))} |", f"| - |{' -: |' * n}"]
    for arm in order:
        if arm in rows:
            cells = [f"{v:.2f}" if v < 100 else f"{v:.0f}" for v in rows[arm]]
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


# README's claims: what was trained, its depth, the experiment, the measure and the arms with their labels.
CLAIMS = [
    ("Transformer on bytes, 500 steps: bits per byte", 48, "lm48", "bpb", {"rezero": "ReZero", "pre-norm": "pre-norm", "post-norm": "post-norm"}),
    ("ResNet on CIFAR-10, one epoch: accuracy", 20, "resnet20", "accuracy", {"rezero": "ReZero", "vanilla": "plain ResNet"}),
    ("Transformer on bytes, 6 layers grown to 24, against equal compute: bits per byte", 24, "growth", "bpb", {"6-24-even": "grown", "24": "from the start", "6-long": "6 layers throughout"}),
    ("Fully connected network on CIFAR-10, ten epochs: training loss", 64, "mlp64", "epoch", {"rezero": "ReZero", "residual": "residual", "vanilla": "plain", "pre-norm": "pre-norm"}),
    ("**Against ReZero:** Transformer on bytes, 1,000 steps: bits per byte", 12, "lm12", "bpb", {"rezero": "ReZero", "rezero-1": "ReZero with α = 1", "pre-norm": "pre-norm"}),
]


def last(run, measure):
    """The measure at the end of a run: of its validation, or the mean training loss of its last epoch."""
    if measure == "epoch":
        return json.loads((run / "epochs.json").read_text())[-1]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[measure] for row in rows if row["split"] == "valid"][-1]


def claims():
    """The table of claims: the mean over seeds, ± its standard error."""
    lines = ["| network, training and measure | layers | result | seeds | command |", "| - | -: | - | -: | - |"]
    for what, depth, experiment, measure, arms in CLAIMS:
        cells = []
        for arm, label in arms.items():
            values = [last(path, measure) for path in sorted((RECORDS / experiment).glob(f"{arm}_seed=*"))]
            unit, digits, scale = (" %", 1, 100) if measure == "accuracy" else ("", 2 if measure == "epoch" else 3, 1)
            text = f"{scale * statistics.mean(values):.{digits}f}"
            if len(values) > 1:
                text += f" ± {scale * statistics.stdev(values) / len(values) ** 0.5:.{digits}f}"
            cells.append(f"{label} {text}{unit}")
        data = "--cifar DIR" if measure in ("accuracy", "epoch") else "--text FILE"
        lines.append(f"| {what} | {depth} | {'<br>'.join(cells)} | {len(values)} | `just results-run {experiment} {data}` |")
    return "\n".join(lines) + "\n"


def insert(page, name, table):
    begin, end = f"<!-- report {name} -->", f"<!-- /report {name} -->"
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n{table}{end}{rest.split(end)[1]}")


def report(experiment):
    if experiment.startswith("mlp"):
        insert(PAGE, f"{experiment}-epochs", epochs(experiment))
    title, baseline, target = REPORTED.get(experiment, (experiment, None, None))
    words = [str((RECORDS / experiment).relative_to(ROOT))]
    if experiment in LABELLED:
        words = []
        for name, label in LABELLED[experiment].items():
            # The arms of alpha-lm have one seed.
            seeds = [1] if experiment == "alpha-lm" else [1, 2, 3]
            runs = [(RECORDS / experiment / f"{name}_seed={seed}").resolve() for seed in seeds]
            words += [f"{label}={run.relative_to(ROOT)}" for run in runs]
    command = [*rezero(), "report", *words, "--out", str(REPORTS / experiment), "--title", title]
    command += ["--into", str(PAGE), "--name", experiment, "--no-jacobian"]
    if baseline:
        command += ["--baseline", baseline]
    if target:
        command += ["--target", target]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["list", "run", "record", "report"])
    parser.add_argument("experiments", nargs="*", help="all, if none is named")
    parser.add_argument("--cifar")
    parser.add_argument("--text")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    for name in args.experiments:
        if name not in EXPERIMENTS:
            parser.error(f"unknown experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    chosen = args.experiments or EXPERIMENTS
    for experiment in chosen:
        if args.action == "list":
            command = ["sweep", f"results/{experiment}.toml", "--dir", str(WORK / experiment), "--dry-run"]
            subprocess.run([*rezero(), *command], cwd=ROOT, check=True)
            for name, words in grown(experiment).items():
                print(f"{name}: {shlex.join(['rezero', *words])}")
        elif args.action == "run":
            if (args.text if "enwik8" in (HERE / f"{experiment}.toml").read_text() else args.cifar) is None:
                parser.error(f"{experiment} needs --cifar or --text")
            subprocess.run([*rezero(), *sweep(experiment, args)], cwd=ROOT, check=True)
            with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
                for line in pool.map(lambda job: grow_one(*job), grown(experiment).items()):
                    print(line, flush=True)
        if args.action in ("run", "record") and (WORK / experiment / "sweep.json").exists():
            (RECORDS / experiment).mkdir(parents=True, exist_ok=True)
            shutil.copy(WORK / experiment / "sweep.json", RECORDS / experiment)
            for path in sorted((WORK / experiment).glob("*/metrics.jsonl")):
                record(path.parent, RECORDS / experiment / path.parent.name)
        elif args.action == "report" and (RECORDS / experiment).exists():
            report(experiment)
    if args.action == "report":
        insert(README, "claims", claims())


if __name__ == "__main__":
    main()
