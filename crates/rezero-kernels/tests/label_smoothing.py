#!/usr/bin/env python3
"""Prints the numbers of tests/losses.rs that are PyTorch's: `CrossEntropyLoss` with smoothed labels, and with the shares of
a mixed image. Written with PyTorch 2.9.1."""

import torch

logits = torch.tensor([[0.5, -1.25, 2.0, 0.0], [-3.0, 4.5, 0.25, 1.0], [0.0, 0.0, 0.0, 9.0]], dtype=torch.float64, requires_grad=True)
targets = torch.tensor([2, 0, 3])
for name, loss, wanted in [
    ("SMOOTH", torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none"), targets),
    ("MIXED", torch.nn.CrossEntropyLoss(reduction="none"), torch.tensor([[0.3, 0.0, 0.7, 0.0], [0.0, 0.25, 0.0, 0.75], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)),
]:
    losses = loss(logits, wanted)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    print(f"const {name}: [f32; 3] = {losses.tolist()};")
    print(f"const {name}_GRADIENT: [f32; 12] = {gradient.flatten().tolist()};")
