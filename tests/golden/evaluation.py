"""The reference's evaluation, for the scripts beside this one: its label maps of a ValDataset, and what they score.

The reference must be on the module path, as those scripts put it there.
"""

import numpy
import torch
from mit_semseg.utils import accuracy, intersectionAndUnion


def predictions(module, data):
    """The label map of each image: of the mean of the probabilities at all sizes."""
    for sample in data:
        size = sample["seg_label"][0].shape
        with torch.no_grad():
            scores = sum(module({"img_data": i}, segSize=size) / len(sample["img_data"]) for i in sample["img_data"])
        yield scores.argmax(1)[0].numpy()


def scores(maps, data, classes):
    """Mean IoU and pixel accuracy of the maps."""
    totals, right, pixels = numpy.zeros((2, classes)), 0, 0
    for found, sample in zip(maps, data):
        truth = sample["seg_label"][0].numpy()
        totals += intersectionAndUnion(found, truth, classes)
        share, valid = accuracy(found, truth)
        right, pixels = right + share * valid, pixels + valid
    return float((totals[0] / (totals[1] + 1e-10)).mean()), float(right / pixels)
