"""Writes containers.json: small files in every mode, depth and compression that Pillow has for JPEG, PNG, TIFF, BMP and
WebP, tiled and planar TIFFs by tifffile, and what Pillow's convert("RGB") makes of each.

    python3 -m venv venv && venv/bin/pip install pillow==13.0.0 tifffile imagecodecs
    venv/bin/python tests/golden/containers.py > tests/golden/containers.json
"""

import io
import json
import sys
import zlib

import numpy as np
import tifffile
from PIL import Image

WIDTH, HEIGHT = 17, 10
rng = np.random.default_rng(5)
noise = rng.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
smooth = np.stack(
    [
        np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 5) % 256,
        np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH)) % 256,
        np.add.outer(np.arange(HEIGHT) * 7, 200 - np.arange(WIDTH)) % 256,
        np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) % 256,
    ],
    -1,
).astype(np.uint8)
noise[:, : WIDTH // 2] = smooth[:, : WIDTH // 2]
words = noise[..., 0].astype(np.uint16) * 256 + noise[..., 1]
words[:, ::3] >>= 8


def image(mode):
    if mode == "1":
        return Image.fromarray(noise[..., 0] > 128)
    if mode == "P":
        picture = Image.fromarray(noise[..., 0], "P")
        picture.putpalette([int(value) for value in np.resize(noise, 768)])
        return picture
    if mode == "PA":
        return image("P").convert("PA")
    if mode in ("I;16", "I;16B"):
        return Image.frombytes(mode, (WIDTH, HEIGHT), words.astype("<u2" if mode == "I;16" else ">u2").tobytes())
    if mode == "I":
        return Image.fromarray(words.astype(np.int32) - 100)
    if mode == "F":
        return Image.fromarray(words.astype(np.float32) / 100 - 50)
    channels = {"L": 1, "LA": 2, "RGB": 3, "YCbCr": 3, "LAB": 3}.get(mode, 4)
    return Image.frombytes(mode, (WIDTH, HEIGHT), np.ascontiguousarray(noise[..., :channels]).tobytes())


def entry(name, data, lossy=False):
    try:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError) as error:
        print(f"{name}: Pillow: {error}", file=sys.stderr)
        return None
    assert picture.size == (WIDTH, HEIGHT)
    rgb = picture.tobytes()
    made = {"name": name, "file": data.hex(), "crc32": f"{zlib.crc32(rgb):08x}"}
    if lossy:
        made["rgb"] = rgb.hex()
    return made


def entries():
    modes = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F"]
    compressions = [None, "tiff_ccitt", "group3", "group4", "packbits", "tiff_lzw", "tiff_adobe_deflate"]
    compressions += ["tiff_deflate", "jpeg", "zstd", "lzma"]
    ways = [("PNG", {}), ("PNG", {"bits": 1}), ("PNG", {"bits": 2}), ("PNG", {"bits": 4}), ("BMP", {})]
    ways += [("WEBP", {"lossless": True}), ("WEBP", {"quality": 90}), ("JPEG", {"quality": 90})]
    ways += [("JPEG", {"quality": 90, "progressive": True}), ("TIFF", {"big_tiff": True})]
    ways += [("TIFF", {"compression": compression}) for compression in compressions]
    ways += [("TIFF", {"compression": "tiff_lzw", "tiffinfo": {317: 2}})]
    for container, options in ways:
        for mode in modes:
            if "bits" in options and mode != "P" or container == "WEBP" and mode not in ("L", "LA", "P", "RGB", "RGBA"):
                continue
            picture = image(mode)
            if "bits" in options:
                picture = Image.fromarray(noise[..., 0] % (1 << options["bits"]), "P")
                picture.putpalette([int(value) for value in np.resize(noise, 3 << options["bits"])])
            data = io.BytesIO()
            try:
                picture.save(data, container, **options)
            except (OSError, ValueError, KeyError):
                continue  # Pillow has no such file
            # YCbCr: Pillow rounds in 6 bits, libtiff and libjpeg in 16.
            lossy = container == "JPEG" or mode == "YCbCr" or options.get("compression") == "jpeg" or "quality" in options
            name = f"{container} {mode} {' '.join(f'{key}={value}' for key, value in options.items())}".strip()
            yield entry(name, data.getvalue(), lossy)
            if container == "JPEG" and mode == "CMYK":
                # Adobe's marker says YCCK: the same bytes, of another colour model.
                marker = data.getvalue().index(b"Adobe")
                changed = bytearray(data.getvalue())
                changed[marker + 11] = 2
                yield entry(name.replace("CMYK", "YCCK"), bytes(changed), True)
    for name, options in [
        ("tiles", {"tile": (16, 16)}),
        ("tiles lzw big-endian", {"tile": (16, 16), "compression": "lzw", "byteorder": ">"}),
        ("tiles deflate predictor", {"tile": (16, 16), "compression": "zlib", "predictor": True}),
        ("strips of 4 rows", {"rowsperstrip": 4, "compression": "zlib"}),
        ("BigTIFF tiles", {"tile": (16, 16), "bigtiff": True, "compression": "zlib"}),
    ]:
        for depth, pixels in [("RGB", noise[..., :3]), ("grey", noise[..., 0]), ("16 bit grey", words)]:
            data = io.BytesIO()
            kind = "rgb" if depth == "RGB" else "minisblack"
            tifffile.imwrite(data, np.ascontiguousarray(pixels), photometric=kind, metadata=None, **options)
            yield entry(f"tifffile {name} {depth}", data.getvalue())
    data = io.BytesIO()
    planes = np.ascontiguousarray(noise[..., :3].transpose(2, 0, 1))
    tifffile.imwrite(data, planes, photometric="rgb", planarconfig="separate", metadata=None)
    yield entry("tifffile planar RGB", data.getvalue())


print(json.dumps({"width": WIDTH, "height": HEIGHT, "files": [made for made in entries() if made]}, indent=0))
