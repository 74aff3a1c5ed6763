#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets, corpus/TARGET/NAME, each below 4 KB. Needs no other package.

Files there that it does not write have broken a reader: model/long-names, optimizer/named-for-another."""

import gzip
import io
import json
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

HERE = Path(__file__).parent
FIXTURES = HERE.parent / "crates/rezero-nn/tests/fixtures"
PICTURES = HERE.parent / "crates/rezero-data/tests/pictures"
RECIPES = HERE.parent / "crates/rezero-train/recipes"
RECORD = 1 + 3 * 32 * 32

# The parameters of the targets' language model: name in Burn, name in PyTorch, shape in Burn.
PARAMETERS = [
    ("embedding.weight", "embedding.weight", [4, 2]),
    ("positions.weight", "positions.weight", [4, 2]),
    ("head.weight", "head.weight", [2, 4]),
    ("head.bias", "head.bias", [4]),
    ("encoder.layers.0.attention.in_proj.weight", "encoder.layers.0.self_attn.in_proj_weight", [2, 6]),
    ("encoder.layers.0.attention.in_proj.bias", "encoder.layers.0.self_attn.in_proj_bias", [6]),
    ("encoder.layers.0.attention.out_proj.weight", "encoder.layers.0.self_attn.out_proj.weight", [2, 2]),
    ("encoder.layers.0.attention.out_proj.bias", "encoder.layers.0.self_attn.out_proj.bias", [2]),
    ("encoder.layers.0.feed_forward.linear1.weight", "encoder.layers.0.linear1.weight", [2, 3]),
    ("encoder.layers.0.feed_forward.linear1.bias", "encoder.layers.0.linear1.bias", [3]),
    ("encoder.layers.0.feed_forward.linear2.weight", "encoder.layers.0.linear2.weight", [3, 2]),
    ("encoder.layers.0.feed_forward.linear2.bias", "encoder.layers.0.linear2.bias", [2]),
    ("encoder.layers.0.residual.rezero.alpha", "encoder.layers.0.resweight", [1]),
]


def product(shape):
    n = 1
    for extent in shape:
        n *= extent
    return n


def in_pytorch(ours, shape):
    tables = ("embedding.weight", "positions.weight")
    return shape if ours in tables else shape[::-1]


def tensors(prefix=""):
    return [(prefix + theirs, in_pytorch(ours, shape)) for ours, theirs, shape in PARAMETERS]


def write(target, name, data):
    data = data.encode() if isinstance(data, str) else data
    assert len(data) < 4096, (target, name, len(data))
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


# Burn's records: a header, CBOR, and values at the next multiple of 256.


def cbor(value):
    def head(kind, n):
        if n < 24:
            return bytes([kind << 5 | n])
        for code, form in ((24, ">B"), (25, ">H"), (26, ">I"), (27, ">Q")):
            if n < 1 << 8 * struct.calcsize(form):
                return bytes([kind << 5 | code]) + struct.pack(form, n)

    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, str):
        return head(3, len(value)) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


def record(described, scalars={}):
    """Tensors as (name, shape, id). All begin at the same values, which keeps the file short."""
    most = max((product(shape) for _, shape, _ in described), default=0)
    head = {
        "tensors": {
            name: {
                "dtype": "F32",
                "shape": shape,
                "data_offsets": [0, 4 * product(shape)],
                "param_id": id,
            }
            for name, shape, id in sorted(described)
        }
    }
    if scalars:
        head["scalars"] = {key: scalars[key] for key in sorted(scalars)}
    head = cbor(head)
    file = b"NRUB" + struct.pack("<HI", 1, len(head)) + head
    file += bytes(-len(file) % 256)
    return file + b"".join(struct.pack("<f", i / 8) for i in range(most))


def models():
    described = [(ours, shape, i + 1) for i, (ours, _, shape) in enumerate(PARAMETERS)]
    write("model", "whole", record(described))
    write("model", "first", record(described[:1]))
    write("model", "empty", record([]))


def optimizers():
    scalars, described = {}, []
    for i, (_, _, shape) in enumerate(PARAMETERS[:4]):
        scalars[f"{i + 1}.__rank"] = {"UInt": len(shape)}
        scalars[f"{i + 1}.time"] = {"UInt": 3}
        described += [(f"{i + 1}.{moment}", shape, i + 1) for moment in range(2)]
    write("optimizer", "moments", record(described, scalars))
    write("optimizer", "schedule", record([], {"step": {"UInt": 3}}))
    write("optimizer", "empty", record([]))


# PyTorch's files.


def safetensors(described, dtype="F32", size=4):
    header, at = {"__metadata__": {"format": "pt", "n_heads": "1"}}, 0
    for name, shape in described:
        n = size * product(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header, separators=(",", ":"))
    text += " " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text.encode() + bytes(i % 60 for i in range(at))


class Storage:
    def __init__(self, key, n):
        self.key, self.n = key, n


class Tensor:
    def __init__(self, key, shape):
        self.key, self.shape = key, shape

    def __reduce__(self):
        stride = [product(self.shape[i + 1 :]) for i in range(len(self.shape))]
        storage = Storage(self.key, product(self.shape))
        arguments = (storage, 0, tuple(self.shape), tuple(stride), False, OrderedDict())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


def stand_in():
    """Modules with the names that a pickle of PyTorch mentions."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        pass

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    sys.modules.update({"torch": torch, "torch._utils": utils})


def pickled(value, legacy=False):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                kind = sys.modules["torch"].FloatStorage
                more = (None,) if legacy else ()
                return ("storage", kind, value.key, "cpu", value.n, *more)

    out = io.BytesIO()
    Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def state_dict(described):
    return OrderedDict((name, Tensor(str(i), shape)) for i, (name, shape) in enumerate(described))


def values(shape):
    return struct.pack(f"<{product(shape)}f", *range(product(shape)))


def torch_zip(described, value):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        def add(name, data):
            archive.writestr(zipfile.ZipInfo(f"a/{name}"), data)

        add("data.pkl", pickled(value))
        for i, (_, shape) in enumerate(described):
            add(f"data/{i}", values(shape))
        add("version", "3\n")
        add("byteorder", "little")
    # Without checksums, which PyTorch need not write and a changed file would not have.
    file = bytearray(out.getvalue())
    for magic, at in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        place = file.find(magic)
        while place >= 0:
            file[place + at : place + at + 4] = bytes(4)
            place = file.find(magic, place + 4)
    return bytes(file)


def torch_legacy(described):
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    keys = [str(i) for i in range(len(described))]
    parts = [pickled(part) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts += [pickled(state_dict(described), legacy=True), pickled(keys)]
    for _, shape in described:
        parts.append(struct.pack("<q", product(shape)) + values(shape))
    return b"".join(parts)


def weights():
    write("safetensors", "whole", safetensors(tensors()))
    write("safetensors", "prefixed", safetensors(tensors("module.")))
    write("safetensors", "halves", safetensors(tensors()[:4], "BF16", 2))
    write("safetensors", "doubles", safetensors(tensors()[-2:], "F64", 8))
    write("safetensors", "integers", safetensors([("steps", [2])], "I64", 8))
    some = tensors()[:2] + tensors()[-3:]
    write("torch", "zip", torch_zip(some, state_dict(some)))
    write("torch", "nested", torch_zip(some, {"state_dict": state_dict(some), "epoch": 3, "loss": 0.5}))
    write("torch", "legacy", torch_legacy(some))
    write("torch", "legacy-head", (FIXTURES / "authors_legacy.pt").read_bytes()[:4000])
    write("torch", "both", both())


def both():
    """A tar archive whose first name begins as a zip does, with a zip at its end."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in (("PK", b""), ("pickle", pickled({}))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    one = [("a", [1])]
    return out.getvalue()[:2048] + torch_zip(one, state_dict(one))


# Data sets.


def archives():
    folder = "cifar-10-batches-bin"
    batch = bytes([3]) + bytes(RECORD - 1)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]

    def packed(members, format=tarfile.USTAR_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=format) as archive:
            for name, kind, data in members:
                info = tarfile.TarInfo(name)
                info.type, info.size, info.linkname = kind, len(data), "../x" if kind == tarfile.SYMTYPE else ""
                archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    def compressed(members):
        return gzip.compress(packed(members), mtime=0)

    def short(*arguments):
        # Without the zeros at the end, which only fill the last block.
        return packed(*arguments).rstrip(b"\0") + bytes(512)

    file = tarfile.REGTYPE
    write("tar", "whole", compressed([(folder, tarfile.DIRTYPE, b"")] + [(f"{folder}/{n}", file, batch) for n in names]))
    write("tar", "link", short([(f"{folder}/x", tarfile.SYMTYPE, b"")]))
    write("tar", "up", short([(f"{folder}/../x", file, b"x")]))
    write("tar", "long", short([(f"{folder}/{'n' * 200}", file, b"x")], tarfile.GNU_FORMAT))
    write("tar", "pax", short([(f"{folder}/{'n' * 200}é", file, b"x")], tarfile.PAX_FORMAT))
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        for member, size in (("enwik8", 64), ("enwik8", 1 << 16), ("../x", 4)):
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w", method) as archive:
                archive.writestr(zipfile.ZipInfo(member), bytes(size), method)
            if len(out.getvalue()) < 4096:
                write("zip", f"{name}-{member.replace('../', 'up-')}-{size}", out.getvalue())
    write("cifar", "one", batch)
    write("cifar", "label", bytes([10]) + batch[1:])
    write("cifar", "short", batch[:-1])


# Image files, those of the tests, and files of MNIST's format.


def pictures():
    for picture in sorted(PICTURES.glob("*.png")) + sorted(PICTURES.glob("*.jpg")):
        if picture.stat().st_size < 4096:
            write("picture", picture.name, picture.read_bytes())
    for name, dims, content in (("labels", [5], 5), ("images", [2, 3, 4], 24), ("short", [2, 3, 4], 23), ("large", [1 << 31] * 3, 9)):
        header = bytes([0, 0, 8, len(dims)]) + b"".join(n.to_bytes(4, "big") for n in dims)
        write("idx", name, header + bytes(range(content)))


# A run's text files.


def texts():
    for recipe in sorted(RECIPES.glob("*.toml")):
        write("recipe", recipe.stem, recipe.read_bytes())
    seal = {"bytes": 2, "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    names = ("model.bpk", "optimizer.bpk", "scheduler.bpk", "state.json")
    manifest = {"format": 2, "version": "0.1.0", "burn": "0.22.1", "model": "model", "parameters": 5}
    write("records", "manifest", json.dumps(manifest | {"files": {name: seal for name in names}}))
    state = {"step": 3, "metrics_bytes": 9, "recipe": "a", "data": "b", "since": {"items": 2, "loss": 0.5, "named": {"accuracy": 1.0}}}
    score = {"step": 2, "loss": 0.5, "measure": 0.25}
    more = {"valid": score, "best": score, "reached": {"target": 0.5, "step": 2}, "loss_scale": {"factor": 65536.0, "steps": 1999}}
    write("records", "state", json.dumps(state | more))
    row = {"split": "train", "step": 3, "epoch": 1, "loss": "NaN", "accuracy": 0.5, "items": 8, "lr": 0.1, "grad_norm": "inf",
           "layer_grad_norm": [0.5], "alpha": [0.25], "items_per_s": 3.5, "warm_up_s": 1.0, "seconds": 1.5}
    write("records", "row", json.dumps(row))
    write("records", "rows", json.dumps(row) + "\n" + json.dumps(row) + "\n{\"split\":")


stand_in()
models()
optimizers()
weights()
archives()
pictures()
texts()
