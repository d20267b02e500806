"""Writes tests/golden/trainer.json, which tests/program/reference_files.rs compares with: training by the reference on image
files, from its data set to its optimizers, of a network filled by networks.py's formula.

    python tests/golden/trainer.py PATH_OF_THE_REFERENCE

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

import networks  # noqa: E402
from mit_semseg.config import cfg  # noqa: E402
from mit_semseg.dataset import TrainDataset  # noqa: E402
from mit_semseg.models import models  # noqa: E402

PAIR = ("resnet18dilated", "c1_deepsup")
SIZE = WIDTH, HEIGHT = 64, 48
IMAGES, SEED = 4, 1


def sample(index):
    """The image and the labels that tests/common/mod.rs's `samples` gives."""
    y, x = numpy.meshgrid(numpy.arange(HEIGHT), numpy.arange(WIDTH), indexing="ij")
    labels = (x // 8 + y // 8 * 3 + index + SEED) % (networks.CLASSES + 1)
    channels = []
    for c in range(3):
        noise = (x * 7 + y * 13 + c * 29 + index * 101 + SEED * 977) * 2654435761 % 2**32 >> 24
        channels.append((labels * (30 + 20 * c) + noise // 8) % 256)
    return numpy.stack(channels, 2).astype(numpy.uint8), labels.astype(numpy.uint8)


def batch(folder):
    """All images as the reference's training set gives them, unflipped."""
    lines = []
    for index in range(IMAGES):
        names = f"{index}.png", f"{index}_label.png"
        for name, pixels in zip(names, sample(index)):
            Image.fromarray(pixels).save(folder / name)
        record = dict(fpath_img=names[0], fpath_segm=names[1], width=WIDTH, height=HEIGHT)
        lines.append(json.dumps(record))
    (folder / "list.odgt").write_text("\n".join(lines) + "\n")
    cfg.DATASET.imgSizes, cfg.DATASET.imgMaxSize = [HEIGHT], WIDTH
    cfg.DATASET.padding_constant = cfg.DATASET.segm_downsampling_rate = 8
    choice = numpy.random.choice
    numpy.random.choice = lambda options, *rest: 0 if list(options) == [0, 1] else choice(options, *rest)
    return TrainDataset(str(folder), str(folder / "list.odgt"), cfg.DATASET, batch_per_gpu=IMAGES)[0]


def main():
    with tempfile.TemporaryDirectory() as name:
        data = batch(pathlib.Path(name))
    networks.images, networks.labels = lambda: data["img_data"], lambda *_: data["seg_label"]
    run = lambda *settings, **rule: networks.training(models, *PAIR, *settings, **rule)
    golden = {
        "plain": run(2, 1e-3, False),
        "debiased": run(2, 1e-3, False, debiased=True),
        "fix_bn": run(10, 1e-3, True)["losses"],
    }
    (HERE / "trainer.json").write_text(json.dumps(golden) + "\n")


main()
