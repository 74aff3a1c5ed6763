#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.9.1", "numpy", "safetensors"]
# ///
"""The PyTorch half of check-import.sh: `make DATA WORK` trains and saves two networks, `back DATA WORK NAME` loads one back."""

import json
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

STEPS, BATCH, DEPTH = 60, 64, 8
# The recipe's normalization=table.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def conv(c_in, c_out, k, stride=1):
    return nn.Conv2d(c_in, c_out, k, stride, padding=k // 2, bias=False)


class Block(nn.Module):
    def __init__(self, c_in, c_out, stride, projection):
        super().__init__()
        self.stride, self.extra = stride, c_out - c_in
        self.conv1, self.bn1 = conv(c_in, c_out, 3, stride), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = conv(c_out, c_out, 3), nn.BatchNorm2d(c_out)
        self.downsample = None
        if projection and stride > 1:
            self.downsample = nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))

    def forward(self, x):
        f = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.extra:
            # Option A: every second pixel, and zeros for the new channels.
            half = self.extra // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(f + x)


class ResNet(nn.Module):
    """ResNet-8 for CIFAR-10, under torchvision's names."""

    def __init__(self, projection):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16, 3), nn.BatchNorm2d(16)
        c_in = 16
        for stage, c_out in enumerate((16, 32, 64), 1):
            strides = [1 if stage == 1 else 2] + [1] * ((DEPTH - 2) // 6 - 1)
            blocks = []
            for stride in strides:
                blocks.append(Block(c_in, c_out, stride, projection))
                c_in = c_out
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))


def batch_file(path):
    records = np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255)
    images = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return images, torch.from_numpy(records[:, 0].astype(np.int64))


def score(net, data):
    images, labels = batch_file(data / "cifar-10-batches-bin/test_batch.bin")
    net.eval()
    with torch.no_grad():
        logits = torch.cat([net(part) for part in images.split(250)])
    correct = int((logits.argmax(1) == labels).sum())
    return logits, {"correct": correct, "of": len(labels), "loss": float(F.cross_entropy(logits, labels))}


def make(data, work):
    # Threads that wait for each other are slow on a machine that does other work.
    torch.set_num_threads(1)
    images, labels = batch_file(data / "cifar-10-batches-bin/data_batch_1.bin")
    for name in ("projection", "option_a"):
        torch.manual_seed(1)
        net = ResNet(name == "projection")
        optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
        for _ in range(STEPS):
            some = torch.randint(len(images), (BATCH,))
            optimizer.zero_grad()
            F.cross_entropy(net(images[some]), labels[some]).backward()
            optimizer.step()
        state = net.state_dict()
        if name == "option_a":
            # As a wrapper of several GPUs saves it, in half precision, under the names of another well-known script.
            state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
            net.load_state_dict(state)
            names = {n: "module." + n.replace("fc.", "linear.") for n in state}
            saved = {"state_dict": {names[n]: t for n, t in state.items()}, "best_prec1": 0.0}
        else:
            saved = {"net": state, "optimizer": optimizer.state_dict(), "epoch": 3}
        torch.save(saved, work / f"{name}.pt")
        torch.save(net.state_dict(), work / f"{name}.reference.pt")
        print(f"PyTorch, {name}: {score(net, data)[1]}")


def back(data, work, name):
    reference = ResNet(name == "projection")
    reference.load_state_dict(torch.load(work / f"{name}.reference.pt"))
    net = ResNet(name == "projection")
    exported = load_file(work / f"{name}.safetensors")
    # Burn counts no batches; PyTorch fills the counters of a file without a version.
    net.load_state_dict(exported, strict=True)
    tensors = {n: t for n, t in reference.state_dict().items() if t.is_floating_point()}
    assert tensors.keys() == exported.keys(), tensors.keys() ^ exported.keys()
    assert all(torch.equal(exported[n], t) for n, t in tensors.items())
    logits, ours = score(net, data)
    wanted, theirs = score(reference, data)
    assert torch.equal(logits, wanted)
    rezero = json.loads((work / f"{name}.json").read_text())
    print(f"PyTorch: {theirs}\nrezero:  {rezero}")
    print(f"exported: {len(exported)} tensors, all equal; loaded back with strict=True, the same logits")
    assert rezero["items"] == theirs["of"], "another number of images"
    assert round(rezero["accuracy"] * theirs["of"]) == theirs["correct"], "another accuracy"
    assert abs(rezero["loss"] - theirs["loss"]) <= 1e-5 * theirs["loss"], "another loss"


if __name__ == "__main__":
    command, data, work, *rest = sys.argv[1:]
    {"make": make, "back": back}[command](pathlib.Path(data), pathlib.Path(work), *rest)
