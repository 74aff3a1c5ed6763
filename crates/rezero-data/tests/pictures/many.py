# /// script
# requires-python = ">=3.10"
# dependencies = ["pillow==13.0.0", "numpy"]
# ///
"""JPEG files of many kinds and what Pillow reads of them, for `many_jpegs_are_exactly_what_pillow_reads` (some seconds):

    uv run crates/rezero-data/tests/pictures/many.py DIR
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

# Else Pillow cannot write some files.
ImageFile.MAXBLOCK = 1 << 22
out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(3)
written = 0


def keep(name, data):
    global written
    stem = out / f"{written:05d}-{name}"
    stem.with_suffix(".jpg").write_bytes(data)
    stem.with_suffix(".raw").write_bytes(np.asarray(Image.open(io.BytesIO(data))).tobytes())
    written += 1


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def kinds(width, height):
    y, x = np.mgrid[0:height, 0:width]
    smooth = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 5 % 256]
    edges = [x // 5 % 2 * 255, y // 3 % 2 * 255, (x + y) // 4 % 2 * 255]
    yield "smooth", np.stack(smooth, -1).astype(np.uint8)
    yield "noise", rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    yield "edges", np.stack(edges, -1).astype(np.uint8)


SIZES = [(1, 1), (2, 1), (1, 2), (3, 5), (7, 9), (8, 8), (16, 16), (17, 33), (31, 15), (32, 32), (40, 24), (65, 64), (128, 200)]
FORMS = {
    "444": {"subsampling": 0},
    "422": {"subsampling": 1},
    "420": {"subsampling": 2},
    "grey": {},
    "restarts": {"subsampling": 2, "restart_marker_blocks": 3},
    "rgb": {"keep_rgb": True},
}
for width, height in SIZES:
    for kind, pixels in kinds(width, height):
        for quality in (1, 10, 50, 75, 95, 100):
            for progressive in (False, True):
                for form, options in FORMS.items():
                    image = Image.fromarray(pixels)
                    image = image.convert("L") if form == "grey" else image
                    options = {**options, "quality": quality, "progressive": progressive, "optimize": written % 3 == 0}
                    keep(f"{width}x{height}-{kind}-{quality}-{int(progressive)}-{form}", encoded(image, **options))

# Pillow writes none of these samplings: the blocks are those of another one, so that the picture is a jumble.
for side in (32, 64, 96):
    for i in range(4):
        pixels = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        if i % 2:
            pixels = np.asarray(Image.fromarray(pixels).resize((side // 8, side // 8)).resize((side, side)))
        for name, subsampling, old, new in (("440", 1, 0x21, 0x12), ("411", 2, 0x22, 0x41), ("114", 2, 0x22, 0x14)):
            data = bytearray(encoded(Image.fromarray(pixels), quality=80, subsampling=subsampling))
            at = data.index(b"\xff\xc0") + 11
            assert data[at] == old
            data[at] = new
            keep(f"{name}-{side}", bytes(data))
print(written, "files")
