# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.9.1"]
# ///
"""The workloads of `rezero bench` in PyTorch: the same names and sizes, the same definition of a step, the same keys.

    uv run benches/pytorch.py mlp-64,lm-small,resnet-20 [--steps N] [--threads N]
    uv run benches/pytorch.py lm:layers=4,d_model=192,n_heads=6,length=200,batch=5
    uv run benches/pytorch.py lm-paper,resnet-56 --device cuda --dtype bf16 --compile
    uv run benches/pytorch.py --peaks

Each workload prints one JSON object; beside the keys of `rezero bench --json` it has `gflop`, the products of a
training step, and `mb_moved`, what a step must read and write of parameters, gradients and optimizer state.
`decode` reads the prompts in one pass and keeps keys and values in preallocated tensors; `decode-nocache` computes the whole sequence for every byte,
as the authors' modules do. On a GPU, `--dtype tf32` lets products be TF32 and `--dtype bf16` is autocast; `--compile` is
torch.compile, and `--compile reduce-overhead` captures its launches. `--peaks` measures the machine: GFLOP/s of a large product and GB/s of a large copy.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F
from torch import nn

WARM_UP = 2
DEVICE, DTYPE, COMPILE, SAVE = "cpu", "f32", "", False
LM = {"layers": 6, "d_model": 256, "n_heads": 8, "d_ff": 1024, "length": 128, "batch": 8}
DECODE = {**LM, "prompt": 1, "batch": 1}
PATCHES = {"image": 32, "patch": 4, "batch": 128}
VIT = {"layers": 12, "d_model": 64, "n_heads": 4, "d_ff": 256, **PATCHES}
MIXER = {"layers": 12, "d_model": 64, "d_tokens": 64, "d_ff": 256, **PATCHES}
LM_PAPER = {"layers": 12, "d_model": 512, "n_heads": 8, "d_ff": 2048, "length": 512, "batch": 16}


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x, branch):
        return x + self.alpha * branch


class Mlp(nn.Module):
    def __init__(self, layers, width):
        super().__init__()
        self.input, self.output = nn.Linear(3072, width), nn.Linear(width, 10)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.gates = nn.ModuleList(Gate() for _ in range(layers))

    def forward(self, x):
        x = self.input(x)
        for linear, gate in zip(self.hidden, self.gates):
            x = gate(x, F.relu(linear(x)))
        return self.output(x)


class TransformerLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff):
        super().__init__()
        self.attention = nn.MultiheadAttention(d_model, n_heads, batch_first=True)
        self.up, self.down = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.gate = Gate()

    def forward(self, x, mask):
        attended, _ = self.attention(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
        x = self.gate(x, attended)
        return self.gate(x, self.down(F.relu(self.up(x))))

    def step(self, x, cache, at):
        """Positions from `at` on, with the keys and values before them: one, or all of a prompt at 0."""
        n, (batch, length, d) = self.attention.num_heads, x.shape
        projected = F.linear(x, self.attention.in_proj_weight, self.attention.in_proj_bias)
        q, k, v = projected.view(batch, length, 3, n, d // n).permute(2, 0, 3, 1, 4)
        end = at + length
        cache[0][:, :, at:end], cache[1][:, :, at:end] = k, v
        keys, values = cache[0][:, :, :end], cache[1][:, :, :end]
        attended = F.scaled_dot_product_attention(q, keys, values, is_causal=length > 1)
        x = self.gate(x, self.attention.out_proj(attended.transpose(1, 2).reshape(batch, length, d)))
        return self.gate(x, self.down(F.relu(self.up(x))))


class LanguageModel(nn.Module):
    def __init__(self, layers, d_model, n_heads, d_ff, length):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(256, d_model), nn.Embedding(length, d_model)
        self.layers = nn.ModuleList(TransformerLayer(d_model, n_heads, d_ff) for _ in range(layers))
        self.head = nn.Linear(d_model, 256)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens):
        length = tokens.shape[1]
        mask = self.mask[:length, :length]
        x = self.embedding(tokens) + self.positions.weight[:length]
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x)


class Block(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(c_out), nn.BatchNorm2d(c_out)
        self.gate, self.extra = Gate(), c_out - c_in

    def forward(self, x):
        branch = F.relu(self.norm1(self.conv1(x)))
        branch = F.relu(self.norm2(self.conv2(branch)))
        if self.extra:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return self.gate(x, branch)


class ResNet(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16] * (depth // 6) + [32] * (depth // 6) + [64] * (depth // 6)
        self.blocks = nn.Sequential(*(Block(a, b, 1 + (a != b)) for a, b in zip([16, *widths], widths)))
        self.linear = nn.Linear(64, 10)

    def forward(self, images):
        x = self.blocks(F.relu(self.norm(self.conv(images))))
        return self.linear(x.mean((2, 3)))


class VitLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff):
        super().__init__()
        self.attention = nn.MultiheadAttention(d_model, n_heads, batch_first=True)
        self.up, self.down = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.gate = Gate()

    def forward(self, x):
        x = self.gate(x, self.attention(x, x, x, need_weights=False)[0])
        return self.gate(x, self.down(F.gelu(self.up(x))))


class Vit(nn.Module):
    def __init__(self, layers, d_model, n_heads, d_ff, image, patch):
        super().__init__()
        self.patches = nn.Conv2d(3, d_model, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn((image // patch) ** 2, d_model))
        self.layers = nn.Sequential(*(VitLayer(d_model, n_heads, d_ff) for _ in range(layers)))
        self.head = nn.Linear(d_model, 10)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.layers(x).mean(1))


class MixerLayer(nn.Module):
    def __init__(self, patches, d_model, d_tokens, d_ff):
        super().__init__()
        self.tokens_up, self.tokens_down = nn.Linear(patches, d_tokens), nn.Linear(d_tokens, patches)
        self.up, self.down = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.gate = Gate()

    def forward(self, x):
        mixed = self.tokens_down(F.gelu(self.tokens_up(x.transpose(1, 2)))).transpose(1, 2)
        x = self.gate(x, mixed)
        return self.gate(x, self.down(F.gelu(self.up(x))))


class Mixer(nn.Module):
    def __init__(self, layers, d_model, d_tokens, d_ff, image, patch):
        super().__init__()
        self.patches = nn.Conv2d(3, d_model, patch, patch)
        patches = (image // patch) ** 2
        self.layers = nn.Sequential(*(MixerLayer(patches, d_model, d_tokens, d_ff) for _ in range(layers)))
        self.head = nn.Linear(d_model, 10)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(self.layers(x).mean(1))


def parse(text):
    """The kind and sizes of a workload; a name that is not understood ends the program, as another would be timed."""
    base, _, settings = text.partition(":")
    named = {
        "lm": ("lm", LM), "lm-small": ("lm", LM), "lm-paper": ("lm", LM_PAPER),
        "decode": ("decode", DECODE), "decode-nocache": ("decode-nocache", DECODE),
        "latency": ("latency", {"depth": 20, "batch": 1}), "vit": ("vit", VIT), "mixer": ("mixer", MIXER),
    }
    kind, _, number = base.partition("-")
    try:
        if kind == "mlp":
            sizes = {"layers": int(number or 64), "width": 256, "batch": 100}
        elif kind == "resnet":
            sizes = {"depth": int(number or 20), "batch": 128}
        else:
            kind, sizes = named[base]
        given = {key: int(value) for key, value in (s.split("=") for s in settings.split(",") if s)}
    except (KeyError, ValueError):
        sys.exit(f"error: workload {text!r}: not one of mlp-L, resnet-N, {', '.join(named)}, each with :key=value,…")
    if unknown := given.keys() - sizes.keys():
        sys.exit(f"error: workload {text!r}: unknown key {', '.join(sorted(unknown))} (known: {', '.join(sizes)})")
    if "d_model" in given:
        given.setdefault("d_ff", 4 * given["d_model"])
    sizes = {**sizes, **given}
    depths = range(8, 9_999, 6)
    divided = sizes.get("d_model", 0) % max(sizes.get("n_heads", 1), 1) == 0
    divided &= sizes.get("image", 0) % max(sizes.get("patch", 1), 1) == 0
    if min(sizes.values()) < 1 or not divided or sizes.get("depth", 8) not in depths:
        sys.exit(f"error: workload {text!r}: sizes are from 1 on, n_heads divides d_model, patch image, depth is 6n+2")
    return kind, sizes


def products(model, x):
    """Multiply-adds of one forward pass in linear layers and convolutions, and those of the layers on the input."""
    counted, handles = [], []

    def count(module, args, out):
        weight = module.in_proj_weight.numel() + module.out_proj.weight.numel() if hasattr(
            module, "in_proj_weight") else module.weight.numel()
        places = out.numel() // out.shape[1] if out.dim() == 4 else args[0].numel() // args[0].shape[-1]
        counted.append(weight * places)

    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not isinstance(
            module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            handles.append(module.register_forward_hook(count))
        if isinstance(module, nn.MultiheadAttention):
            handles.append(module.register_forward_hook(lambda m, a, o: count(m, a, o[0])))
    with torch.no_grad():
        model.train()(x)
    for handle in handles:
        handle.remove()
    return sum(counted), counted[0] if x.is_floating_point() else 0


def training(kind, s):
    if kind == "mlp":
        model = Mlp(s["layers"], s["width"])
        make, traffic = lambda p: torch.optim.Adagrad(p, 0.01, eps=1e-10), 8
        x, y, items = torch.randn(s["batch"], 3072), torch.arange(s["batch"]) % 10, s["batch"]
    elif kind == "lm":
        model = LanguageModel(*(s[k] for k in ("layers", "d_model", "n_heads", "d_ff", "length")))
        make, traffic = lambda p: torch.optim.Adam(p, 1e-3), 10
        items = s["batch"] * s["length"]
        x, y = torch.randint(256, (s["batch"], s["length"])), torch.randint(256, (items,))
    elif kind in ("vit", "mixer"):
        model = (Vit if kind == "vit" else Mixer)(*(size for key, size in s.items() if key != "batch"))
        make, traffic = lambda p: torch.optim.Adam(p, 1e-3), 10
        x, y, items = torch.randn(s["batch"], 3, s["image"], s["image"]), torch.arange(s["batch"]) % 10, s["batch"]
    else:
        model = ResNet(s["depth"])
        make, traffic = lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-4), 8
        x, y, items = torch.randn(s["batch"], 3, 32, 32), torch.arange(s["batch"]) % 10, s["batch"]
    model, x, y = model.to(DEVICE), x.to(DEVICE), y.to(DEVICE)
    optimizer = make(model.parameters())
    forward = torch.compile(model, mode=COMPILE) if COMPILE else model
    if COMPILE:
        # Inductor's search through the graph calls itself once for each of its nodes: mlp-1000 has some thousands.
        sys.setrecursionlimit(100_000)

    def step():
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DTYPE == "bf16"):
            logits = forward(x)
        loss = F.cross_entropy((logits.flatten(0, 1) if kind == "lm" else logits).float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    def save(file):
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)

    def floor():
        if DEVICE != "cpu":
            return {"gpu_mb": torch.cuda.max_memory_reserved() >> 20, "peak_gpu_mb": torch.cuda.max_memory_allocated() >> 20}
        forward, of_input = products(model, x)
        flop = 2 * (3 * forward - of_input)
        if kind == "lm":
            # Scores and contexts of the keys that a query sees, forward and both gradients.
            flop += 6 * 2 * s["layers"] * s["batch"] * s["d_model"] * s["length"] * (s["length"] + 1) // 2
        if kind == "vit":
            # Scores and contexts, forward and both gradients.
            flop += 6 * 2 * s["layers"] * s["batch"] * s["d_model"] * (s["image"] // s["patch"]) ** 4
        parameters = sum(p.numel() for p in model.parameters())
        return {"gflop": round(flop / 1e9, 3), "mb_moved": round(4e-6 * traffic * parameters, 1)}

    return step, items, floor, save


def inference(kind, s):
    if kind == "latency":
        model, x = ResNet(s["depth"]).eval(), torch.randn(s["batch"], 3, 32, 32)
        return lambda: model(x), s["batch"]
    length, batch = s["length"], s["batch"]
    # The last byte that is written is not read.
    context = s["prompt"] + length - 1
    model = LanguageModel(*(s[k] for k in ("layers", "d_model", "n_heads", "d_ff")), context).eval()
    n, width = s["n_heads"], s["d_model"] // s["n_heads"]
    prompts = torch.arange(batch * s["prompt"]).view(batch, -1) * 7919 % 256

    def cached():
        caches = [torch.empty(2, batch, n, context, width) for _ in model.layers]
        tokens, at = prompts, 0
        for _ in range(length):
            end = at + tokens.shape[1]
            x = model.embedding(tokens) + model.positions.weight[at:end]
            for layer, cache in zip(model.layers, caches):
                x = layer.step(x, cache, at)
            tokens, at = model.head(x[:, -1:]).argmax(2), end
            tokens.tolist()

    def whole():
        tokens = prompts
        for _ in range(length):
            token = model(tokens)[:, -1:].argmax(2)
            tokens = torch.cat([tokens, token], 1)
            token.tolist()

    return cached if kind == "decode" else whole, batch * length


def run(name, steps):
    torch.manual_seed(0)
    kind, sizes = parse(name)
    floor = dict
    if kind in ("mlp", "lm", "resnet", "vit", "mixer"):
        step, items, floor, save = training(kind, sizes)
        times = timed(step, steps)
        if SAVE:
            with tempfile.TemporaryDirectory() as folder:
                save(f"{folder}/checkpoint.pt")
    else:
        step, items = inference(kind, sizes)
        with torch.inference_mode():
            times = timed(step, steps)
    median = statistics.median(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({
        "framework": f"pytorch {torch.__version__}", "device": DEVICE, "workload": name,
        "dtype": DTYPE, "compiled": bool(COMPILE), "mode": COMPILE or "eager",
        "ms_min": round(min(times), 3), "ms_median": round(median, 3), "ms_max": round(max(times), 3),
        "items_per_s": round(1e3 * items / median, 1), "peak_rss_mb": peak, **floor(),
    }), flush=True)


def timed(step, steps):
    times = []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    return times[WARM_UP:]


def peaks():
    a, b = torch.randn(2, 2048, 2048)
    source = torch.randn(1 << 26)
    target = torch.empty_like(source)
    product = min(timed(lambda: a @ b, 10))
    copy = min(timed(lambda: target.copy_(source), 10))
    print(json.dumps({
        "gflop_per_s": round(2e-6 * 2048**3 / product, 1),
        "gb_per_s": round(2e-6 * 4 * source.numel() / copy, 1),
    }))


def split(workloads):
    """`a,b:x=1,y=2,c`: what has `=` but no `:` belongs to the one before it."""
    names = []
    for item in workloads.split(","):
        if names and "=" in item and ":" not in item:
            names[-1] += "," + item
        else:
            names.append(item)
    return names


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("workloads", nargs="?")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; decode and latency run on the CPU")
    parser.add_argument("--dtype", default="f32", choices=["f32", "tf32", "bf16"])
    parser.add_argument("--compile", nargs="?", const="default", default="", choices=["default", "reduce-overhead", "max-autotune"])
    parser.add_argument("--save", action="store_true", help="write a checkpoint after the steps, which counts in peak_rss_mb")
    parser.add_argument("--peaks", action="store_true")
    args = parser.parse_args()
    global DEVICE, DTYPE, COMPILE, SAVE
    DEVICE, DTYPE, COMPILE, SAVE = args.device, args.dtype, args.compile, args.save
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.dtype == "tf32"
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.peaks:
        return peaks()
    names = split(args.workloads or parser.error("name a workload"))
    if len(names) == 1:
        return run(names[0], args.steps)
    # A process has one peak of memory: each workload gets its own.
    for name in names:
        threads = ["--threads", str(args.threads)] if args.threads else []
        threads += ["--device", DEVICE, "--dtype", DTYPE, *(["--compile", COMPILE] if COMPILE else []), *(["--save"] if SAVE else [])]
        subprocess.run([sys.executable, __file__, name, "--steps", str(args.steps), *threads], check=True)


if __name__ == "__main__":
    main()
