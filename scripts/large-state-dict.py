#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.9.1", "numpy", "safetensors"]
# ///
"""Writes a language model of 405 MB as a state dict, DIR/large.pt and DIR/large.safetensors, to time `rezero import`:

    uv run scripts/large-state-dict.py DIR
    cargo run --release -p rezero-examples --example load_pytorch -- DIR/large.pt

Eight layers of d_model 1024, d_ff 4096, 256 bytes, context 128; random weights, standard deviation 0.02."""

import pathlib
import sys

import torch
from safetensors.torch import save_file

D, FF, LAYERS, CONTEXT, VOCABULARY = 1024, 4096, 8, 128, 256

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(1)
shapes = {"embedding.weight": (VOCABULARY, D), "positions.weight": (CONTEXT, D)}
for i in range(LAYERS):
    layer = f"encoder.layers.{i}."
    shapes |= {
        layer + "self_attn.in_proj_weight": (3 * D, D),
        layer + "self_attn.in_proj_bias": (3 * D,),
        layer + "self_attn.out_proj.weight": (D, D),
        layer + "self_attn.out_proj.bias": (D,),
        layer + "linear1.weight": (FF, D),
        layer + "linear1.bias": (FF,),
        layer + "linear2.weight": (D, FF),
        layer + "linear2.bias": (D,),
        layer + "resweight": (1,),
    }
shapes |= {"head.weight": (VOCABULARY, D), "head.bias": (VOCABULARY,)}
state = {name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}
torch.save(state, out / "large.pt")
save_file(state, out / "large.safetensors", metadata={"format": "pt"})
for file in ("large.pt", "large.safetensors"):
    print(f"{out / file}: {(out / file).stat().st_size / 1e6:.0f} MB")
