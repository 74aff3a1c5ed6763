#!/usr/bin/env python3
"""Recipes of earlier versions in the form of this one; records are told what they are measured by.

    python3 results/convert.py FILE.toml…     rewrites recipe files in place
    python3 results/convert.py --records      rewrites every recipe.toml and env.json below results/records

A flat table of keys gets sections; data.crop_padding and data.flip become data.augment. What is in that form already is
left alone. Keys that have no effect are left out, since recipes refuse them now.
"""

import json
import pathlib
import re
import sys
import tomllib

RECORDS = pathlib.Path(__file__).resolve().parent / "records"

SECTIONS = {
    "model": "depth definition width d_model n_heads d_ff context dropout activation norm positions tied bias embedding_scale init",
    "data": "normalization crop_padding flip drop_last stride train_items valid_items",
    "optimizer": "lr momentum weight_decay beta1 beta2 epsilon bias_lr bias_gamma bias_milestones",
    "gates": "alpha_init alpha_per_channel alpha_trainable alpha_shared alpha_bound alpha_optimizer alpha_lr alpha_weight_decay",
    "schedule": "milestones gamma warmup_epochs warmup_steps lr_start lr_low lr_end peak_at low_at momentum_low",
    "train": "seed batch accumulate recompute dtype clip_norm",
    "run": "epochs steps eval_every checkpoint_every keep log_every prefetch device",
}
RENAMED = {"model": ("model", "family"), "arm": ("model", "scheme"), "data": ("data", "set"), "optimizer": ("optimizer", "kind"), "schedule": ("schedule", "kind"), "target_bpb": ("run", "target")}
PLACE = {key: (section, key) for section, keys in SECTIONS.items() for key in keys.split()} | RENAMED

TEXT_ONLY = set("d_model n_heads d_ff context dropout activation norm positions tied bias embedding_scale init stride target_bpb".split())
IMAGES_ONLY = set("normalization crop_padding flip drop_last epochs".split())
ADAM_ONLY = {"beta1", "beta2", "epsilon"}
WARM_UP = {"warmup_epochs", "warmup_steps"}
ONE_CYCLE = set("lr_start lr_low lr_end peak_at low_at momentum_low".split())
GATED = {"rezero", "gated", "skipinit", "layerscale"}


def scheme(family, arm):
    """An arm's name among the residual schemes."""
    if arm == "vanilla":
        return "plain" if family == "mlp" else "residual"
    return {"layer-norm": "plain-shared-norm", "layer-norm-each": "plain-norm"}.get(arm, arm)


def idle(key, old):
    """Whether a key has no effect beside the others."""
    family, optimizer, schedule = old.get("model", "cifar-resnet"), old.get("optimizer", "sgd"), old.get("schedule", "multi-step")
    text, arm = family == "byte-lm", old.get("arm", "rezero")
    return (
        (key in TEXT_ONLY and not text)
        or (key in IMAGES_ONLY and text)
        or (key == "definition" and family != "cifar-resnet")
        or (key == "width" and family != "mlp")
        or (key == "recompute" and family not in ("mlp", "byte-lm"))
        or (key in ADAM_ONLY and optimizer not in ("adam", "adamw", "lamb"))
        or (key == "momentum" and optimizer != "sgd")
        or (key.startswith("bias_") and (optimizer != "sgd" or old.get("bias_lr", 0) == 0) and (key, optimizer) != ("bias_lr", "sgd"))
        or (key in ("milestones", "gamma") and schedule != "multi-step")
        or (key in ONE_CYCLE and schedule != "one-cycle")
        or (key in WARM_UP and schedule == "one-cycle")
        or (key == "warmup_epochs" and old.get("warmup_steps", 0) > 0)
        or (key.startswith("alpha_") and arm not in GATED)
        or (key == "alpha_shared" and not (text and arm in ("rezero", "gated")))
        or (key in ("alpha_lr", "alpha_weight_decay") and old.get("alpha_optimizer", "shared") == "shared")
    )


def written(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def convert(text):
    """A flat recipe's text in sections, its comments first."""
    old = tomllib.loads(text)
    if any(isinstance(value, dict) for value in old.values()):
        return text
    sections = {section: {} for section in SECTIONS}
    for key, value in old.items():
        section, name = PLACE[key]
        if idle(key, old):
            continue
        if key == "arm":
            value = scheme(old.get("model", "cifar-resnet"), value)
        sections[section][name] = value
    # The flat default was a schedule with milestones.
    sections["schedule"].setdefault("kind", "multi-step")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    parts = ["\n".join(comments)] if comments else []
    for section, table in sections.items():
        first = [key for key in ("family", "set", "kind") if key in table]
        keys = first + [key for key in table if key not in first]
        if keys:
            parts.append("\n".join([f"[{section}]"] + [f"{key} = {written(table[key])}" for key in keys]))
    return "\n\n".join(parts) + "\n"


def augmented(text):
    """The keys crop_padding and flip of a recipe in sections as one list."""
    section = re.search(r"^\[data\]\n((?:(?!\[).*\n?)*)", text, re.M)
    found = section and dict(re.findall(r"^(crop_padding|flip) = (\w+)\n", section[1], re.M))
    if not found:
        return text
    padding, flip = int(found.get("crop_padding", 4)), found.get("flip", "true") == "true"
    steps = [f"crop:padding={padding}"] * (padding > 0) + ["flip"] * flip
    line = f'augment = "{",".join(steps) or "none"}"\n'
    keys = re.sub(r"^(crop_padding|flip) = \w+\n", line, section[1], count=1, flags=re.M)
    keys = re.sub(r"^(crop_padding|flip) = \w+\n", "", keys, flags=re.M)
    return text[: section.start(1)] + keys + text[section.end(1) :]


TASKS = {
    True: {"items": "bytes", "loss_unit": "nats", "key": "bpb", "label": "Bits per byte", "shown_times": 1.0, "sign": " bpb", "digits": 3, "higher_is_better": False},
    False: {"items": "images", "loss_unit": "nats", "key": "accuracy", "label": "Accuracy", "shown_times": 100.0, "sign": " %", "digits": 1, "higher_is_better": True},
}


def main():
    args = sys.argv[1:]
    if not args:
        sys.exit(__doc__)
    records = args == ["--records"]
    files = sorted(RECORDS.glob("*/*/recipe.toml")) if records else map(pathlib.Path, args)
    for file in files:
        file.write_text(augmented(convert(file.read_text())))
        if records:
            env = file.with_name("env.json")
            content = json.loads(env.read_text())
            content["task"] = TASKS["bpb" in file.with_name("metrics.jsonl").read_text()]
            env.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
