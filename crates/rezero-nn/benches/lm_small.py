# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.9.1"]
# ///
"""The `lm-small` step of `cargo bench -p rezero-nn` in PyTorch: median milliseconds and tokens a second of ten steps.

    uv run crates/rezero-nn/benches/lm_small.py
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

LAYERS, D_MODEL, HEADS, D_FF, LENGTH, BATCH = 6, 256, 8, 1024, 128, 8


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(D_MODEL, D_FF), nn.Linear(D_FF, D_MODEL)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x, mask):
        attended, _ = self.attention(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
        x = x + self.alpha * attended
        return x + self.alpha * self.linear2(F.relu(self.linear1(x)))


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(256, D_MODEL), nn.Embedding(LENGTH, D_MODEL)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(D_MODEL, 256)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        x = self.embedding(tokens) + self.positions.weight
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x)


model = LanguageModel()
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
tokens, targets = torch.randint(256, (2, BATCH, LENGTH))
times = []
for step in range(12):
    start = time.perf_counter()
    loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    loss.item()
    times.append(time.perf_counter() - start)
median = statistics.median(times[2:])
print(f"PyTorch {torch.__version__}: {1e3 * median:.0f} ms a step, {BATCH * LENGTH / median:.0f} tokens/s")
