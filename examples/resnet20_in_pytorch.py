#!/usr/bin/env python3
"""ResNet-20 of `rezero export zoo:resnet20-cifar10` in PyTorch: accuracy on a file of CIFAR-10's binary records.

    python3 examples/resnet20_in_pytorch.py model.safetensors cifar-10-batches-bin/test_batch.bin

Needs torch and safetensors.
"""

import sys

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """x + α · relu(bn2(conv2(relu(bn1(conv1(x)))))), without a ReLU after the sum."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.resweight = nn.Parameter(torch.zeros(1))
        self.stride, self.added = stride, (c_out - c_in) // 2

    def forward(self, x):
        branch = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        # The shortcut: every second pixel, and channels of zeros on both sides.
        x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        return x + self.resweight * branch


class ResNet20(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))


def main():
    model = ResNet20().eval()
    model.load_state_dict(load_file(sys.argv[1]))
    records = torch.frombuffer(bytearray(open(sys.argv[2], "rb").read()), dtype=torch.uint8).view(-1, 3073)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    images = (records[:, 1:].view(-1, 3, 32, 32) / 255 - mean) / std
    with torch.inference_mode():
        classes = torch.cat([model(part).argmax(1) for part in images.split(500)])
    correct = (classes == records[:, 0]).sum().item()
    print(f"{100 * correct / len(records):.2f} % of {len(records)} images")


if __name__ == "__main__":
    main()
