#!/usr/bin/env python3
"""Writes rand_augment.bin.gz for tests/augmentations.rs: what Pillow makes of two images with the operations of RandAugment.
Needs Pillow (written with 13.0.0).

The file holds, for the RGB image and for the grey image, its pixels, then those of every result in the order of the loops
below; all as bytes [channel, row, column]. The ranges are those of torchvision.transforms.RandAugment with 31 magnitudes.
"""

import gzip
import math
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


def main():
    out = bytearray()
    for image in (scene(), scene().convert("L")):
        out += planes(image)
        for name in NAMES:
            for magnitude in MAGNITUDES:
                for sign in (1, -1):
                    out += planes(change(image, name, magnitude, sign))
    file = Path(__file__).with_name("rand_augment.bin.gz")
    file.write_bytes(gzip.compress(bytes(out), 9, mtime=0))


main()
