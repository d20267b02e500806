"""Writes tests/golden/eval.json, which tests/threads/eval.rs compares with: the reference's own evaluation of a network filled
by networks.py's formula, on images and labels given by formulas, at one size and at two.

    python tests/golden/eval.py PATH_OF_THE_REFERENCE

Needs what networks.py needs, and Pillow.
"""

import json
import pathlib
import sys
import tempfile

import numpy
from PIL import Image

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), sys.argv[1]]

import evaluation  # noqa: E402
import networks  # noqa: E402
from mit_semseg.models import models  # noqa: E402
from mit_semseg.config import cfg  # noqa: E402
from mit_semseg.dataset import ValDataset  # noqa: E402
from mit_semseg.models import SegmentationModule  # noqa: E402

IMAGES = [(96, 72), (53, 90)]
SIZES = [40, 56]


def image(width, height):
    y, x, c = numpy.meshgrid(numpy.arange(height), numpy.arange(width), numpy.arange(3), indexing="ij")
    return ((x * x * 3 + y * y * 5 + x * y * (c + 1)) // 16 + 40 * c).astype(numpy.uint8)


def label(width, height):
    y, x = numpy.meshgrid(numpy.arange(height), numpy.arange(width), indexing="ij")
    return ((x // 10 + y // 7 * 3) % (networks.CLASSES + 1)).astype(numpy.uint8)


def samples(folder):
    lines = []
    for index, size in enumerate(IMAGES):
        names = f"{index}.png", f"{index}_label.png"
        Image.fromarray(image(*size)).save(folder / names[0])
        Image.fromarray(label(*size)).save(folder / names[1])
        record = dict(fpath_img=names[0], fpath_segm=names[1], width=size[0], height=size[1])
        lines.append(json.dumps(record))
    (folder / "list.odgt").write_text("\n".join(lines) + "\n")


def evaluate(module, folder, sizes):
    cfg.DATASET.imgSizes = sizes
    data = ValDataset(str(folder), str(folder / "list.odgt"), cfg.DATASET)
    maps = list(evaluation.predictions(module, data))
    iou, right = evaluation.scores(maps, data, networks.CLASSES)
    labels = ["".join(str(int(c)) for c in found.flat) for found in maps]
    return dict(sizes=sizes, labels=labels, mean_iou=iou, pixel_accuracy=right)


def main():
    net, head = networks.build(models, "resnet18dilated", "c1", networks.CLASSES)
    networks.fill(net, "encoder"), networks.fill(head, "decoder")
    head.use_softmax = True
    module = SegmentationModule(net, head, None).eval()
    cfg.DATASET.padding_constant = 8
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        samples(folder)
        runs = [evaluate(module, folder, SIZES[:1]), evaluate(module, folder, SIZES)]
    (HERE / "eval.json").write_text(json.dumps(dict(images=IMAGES, runs=runs)) + "\n")
    print([(run["mean_iou"], run["pixel_accuracy"], [len(set(m)) for m in run["labels"]]) for run in runs])


main()
