"""Writes losses.json, which tests/library/losses.rs compares with: losses and their gradients on random logits with
ignored pixels.

    python tests/golden/losses.py

Needs PyTorch 2.11, numpy, and segmentation_models_pytorch 0.6 (its `losses` alone). Cross-entropy is
torch.nn.CrossEntropyLoss; focal, Dice and Lovász are those of segmentation_models_pytorch; OHEM's choice of pixels is
that of mmsegmentation's OHEMPixelSampler, written out in numpy for one image.
"""

import json
import pathlib

import numpy
import torch
from segmentation_models_pytorch.losses import DiceLoss, FocalLoss, LovaszLoss

HERE = pathlib.Path(__file__).parent
IMAGES, CLASSES, HEIGHT, WIDTH = 3, 4, 5, 6
IGNORED = -1
WEIGHTS = [0.5, 2.0, 1.0, 3.0]


def uniform(name, count):
    """As in networks.py."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    with numpy.errstate(over="ignore"):
        words = numpy.uint64(state) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    words = words ^ (words >> numpy.uint64(31))
    return (words >> numpy.uint64(40)).astype(numpy.float64) / 2**23 - 1.0


def logits(height, width):
    values = 3.0 * uniform("scores", IMAGES * CLASSES * height * width)
    return torch.from_numpy(values.astype(numpy.float32)).view(IMAGES, CLASSES, height, width)


def labels():
    """Classes and -1; the last class is not in the first image."""
    draws = (uniform("classes", IMAGES * HEIGHT * WIDTH) + 1) / 2
    values = torch.from_numpy(numpy.floor(draws * (CLASSES + 1)).astype(numpy.int64) - 1).view(IMAGES, HEIGHT, WIDTH)
    values[0][values[0] == CLASSES - 1] = IGNORED
    return values


def per_image(loss):
    """The mean of a loss over images."""
    return lambda scores, truth: torch.stack([loss(scores[i:i + 1], truth[i:i + 1]) for i in range(len(scores))]).mean()


def ohem(threshold, least, over, weights=None):
    """mmsegmentation's choice image by image (`batch_kept` is `least` for one), and the mean of cross-entropy over the
    chosen pixels or over all labelled ones."""

    def choice(scores, truth):
        exponentials = numpy.exp(scores - scores.max(0))
        probability = exponentials / exponentials.sum(0)
        valid = truth != IGNORED
        own = numpy.take_along_axis(probability, numpy.where(valid, truth, 0)[None], 0)[0]
        ordered = numpy.sort(own[valid])
        limit = max(ordered[min(least, ordered.size - 1)], threshold)
        return valid & (own < limit)

    def loss(scores, truth):
        chosen = torch.from_numpy(numpy.stack([choice(s, t) for s, t in zip(scores.detach().numpy(), truth.numpy())]))
        weight = None if weights is None else torch.tensor(weights)
        nll = torch.nn.functional.cross_entropy(scores, truth, weight, ignore_index=IGNORED, reduction="none")
        counted = chosen if over == "chosen" else truth != IGNORED
        of_class = torch.ones(CLASSES) if weight is None else weight
        return (nll * chosen).sum() / (of_class[truth.clamp(min=0)] * counted).sum()

    return loss


def cross_entropy(**options):
    return torch.nn.CrossEntropyLoss(ignore_index=IGNORED, **options)


def weighted(*terms):
    return lambda scores, truth: sum(weight * loss(scores, truth) for weight, loss in terms)


def smp(loss, *arguments, **options):
    return loss("multiclass", *arguments, ignore_index=IGNORED, **options)


def cases():
    """TRAIN.loss as a configuration has it, and the published loss."""
    weights = torch.tensor(WEIGHTS)
    listed = ", ".join(map(str, WEIGHTS))
    batch_dice, dice = smp(DiceLoss), per_image(smp(DiceLoss))
    yield "ce", cross_entropy()
    yield "{ce: {smoothing: 0.1}}", cross_entropy(label_smoothing=0.1)
    yield f"{{ce: {{class_weights: [{listed}]}}}}", cross_entropy(weight=weights)
    yield f"{{ce: {{smoothing: 0.2, class_weights: [{listed}]}}}}", cross_entropy(weight=weights, label_smoothing=0.2)
    yield "{ohem: {threshold: 0.1, least: 9}}", ohem(0.1, 9, "chosen")
    yield "{ohem: {threshold: 0.4, least: 3}}", ohem(0.4, 3, "chosen")
    yield "{ohem: {threshold: 0.4, least: 100}}", ohem(0.4, 100, "chosen")
    yield "{ohem: {threshold: 0.4, least: 3, over: labelled}}", ohem(0.4, 3, "labelled")
    yield f"{{ohem: {{threshold: 0.4, least: 3, class_weights: [{listed}]}}}}", ohem(0.4, 3, "chosen", WEIGHTS)
    yield "focal", smp(FocalLoss)
    yield "{focal: {gamma: 3.0, alpha: 0.25}}", smp(FocalLoss, gamma=3.0, alpha=0.25)
    yield "dice", dice
    yield "{dice: {over: batch}}", batch_dice
    yield "{dice: {smooth: 1.0}}", per_image(smp(DiceLoss, smooth=1.0))
    yield "lovasz", smp(LovaszLoss, per_image=True)
    yield "[ce 1.0, dice 3.0]", weighted((1.0, cross_entropy()), (3.0, dice))
    yield "{lovasz: 0.5, dice: {weight: 2.0, over: batch}}", weighted((0.5, smp(LovaszLoss, per_image=True)), (2.0, batch_dice))


def measured(loss, height, width):
    scores = logits(height, width).requires_grad_()
    enlarged = torch.nn.functional.interpolate(scores, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    value = loss(scores if (height, width) == (HEIGHT, WIDTH) else enlarged, labels())
    value.backward()
    return value.item(), [float(f"{number:.7g}") for number in scores.grad.flatten().tolist()]


def main():
    rows = []
    for text, loss in cases():
        value, gradient = measured(loss, HEIGHT, WIDTH)
        enlarged, enlarged_gradient = measured(loss, 2, 3)
        rows.append({"loss": text, "value": value, "gradient": gradient, "enlarged": enlarged,
                     "enlarged_gradient": enlarged_gradient})
    golden = {
        "images": IMAGES, "classes": CLASSES, "height": HEIGHT, "width": WIDTH, "labels": labels().flatten().tolist(),
        "cases": rows,
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items() if key != "cases"]
    lines.append('  "cases": [\n    ' + ",\n    ".join(map(json.dumps, rows)) + "\n  ]")
    (HERE / "losses.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
