"""Fine-tuning on CamVid beside the reference: mean IoU of both from the same ImageNet weights, and of segdist from
random values, by seed (1 2 3) after as many STEPS (200). Prints a table; nothing compares with it.

    python tests/golden/camvid.py PATH_OF_THE_REFERENCE PATH_OF_CAMVID MOBILENETV2_WEIGHTS [STEPS [SEED...]]

PATH_OF_CAMVID holds {train,val}/{images,labels}; the weights are MobileNetV2's in the reference's names. Both train
MobileNetV2 and c1_deepsup on short sides of 120 pixels, 8 images a step, and are asked about 480 x 360 pixels. Both read
PNG copies of the images, since two JPEG decoders differ in every eighth value, and start from one draw of the decoder's
values: another draw has changed the mean IoU after 200 steps by more than 4 points.
Needs what networks.py needs, Pillow, and target/release/segdist.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy
import torch
from PIL import Image

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), sys.argv[1]]
sys.argv[1:] = [str(pathlib.Path(argument).absolute()) for argument in sys.argv[1:4]] + sys.argv[4:]
REFERENCE, CAMVID, WEIGHTS = sys.argv[1:4]

import evaluation  # noqa: E402
import networks  # noqa: E402
from mit_semseg.config import cfg  # noqa: E402
from mit_semseg.dataset import TrainDataset, ValDataset  # noqa: E402
from mit_semseg.models import SegmentationModule, models  # noqa: E402

CLASSES, VOID, SIZE, BATCH = 11, 11, 120, 8


def copy(folder):
    """Images as PNG and labels as they are, in the same folders below `folder`."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
            for path in pathlib.Path(CAMVID, split, kind).iterdir():
                image = Image.open(path)
                (image.convert("RGB") if kind == "images" else image).save(folder / split / kind / f"{path.stem}.png")


def odgt(split, data, folder):
    """The split as the reference wants it: a list, and labels that count from 1."""
    lines = []
    for image in sorted((data / split / "images").iterdir()):
        label = folder / split / image.name
        label.parent.mkdir(exist_ok=True)
        raw = numpy.array(Image.open(data / split / "labels" / image.name))
        Image.fromarray(numpy.where(raw == VOID, 0, raw + 1).astype(numpy.uint8)).save(label)
        width, height = Image.open(image).size
        record = dict(fpath_img=str(image), fpath_segm=str(label), width=width, height=height)
        lines.append(json.dumps(record))
    path = folder / f"{split}.odgt"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def first_values(seed):
    """The reference's encoder with ImageNet weights, and a decoder as it draws one."""
    torch.manual_seed(seed)
    encoder = networks.random_encoder(models, "mobilenetv2dilated")
    encoder.load_state_dict(torch.load(WEIGHTS, weights_only=True), strict=False)
    return encoder, models.ModelBuilder.build_decoder(arch="c1_deepsup", fc_dim=320, num_class=CLASSES)


def reference(images, folder, seed, steps):
    """Mean IoU after training by the reference's data set, loss, optimizers and schedule; its batch norm counts as it
    does over several GPUs, which is segdist's default."""
    import train

    numpy.random.seed(seed)
    encoder, decoder = first_values(seed)
    for layer in [*encoder.modules(), *decoder.modules()]:
        if isinstance(layer, models.BatchNorm2d):
            layer._tmp_running_mean = layer.running_mean * layer._running_iter
            layer._tmp_running_var = layer.running_var * layer._running_iter
            layer.register_forward_hook(lambda *call: networks.observe(*call) if call[0].training else None)
    criterion = torch.nn.NLLLoss(ignore_index=-1)
    network = SegmentationModule(encoder, decoder, criterion, 0.4).train()
    cfg.DATASET.imgSizes, cfg.DATASET.imgMaxSize, cfg.DATASET.num_class = [SIZE], 480, CLASSES
    cfg.DATASET.padding_constant = cfg.DATASET.segm_downsampling_rate = 8
    cfg.TRAIN.max_iters = steps
    optimizers = train.create_optimizers((encoder, decoder, criterion), cfg)
    data = TrainDataset("", odgt("train", images, folder), cfg.DATASET, batch_per_gpu=BATCH)
    # The reference shuffles by the first index that a loader's worker asks for.
    for step in range(steps):
        train.adjust_learning_rate(optimizers, step, cfg)
        network.zero_grad()
        network(data[seed])[0].backward()
        for optimizer in optimizers:
            optimizer.step()
    decoder.use_softmax = True
    data = ValDataset("", odgt("val", images, folder), cfg.DATASET)
    return evaluation.scores(evaluation.predictions(network.eval(), data), data, CLASSES)[0]


def segdist(images, folder, seed, steps, *initial):
    """Mean IoU after the same training by segdist; the keys `initial` say where its values come from."""
    run = [str(ROOT / "target/release/segdist"), "--quiet", "--cfg",
           str(ROOT / "configs/camvid-mobilenetv2dilated-c1_deepsup.yaml"), "DIR", str(folder / f"run-{seed}"),
           "DATASET.root_dataset", str(images), "DATASET.label_map", str(ROOT / "configs/camvid-labels.yaml"),
           "DATASET.imgSizes", f"({SIZE},)", "TRAIN.seed", str(seed), "TRAIN.batch_size_per_gpu", str(BATCH),
           "TRAIN.num_epoch", "1", "TRAIN.epoch_iters", str(steps), "MODEL.bn_recalibrate", "0", *initial]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    events = [json.loads(line) for line in open(folder / f"run-{seed}" / "metrics.jsonl")]
    return next(event["mean_iou"] for event in reversed(events) if event["event"] == "eval")


def segdist_from_weights(images, folder, seed, steps):
    torch.save(first_values(seed)[1].state_dict(), folder / "decoder.pth")
    return segdist(images, folder, seed, steps, "MODEL.weights_encoder", WEIGHTS,
                   "MODEL.weights_decoder", str(folder / "decoder.pth"))


def main():
    steps, *seeds = [int(argument) for argument in sys.argv[4:]] or [200]
    ways = {
        "the reference, ImageNet weights": reference,
        "segdist, ImageNet weights": segdist_from_weights,
        "segdist, random values": lambda *run: segdist(*run, "MODEL.init", "random"),
    }
    results = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as data:
        copy(images := pathlib.Path(data))
        for seed in seeds or [1, 2, 3]:
            for name, way in ways.items():
                with tempfile.TemporaryDirectory() as folder:
                    results[name].append(100 * way(images, pathlib.Path(folder), seed, steps))
                print(f"seed {seed}, {name}: {results[name][-1]:.2f}", file=sys.stderr, flush=True)
    for name, found in results.items():
        print(f"{name}: mean {statistics.mean(found):.2f} of", *(f"{one:.2f}" for one in found))


main()
