#!/usr/bin/env python3
"""Writes the images of CIFAR-10's binary version as a folder of PNG files: scripts/cifar-as-folder.py DIR OUT

OUT/train, OUT/val and OUT/test hold a folder for each class. The files are named by the number of their record in the
split, so that `data=folder` has the records of `data=cifar10` in the same order. Needs no other package."""

import struct
import sys
import zlib
from pathlib import Path

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
SIDE = 32
PLANE = SIDE * SIDE
RECORD = 1 + 3 * PLANE


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(planes):
    """A PNG in RGB of three planes of bytes."""
    pixels = bytearray(3 * PLANE)
    for c in range(3):
        pixels[c::3] = planes[c * PLANE : (c + 1) * PLANE]
    # Each row is its differences to the row above it: filter 2.
    rows, before = bytearray(), bytes(3 * SIDE)
    for y in range(SIDE):
        row = pixels[3 * SIDE * y : 3 * SIDE * (y + 1)]
        rows += b"\2" + bytes((a - b) & 255 for a, b in zip(row, before))
        before = row
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def records(files):
    data = b"".join(file.read_bytes() for file in files)
    return [data[at : at + RECORD] for at in range(0, len(data), RECORD)]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    below = folder / "cifar-10-batches-bin"
    folder = below if below.is_dir() else folder
    training = records([folder / f"data_batch_{n}.bin" for n in range(1, 6)])
    # As rezero_data::cifar10: the last tenth validates.
    held_out = max(len(training) // 10, 1)
    splits = {"train": training[:-held_out], "val": training[-held_out:], "test": records([folder / "test_batch.bin"])}
    for split, images in splits.items():
        for name in CLASSES:
            (out / split / name).mkdir(parents=True)
        for i, record in enumerate(images):
            (out / split / CLASSES[record[0]] / f"{i:05}.png").write_bytes(png(record[1:]))
        print(f"{split}: {len(images)} images")


main()
