#!/usr/bin/env python3
"""The experiments of docs/RESULTS.md: every run's command, the records they left, and the reports made of them.

    python3 results/runs.py list   [EXPERIMENT…]
    python3 results/runs.py run    [EXPERIMENT…] --cifar DIR --text FILE [--jobs N]    runs what results/work lacks, then records it
    python3 results/runs.py report [EXPERIMENT…]                                       rebuilds tables and figures from results/records,
                                                                                       and README's table of claims

DIR holds CIFAR-10's binary batches, FILE the first 4,000,000 bytes of enwik8. `run` gives each of N processes one thread. A record
is a run's recipe, environment and metrics, thinned to some 60 rows; weights are not kept. The binary is $REZERO, else
`cargo run --release`.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shlex
import statistics
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
WORK, RECORDS, REPORTS = HERE / "work", HERE / "records", ROOT / "docs" / "results"
PAGE, README = ROOT / "docs" / "RESULTS.md", ROOT / "README.md"
ROWS = 60

# What the arms of a language model are called, and the recipe's words for them.
LM_ARMS = {
    "post-norm": "scheme=post-norm",
    "post-norm-warmup": "scheme=post-norm warmup_steps=100",
    "pre-norm": "scheme=pre-norm",
    "gpt2-norm": "scheme=gpt2-norm",
    "rezero-1": "scheme=rezero alpha_init=1",
    "rezero": "scheme=rezero",
    "rezero-alpha-lr": "scheme=rezero alpha_optimizer=adam alpha_lr=1e-2",
}
LABELS = {
    "post-norm-warmup": "post-norm, warm-up",
    "rezero-1": "ReZero, α = 1",
    "rezero": "ReZero, α = 0",
    "rezero-alpha-lr": "ReZero, α's own rate",
}
# The rate that each arm did best with: see the experiments lm12-tune and lm48-tune.
BEST12 = dict(zip(LM_ARMS, ["2e-3", "2e-3", "2e-3", "2e-3", "4e-3", "4e-3", "4e-3"]))
BEST48 = dict(zip(LM_ARMS, ["1e-3", "1e-3", "1e-3", "2e-3", "5e-4", "4e-3", "4e-3"]))
DEEP = "depth=48 batch=8 valid_items=8192"


# Records are named as the authors' notebooks name their arms; recipes name the residual scheme.
MLP_SCHEMES = {"vanilla": "plain", "layer-norm": "plain-shared-norm", "layer-norm-each": "plain-norm"}
RESNET_SCHEMES = {"vanilla": "residual"}


def image(recipe, words):
    return ["train", recipe, "--data-dir", "CIFAR", *words.split()]


def lm(words):
    return ["train", "enwik8-tiny", "--text", "TEXT", *words.split()]


def experiments():
    """{experiment: {run: [command, …]}}; of several commands of a run, each continues the one before."""
    found = {}
    arms = ["rezero", "vanilla", "residual", "layer-norm", "layer-norm-each", "pre-norm", "post-norm"]
    found["mlp64"] = {f"{arm}_1": [image("cifar10-mlp64", f"scheme={MLP_SCHEMES.get(arm, arm)} seed=1")] for arm in arms}
    found["mlp32"] = {f"{arm}_1": [image("cifar10-mlp64", f"scheme={MLP_SCHEMES.get(arm, arm)} depth=32 seed=1")] for arm in arms[:4]}
    found["lm12-tune"] = {
        f"{arm}_lr={lr}": [lm(f"{words} lr={lr} steps=400 eval_every=200 seed=1")]
        for arm, words in LM_ARMS.items()
        for lr in ("5e-4", "1e-3", "2e-3", "4e-3", "8e-3")
    }
    found["lm12"] = {
        f"{arm}_{seed}": [lm(f"{words} lr={BEST12[arm]} seed={seed}")] for arm, words in LM_ARMS.items() for seed in (1, 2, 3)
    }
    found["lm48-tune"] = {
        f"{arm}_lr={lr}": [lm(f"{words} lr={lr} {DEEP} steps=250 eval_every=125 seed=1")]
        for arm, words in LM_ARMS.items()
        for lr in ("5e-4", "1e-3", "2e-3", "4e-3", "8e-3")
    }
    found["lm48"] = {
        f"{arm}_{seed}": [lm(f"{words} lr={BEST48[arm]} {DEEP} steps=500 seed={seed}")]
        for arm, words in LM_ARMS.items()
        for seed in (1, 2, 3)
    }
    for depth, seeds, words in (("20", (1, 2, 3), "log_every=10"), ("56", (1,), "train_items=20000 log_every=10"), ("110", (1,), "train_items=10000 log_every=5")):
        found[f"resnet{depth}"] = {
            f"{arm}_{seed}": [image(f"cifar10-resnet{depth}-notebook", f"scheme={RESNET_SCHEMES.get(arm, arm)} seed={seed} epochs=1 {words}")]
            for arm in ("rezero", "vanilla")
            for seed in seeds
        }
    growth = {}
    for seed in (1, 2, 3):
        six = lm(f"scheme=rezero lr=4e-3 depth=6 steps=1000 seed={seed}")
        growth[f"6_{seed}"] = [six]
        growth[f"6-long_{seed}"] = [lm(f"scheme=rezero lr=4e-3 depth=6 steps=2000 seed={seed}")]
        for place in ("even", "end"):
            growth[f"6-12-{place}_{seed}"] = [["grow", f"growth/6_{seed}", "--layers", "12", "--place", place, "steps=500"]]
        growth[f"6-24-even_{seed}"] = [["grow", f"growth/6_{seed}", "--layers", "24", "--place", "even", "steps=250", "eval_every=25"]]
        growth[f"24_{seed}"] = [lm(f"scheme=rezero lr=4e-3 depth=24 steps=500 eval_every=25 seed={seed}")]
    found["growth"] = growth
    alpha = "scheme=rezero lr=4e-3"
    found["alpha-lm"] = {
        "norm_1": [lm(f"{alpha} norm=layer seed=1")],
        "adamw-all_1": [lm(f"{alpha} optimizer=adamw weight_decay=0.3 seed=1")],
        "adamw-not-alpha_1": [lm(f"{alpha} optimizer=adamw weight_decay=0.3 alpha_optimizer=adam alpha_lr=4e-3 seed=1")],
        "alpha-lr-0.1_1": [lm(f"{alpha} alpha_optimizer=adam alpha_lr=0.1 seed=1")],
        "alpha-lr-1_1": [lm(f"{alpha} alpha_optimizer=adam alpha_lr=1 seed=1")],
    }
    resnet = "scheme=rezero seed=1 epochs=1 train_items=20000 log_every=10"
    found["alpha-resnet"] = {
        name: [image("cifar10-resnet20-notebook", f"{resnet} {words}".strip())]
        for name, words in {
            "decay_1": "",
            "no-decay_1": "alpha_optimizer=sgd alpha_lr=0.2 alpha_weight_decay=0",
            "decay-0.1_1": "alpha_optimizer=sgd alpha_lr=0.2 alpha_weight_decay=0.1",
            "lr-2_1": "alpha_optimizer=sgd alpha_lr=2 alpha_weight_decay=0",
            "no-norm_1": "scheme=skipinit lr=0.05",
        }.items()
    }
    return found


# What a report is called, its baseline, and the label of each run by the start of its name.
TARGETS = {"lm12": "3.0", "lm48": "3.5", "growth": "3.0", "mlp64": "50", "mlp32": "50"}
REPORTED = {
    "mlp64": ("64 fully connected layers", None, None),
    "mlp32": ("32 fully connected layers", None, None),
    "lm12": ("12 layers", "pre-norm", LABELS),
    "lm48": ("48 layers", "pre-norm", LABELS),
    "resnet20": ("ResNet-20, one epoch", "vanilla", None),
    "resnet56": ("ResNet-56, one epoch", None, None),
    "resnet110": ("ResNet-110, one epoch", None, None),
    "growth": (
        "Growing",
        "12 layers",
        {"6": "6 layers", "6-long": "6 layers, 2,000 steps", "6-12-even": "6, grown to 12 evenly", "6-12-end": "6, grown to 12 at the end", "6-24-even": "6, grown to 24 evenly", "24": "24 layers", "rezero": "12 layers"},
    ),
    "alpha-lm": (
        "Gates of 12 layers",
        None,
        {"rezero": "ReZero", "norm": "norm in the branch", "adamw-all": "weight decay on all", "adamw-not-alpha": "weight decay but on α", "alpha-lr-0.1": "α at rate 0.1", "alpha-lr-1": "α at rate 1", "rezero-alpha-lr": "α at rate 0.01"},
    ),
    "alpha-resnet": (
        "Gates of ResNet-20",
        None,
        {"decay": "weight decay 1e-4 on all", "no-decay": "none on α", "decay-0.1": "0.1 on α", "lr-2": "α at rate 2", "no-norm": "no norm (SkipInit)"},
    ),
}
# Runs of other experiments that a report shows beside its own.
BESIDE = {"growth": ["lm12/rezero_1", "lm12/rezero_2", "lm12/rezero_3"], "alpha-lm": ["lm12/rezero_1", "lm12/rezero-alpha-lr_1"]}


def rezero():
    return shlex.split(os.environ.get("REZERO", "cargo run --quiet --release --"))


def run_one(experiment, name, commands, args):
    target = WORK / experiment / name
    if (target / "DONE").exists():
        return f"{experiment}/{name}: done before"
    for words in commands:
        if words[0] == "grow":
            words = ["grow", str(WORK / words[1]), *words[2:]]
        places = {"CIFAR": args.cifar, "TEXT": args.text}
        if any(places.get(word, "") is None for word in words):
            return f"{experiment}/{name}: needs --cifar and --text"
        words = [places.get(word, word) for word in words]
        if (target / "recipe.toml").exists():
            # Interrupted: go on from its last checkpoint.
            words = ["train", str(target), "--resume"]
        env = dict(os.environ, RAYON_NUM_THREADS="1")
        place = [] if "--resume" in words else ["--run-dir", str(target)]
        done = subprocess.run([*rezero(), *words, *place, "--plain"], cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            return f"{experiment}/{name}: {done.stderr.strip().splitlines()[-1:]}"
    record(target, RECORDS / experiment / name)
    return f"{experiment}/{name}: {'diverged' if done.returncode else 'done'}"


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
    return [word.removesuffix(".toml") for word in words if word != "--plain"]


def tuning(experiment):
    """The table of a tuning grid: bits per byte at the end, by arm and rate."""
    found, rates = {}, set()
    for path in sorted((RECORDS / experiment).glob("*/metrics.jsonl")):
        arm, rate = path.parent.name.split("_lr=")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        valid = [row["bpb"] for row in rows if row["split"] == "valid"]
        done = (path.parent / "DONE").exists()
        found.setdefault(arm, {})[rate] = valid[-1] if valid and done else None
        rates.add(rate)
    rates = sorted(rates, key=float)
    lines = [f"| arm | {' | '.join(rates)} |", f"| - |{' -: |' * len(rates)}"]
    for arm in LM_ARMS:
        row = found.get(arm, {})
        best = min((v for v in row.values() if v is not None), default=None)
        cells = ["diverged" if row.get(r) is None else f"**{row[r]:.3f}**" if row[r] == best else f"{row[r]:.3f}" for r in rates]
        lines.append(f"| {LABELS.get(arm, arm)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def epochs(experiment):
    """Mean training loss of each epoch, by arm."""
    rows = {path.parent.name.rsplit("_", 1)[0]: json.loads(path.read_text()) for path in (RECORDS / experiment).glob("*/epochs.json")}
    order = [name.rsplit("_", 1)[0] for name in experiments()[experiment]]
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
            values = [last(path, measure) for path in sorted((RECORDS / experiment).glob(f"{arm}_[0-9]*"))]
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
    if experiment.endswith("-tune"):
        insert(PAGE, experiment, tuning(experiment))
        return
    if experiment.startswith("mlp"):
        insert(PAGE, f"{experiment}-epochs", epochs(experiment))
    title, baseline, labels = REPORTED[experiment]
    names = sorted(path.parent for path in (RECORDS / experiment).glob("*/metrics.jsonl"))
    order = list(experiments()[experiment])
    names.sort(key=lambda path: order.index(path.name))
    runs = [RECORDS / name for name in BESIDE.get(experiment, [])] + names
    words = []
    for path in runs:
        kind = path.name.rsplit("_", 1)[0]
        label = (labels or {}).get(kind, kind)
        words.append(f"{label}={path.relative_to(ROOT)}")
    command = [*rezero(), "report", *words, "--out", str(REPORTS / experiment), "--title", title]
    command += ["--into", str(PAGE), "--name", experiment, "--no-jacobian"]
    if baseline:
        command += ["--baseline", baseline]
    if experiment in TARGETS:
        command += ["--target", TARGETS[experiment]]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["list", "run", "record", "report"])
    parser.add_argument("experiments", nargs="*", help="all, if none is named")
    parser.add_argument("--cifar")
    parser.add_argument("--text")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    known = experiments()
    for name in args.experiments:
        if name not in known:
            parser.error(f"unknown experiment {name!r}; there are {', '.join(known)}")
    chosen = args.experiments or list(known)
    if args.action == "list":
        for experiment in chosen:
            for name, commands in known[experiment].items():
                print(f"{experiment}/{name}:", "; ".join(shlex.join(["rezero", *words]) for words in commands))
    elif args.action == "run":
        for experiment in chosen:
            with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
                # The runs that others grow from come first.
                jobs = sorted(known[experiment].items(), key=lambda job: job[1][0][0] == "grow")
                seeds = [job for job in jobs if job[1][0][0] != "grow"]
                for batch in (seeds, jobs[len(seeds) :]):
                    for line in pool.map(lambda job: run_one(experiment, *job, args), batch):
                        print(line, flush=True)
    elif args.action == "record":
        for experiment in chosen:
            for name in known[experiment]:
                if (WORK / experiment / name / "metrics.jsonl").exists():
                    record(WORK / experiment / name, RECORDS / experiment / name)
    else:
        for experiment in chosen:
            if (RECORDS / experiment).exists():
                report(experiment)
        insert(README, "claims", claims())


if __name__ == "__main__":
    main()
