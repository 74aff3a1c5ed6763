#!/usr/bin/env python3
"""Writes the image files of tests/pictures.rs and, in expected.bin, their pixels as Pillow decodes them: bytes
[row, column, channel], one image after the other in the order of index.csv. Needs Pillow (written with 13.0.0)."""

import io
import struct
import zlib
from pathlib import Path

from PIL import Image, ImageOps

HERE = Path(__file__).parent
WIDTH, HEIGHT = 21, 14
index, expected = [], []


def scene(mode, width=WIDTH, height=HEIGHT):
    """Slopes, an edge and some texture."""
    image = Image.new("RGBA", (width, height))
    for y in range(height):
        for x in range(width):
            edge = 60 if 3 * x > 2 * y + width else 0
            image.putpixel((x, y), ((9 * x + edge) % 256, (13 * y + 40) % 256, (5 * x + 7 * y) % 256, 255 - 8 * x))
    return image.convert(mode)


def pixels(image, name, mode):
    """The reference: upright, then of the wanted channels."""
    image = ImageOps.exif_transpose(image).convert(mode)
    note(image, name, mode)


def note(image, name, mode):
    expected.append(image.tobytes())
    index.append(f"{name},{mode},{len(mode)},{image.height},{image.width}")


def add(name, data, modes=("L", "RGB")):
    (HERE / name).write_bytes(data)
    for mode in modes:
        pixels(Image.open(io.BytesIO(data)), name, mode)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(bits, colour, rows, extra=b"", interlaced=0, width=WIDTH, height=HEIGHT):
    """A PNG of kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def packed(bits):
    """Rows of grey or of indices, each after its filter byte."""
    rows = b""
    for y in range(HEIGHT):
        values = [(x + 2 * y) % (1 << bits) for x in range(WIDTH)]
        line = "".join(f"{v:0{bits}b}" for v in values)
        line += "0" * (-len(line) % 8)
        rows += bytes([0]) + int(line, 2).to_bytes(len(line) // 8, "big")
    return rows


def adam7(image):
    """The seven passes of an interlaced image in RGB."""
    rows = b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        for y in range(y0, HEIGHT, dy):
            line = [image.getpixel((x, y)) for x in range(x0, WIDTH, dx)]
            if line:
                rows += bytes([0]) + b"".join(bytes(p) for p in line)
    return rows


def noise(width, height):
    rows = [bytes(hash_of(x, y, c) for x in range(width) for c in range(3)) for y in range(height)]
    return Image.frombytes("RGB", (width, height), b"".join(rows))


def hash_of(x, y, c):
    return (x * x * 31 + y * y * 17 + x * y * 7 + c * (x * 13 + y * 29) * 5) * 2654435761 >> 13 & 255


def oriented(image, orientation, kind="JPEG", **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, kind, exif=exif.tobytes(), **options)


# PNG.
add("grey.png", saved(scene("L"), "PNG"))
add("grey-alpha.png", saved(scene("LA"), "PNG"), ("L", "RGB", "LA"))
add("rgb.png", saved(scene("RGB"), "PNG"), ("L", "RGB", "RGBA"))
add("rgba.png", saved(scene("RGBA"), "PNG"), ("L", "RGB", "LA", "RGBA"))
add("palette.png", saved(scene("RGB").quantize(17), "PNG"))
transparent = scene("RGB").quantize(9)
add("palette-alpha.png", saved(transparent, "PNG", transparency=bytes([0, 90, 255])), ("RGBA",))
palette = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50, 0, 255, 0, 90, 80, 70]))
for bits in (1, 2, 4):
    add(f"grey-{bits}-bits.png", png(bits, 0, packed(bits)))
add("palette-2-bits.png", png(2, 3, packed(2), palette))
add("interlaced.png", png(8, 2, adam7(scene("RGB")), interlaced=1))
add("one-pixel.png", saved(scene("RGB", 1, 1), "PNG"))
add("oriented.png", oriented(scene("RGB"), 6, "PNG"))
(HERE / "grey-16-bits.png").write_bytes(png(16, 0, b"".join(bytes([0]) + bytes(2 * WIDTH) for _ in range(HEIGHT))))
(HERE / "rgb-16-bits.png").write_bytes(png(16, 2, b"".join(bytes([0]) + bytes(6 * WIDTH) for _ in range(HEIGHT))))

# JPEG.
add("grey.jpg", saved(scene("L"), "JPEG", quality=90))
for subsampling in (0, 1, 2):
    add(f"rgb-{subsampling}.jpg", saved(scene("RGB"), "JPEG", quality=92, subsampling=subsampling))
add("progressive.jpg", saved(scene("RGB"), "JPEG", quality=85, progressive=True, subsampling=0))
add("restarts.jpg", saved(scene("RGB", 40, 24), "JPEG", quality=75, restart_marker_blocks=2, subsampling=2))
add("progressive-2.jpg", saved(noise(64, 48), "JPEG", quality=60, progressive=True, subsampling=2))
add("uncoded-colours.jpg", saved(scene("RGB"), "JPEG", quality=70, keep_rgb=True))
add("optimised.jpg", saved(noise(33, 17), "JPEG", quality=30, optimize=True, subsampling=1))
# Pillow writes none of these samplings: the blocks are those of another one, so that the picture is a jumble.
for name, subsampling, old, new in (("440", 1, 0x21, 0x12), ("411", 2, 0x22, 0x41)):
    data = bytearray(saved(noise(32, 32), "JPEG", quality=80, subsampling=subsampling))
    at = data.index(b"\xff\xc0") + 11
    assert data[at] == old
    data[at] = new
    add(f"colours-{name}.jpg", bytes(data), ("RGB",))
for orientation in range(1, 9):
    add(f"orientation-{orientation}.jpg", oriented(scene("RGB"), orientation, quality=90, subsampling=0), ("RGB",))
(HERE / "cmyk.jpg").write_bytes(saved(scene("RGB").convert("CMYK"), "JPEG"))

# Sizes: the file, then its pixels at another size.
large = scene("RGB", 50, 30)
(HERE / "large.png").write_bytes(saved(large, "PNG"))
for name, box, size in (
    ("stretch-down", (0, 0, 50, 30), (16, 12)),
    ("stretch-up", (0, 0, 50, 30), (64, 45)),
    # 30 × 30 from the middle, and 50 × 20.
    ("crop-square", (10, 0, 40, 30), (16, 16)),
    ("crop-wide", (0, 5, 50, 25), (20, 8)),
):
    image = large.crop(box).resize(size, Image.Resampling.BILINEAR)
    note(image, name, "RGB")

(HERE / "index.csv").write_text("file,mode,channels,height,width\n" + "\n".join(index) + "\n")
(HERE / "expected.bin").write_bytes(b"".join(expected))
