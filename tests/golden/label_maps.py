"""Whole images beside the reference: weights that PyTorch wrote, the label maps of `segdist predict`, and the numbers of
`segdist eval`, for every encoder, at one size and at two. Prints a table; nothing compares with it.

    python tests/golden/label_maps.py PATH_OF_THE_REFERENCE ODGT ROOT [IMAGES [SEED [ENCODER...]]]

ODGT and ROOT name labelled images, of which the first IMAGES (3) are taken as PNG. As random weights score near 0 on
real labels, those of the evaluation are the reference's own maps, shifted and ignored in places.
Needs what networks.py needs, Pillow, and target/release/segdist.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from itertools import zip_longest

import numpy
import torch
from PIL import Image

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), sys.argv[1]]

import evaluation  # noqa: E402
import networks  # noqa: E402
from mit_semseg.config import cfg  # noqa: E402
from mit_semseg.dataset import ValDataset  # noqa: E402
from mit_semseg.models import SegmentationModule, models  # noqa: E402

CLASSES = 150
# With each encoder a decoder, and the stride of their scores.
PAIRS = [
    ("mobilenetv2dilated", "c1_deepsup", 8), ("resnet18", "upernet", 4), ("resnet18dilated", "ppm", 8),
    ("resnet34", "c1", 32), ("resnet34dilated", "ppm_deepsup", 8), ("resnet50", "upernet_lite", 4),
    ("resnet50dilated", "c1", 8), ("resnet101", "upernet", 4), ("resnet101dilated", "ppm_deepsup", 8),
    ("resnext101", "upernet_lite", 4), ("hrnetv2", "c1", 4),
]
SIZES = [[300], [300, 375]]


def images(odgt, root, count, folder):
    lines = []
    for index, line in enumerate(open(odgt).readlines()[:count]):
        record = json.loads(line)
        image = Image.open(pathlib.Path(root, record["fpath_img"])).convert("RGB")
        image.save(folder / f"{index}.png")
        Image.fromarray(numpy.ones(image.size[::-1], numpy.uint8)).save(folder / f"{index}_label.png")
        record = dict(fpath_img=f"{index}.png", fpath_segm=f"{index}_label.png", width=image.width, height=image.height)
        lines.append(json.dumps(record))
    (folder / "list.odgt").write_text("\n".join(lines) + "\n")


def data(folder, sizes):
    cfg.DATASET.imgSizes, cfg.DATASET.imgMaxSize, cfg.DATASET.padding_constant = sizes, 1000, 32
    return ValDataset(str(folder), str(folder / "list.odgt"), cfg.DATASET)


def network(encoder, decoder, seed, folder):
    """Filled modules whose classes win about equally often, and their files."""
    net, head = networks.build(models, encoder, decoder, CLASSES)
    networks.fill(net, f"encoder{seed}"), networks.fill(head, f"decoder{seed}")
    head.use_softmax = True
    module = SegmentationModule(net, head, None).eval()
    (last,) = [layer for name, layer in head.named_modules() if getattr(layer, "out_channels", 0) == CLASSES
               and "deepsup" not in name]
    found = []
    hook = last.register_forward_hook(lambda _module, _input, output: found.append(output))
    with torch.no_grad():
        module({"img_data": data(folder, SIZES[0])[0]["img_data"][0]}, segSize=(75, 75))
        hook.remove()
        mean, deviation = found[0].mean((0, 2, 3)), found[0].std((0, 2, 3))
        last.bias.sub_(mean).div_(deviation)
        last.weight.div_(deviation[:, None, None, None])
    torch.save(net.state_dict(), folder / "encoder.pth")
    torch.save(head.state_dict(), folder / "decoder.pth")
    return module


def derive_labels(maps, folder):
    """Labels that are the maps, moved by 9 and 5 pixels, with every fifth band of 16 lines ignored."""
    for index, found in enumerate(maps):
        label = numpy.roll(found, (9, 5), (0, 1)).astype(numpy.uint8) + 1
        label[(numpy.arange(label.shape[0]) // 16) % 5 == 0] = 0
        Image.fromarray(label).save(folder / f"{index}_label.png")


def segdist(verb, folder, arch, sizes, *rest):
    encoder, decoder, stride = arch
    keys = ["DATASET.root_dataset", folder, "DATASET.list_val", folder / "list.odgt", "DATASET.num_class", CLASSES,
            "DATASET.imgSizes", f"({','.join(map(str, sizes))},)", "DATASET.imgMaxSize", 1000,
            "DATASET.padding_constant", 32, "DATASET.segm_downsampling_rate", stride,
            "MODEL.arch_encoder", encoder, "MODEL.arch_decoder", decoder,
            "MODEL.weights_encoder", folder / "encoder.pth", "MODEL.weights_decoder", folder / "decoder.pth"]
    command = [ROOT / "target/release/segdist", verb, "--quiet", "--checkpoint", "weights", *rest, *keys]
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def compare(arch, count, seed, odgt, root):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        images(odgt, root, count, folder)
        module = network(*arch[:2], seed, folder)
        for sizes in SIZES:
            maps = list(evaluation.predictions(module, data(folder, sizes)))
            derive_labels(maps, folder)
            files = [folder / f"{index}.png" for index in range(len(maps))]
            segdist("predict", folder, arch, sizes, "--out", folder / "maps", *files)
            ours = [numpy.array(Image.open(folder / "maps" / f"{index}.label.png")) for index in range(len(maps))]
            scores = json.loads(segdist("eval", folder, arch, sizes, "--json"))
            equal = [float((mine == theirs).mean()) for mine, theirs in zip(ours, maps)]
            iou, right = evaluation.scores(maps, data(folder, sizes), CLASSES)
            classes = [len(numpy.unique(found)) for found in maps]
            print(f"{arch[0]} + {arch[1]}, {sizes}: {100 * min(equal):.3f} % of pixels equal or more, at least "
                  f"{min(classes)} classes; mean IoU {iou:.4f} differs by {abs(iou - scores['mean_iou']):.1e}, "
                  f"accuracy {right:.4f} by {abs(right - scores['pixel_accuracy']):.1e}", flush=True)


def main():
    odgt, root, *rest = sys.argv[2:]
    count, seed = (given or default for given, default in zip_longest(rest[:2], ("3", "1")))
    for arch in PAIRS:
        if not rest[2:] or arch[0] in rest[2:]:
            compare(arch, int(count), seed, odgt, root)


main()
