#!/usr/bin/env python3
"""Writes what Pillow makes of two images: rand_augment.bin.gz for tests/augmentations.rs, jitter.bin.gz and rotate.bin.gz for
src/augment/jitter.rs and src/augment/rotate.rs. Needs Pillow (written with 13.0.0).

Each file holds, for the RGB image and for the grey image, its pixels, then those of every result in the order of the loops
below; all as bytes [channel, row, column]. In jitter.bin.gz and rotate.bin.gz a result comes after its factors or its angle,
as floats of four bytes. The ranges of RandAugment are those of torchvision.transforms.RandAugment with 31 magnitudes;
jitter and rotation are what torchvision's ColorJitter and RandomRotation call for PIL images.
"""

import gzip
import itertools
import math
import random
import struct
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

WIDTH, HEIGHT = 26, 23
MAGNITUDES = [0, 1, 9, 16, 30]


def scene():
    """Slopes, an edge and some texture, with few dark and no bright bytes, so that a stretch has an effect."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            edge = 60 if 3 * x > 2 * y + WIDTH // 2 else 0
            image.putpixel((x, y), (20 + 4 * x + edge, 30 + 7 * y + x * y % 5, 40 + (5 * x + 3 * y * y) % 150))
    return image


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def change(image, name, m, sign):
    shear = sign * 0.3 * m / 30
    shift = lambda side: sign * math.floor(150 / 331 * side * m / 30)
    factor = 1 + sign * 0.9 * m / 30
    match name:
        case "Identity":
            return image
        case "ShearX":
            return affine(image, 1, shear, 0, 0, 1, 0)
        case "ShearY":
            return affine(image, 1, 0, 0, shear, 1, 0)
        case "TranslateX":
            return affine(image, 1, 0, -shift(WIDTH), 0, 1, 0)
        case "TranslateY":
            return affine(image, 1, 0, 0, 0, 1, -shift(HEIGHT))
        case "Rotate":
            return image.rotate(sign * m, Image.Resampling.NEAREST)
        case "Brightness" | "Color" | "Contrast" | "Sharpness":
            return getattr(ImageEnhance, name)(image).enhance(factor)
        case "Posterize":
            return ImageOps.posterize(image, 8 - round(m / 7.5))
        case "Solarize":
            return ImageOps.solarize(image, 255 - 8.5 * m)
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)


NAMES = """Identity ShearX ShearY TranslateX TranslateY Rotate Brightness Color Contrast Sharpness Posterize Solarize
AutoContrast Equalize""".split()


def planes(image):
    return b"".join(band.tobytes() for band in image.split())


def images():
    yield scene()
    yield scene().convert("L")


def write(name, out):
    Path(__file__).with_name(name).write_bytes(gzip.compress(bytes(out), 9, mtime=0))


def rand_augment():
    out = bytearray()
    for image in images():
        out += planes(image)
        for name in NAMES:
            for magnitude in MAGNITUDES:
                for sign in (1, -1):
                    out += planes(change(image, name, magnitude, sign))
    write("rand_augment.bin.gz", out)


def floats(*values):
    """The values as floats of four bytes, and their bytes."""
    data = struct.pack(f"<{len(values)}f", *values)
    return struct.unpack(f"<{len(values)}f", data), data


def jitter():
    """48 results of three factors each. Factors from 0 to 2; those of the first cases are the ends and 1."""
    draw = random.Random(1)
    orders = list(itertools.permutations(range(3), 3))
    out = bytearray()
    for image in images():
        out += planes(image)
        for case in range(48):
            drawn = [draw.uniform(0.75, 1.25) if case < 36 else draw.uniform(0, 2) for _ in range(3)]
            if case < 12:
                drawn[case % 3] = [0, 1, 2, 1.25][case // 3]
            factors, data = floats(*drawn)
            result = image
            # The order of torchvision's names: brightness, contrast, saturation.
            for part in orders[case % 6]:
                enhance = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color][part]
                result = enhance(result).enhance(factors[part])
            out += data + planes(result)
    write("jitter.bin.gz", out)


def rotate():
    """48 angles: up to 2 degrees, then up to 180."""
    draw = random.Random(2)
    out = bytearray()
    for image in images():
        out += planes(image)
        for case in range(48):
            (angle,), data = floats(draw.uniform(-2, 2) if case < 32 else draw.uniform(-180, 180))
            out += data + planes(image.rotate(angle, Image.Resampling.NEAREST, fillcolor=0))
    write("rotate.bin.gz", out)


rand_augment()
jitter()
rotate()
