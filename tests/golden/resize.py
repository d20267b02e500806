"""Writes resize.json: what PIL makes of noise, as images (bilinear) and as labels (nearest).

usage: python resize.py > resize.json          needs pillow and numpy; written with pillow 13.0

Noise is byte i = top byte of the (i+1)-th state of a 32-bit LCG, so the test makes it again. Small results are stored
whole, as hexadecimal digits; of large ones the CRC-32.
"""
import json
import sys
import zlib

import numpy as np
from PIL import Image

SIZES = [
    ((16, 12), (8, 6)), ((13, 7), (5, 3)), ((7, 9), (20, 31)), ((5, 4), (5, 9)), ((9, 5), (4, 5)), ((1, 1), (3, 2)),
    ((17, 1), (4, 1)), ((33, 21), (32, 22)), ((40, 30), (1, 1)), ((6, 11), (6, 11)),
    ((683, 512), (400, 300)), ((683, 512), (799, 599)), ((512, 769), (299, 449)), ((301, 211), (907, 641)),
    ((490, 28), (699, 411)), ((1600, 1200), (301, 225)), ((256, 256), (600, 600)), ((34, 414), (15, 231)), ((12, 31), (9, 17)),
]


def noise(count):
    values, state = np.empty(count, np.uint8), 1
    for i in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        values[i] = state >> 24
    return values


def result(image):
    data = np.asarray(image).tobytes()
    return data.hex() if len(data) <= 3000 else zlib.crc32(data)


cases = []
for (width, height), target in SIZES:
    image = Image.fromarray(noise(width * height * 3).reshape(height, width, 3))
    label = Image.fromarray(noise(width * height).reshape(height, width))
    cases.append({
        "source": [width, height], "target": target,
        "image": result(image.resize(target, Image.BILINEAR)),
        "label": result(label.resize(target, Image.NEAREST)),
    })
sys.stdout.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
