#!/usr/bin/env python3
"""Files of other packages, loaded by segdist: label maps and probabilities against the package's own network, and back.

    python tests/golden/weight_files.py SEGDIST IMAGES... [--only PART]

SEGDIST is the program, IMAGES are three pictures or more, PART is a pattern of titles. Every network gets well-scaled random
values, is saved by its package, and labels the pictures with its own upsampling; segdist loads the saved file, labels the same
pictures (`segdist predict`), finds the package's labels right (`segdist eval`, whose accuracy is the share of equal labels) and
gives the same probabilities (`segdist convert --to torchscript`). Then it writes the weights in the package's form (`convert
--to hf|smp|torchvision`), and the package opens them. One row of src/guide/networks.md for each network; exit code 1 where one
differs. Needs torch, torchvision, timm, transformers and segmentation_models_pytorch.
"""

import argparse
import itertools
import json
import math
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
import transformers as hf
from PIL import Image

warnings.simplefilter("ignore")
hf.utils.logging.set_verbosity_error()
hf.utils.logging.disable_progress_bar()
CLASSES = 19
TITLES = "| file | network | read as | log probabilities, relative | equal labels: predict, eval | given back | unused |"
MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in [(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)])


def fill(model, seed):
    """Values that keep signals at their size through every layer, so that differences would show."""
    generator = torch.Generator().manual_seed(seed)
    # What a file holds; constants that are none of it, such as the periods of rotary embeddings, keep their values.
    for name, tensor in model.state_dict(keep_vars=True).items():
        noise = torch.rand(tensor.shape, generator=generator) * 2 - 1
        last = name.rsplit(".", 1)[-1]
        if not tensor.is_floating_point():
            continue
        elif last == "running_var":
            value = 1 + noise / 4
        elif last in ("bias", "running_mean") or tensor.dim() == 3:
            value = noise / 10
        elif tensor.dim() <= 1:
            value = 0.75 + noise / 4
        else:
            value = noise * math.sqrt(4.5 / tensor[0].numel())
        with torch.no_grad():
            tensor.copy_(value)
    return model.eval()


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def upsampled(logits, size):
    return torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def save_hf(model, path):
    model.save_pretrained(path)


def save_pth(model, path):
    torch.save(model.state_dict(), path)


class Network:
    """A package's network, how it is saved, and what it is called in segdist."""

    def __init__(self, title, model, encoder, decoder, save, logits, to=None, reopen=None, size=(256, 352), multiple=32):
        self.name = f"{encoder} + {decoder}"
        self.title, self.model, self.save, self.logits, self.to, self.reopen = title, model, save, logits, to, reopen
        self.size = size
        self.keys = [f"MODEL.arch_encoder={encoder}", f"MODEL.arch_decoder={decoder}", "MODEL.stem=plain"]
        self.keys += [f"DATASET.num_class={CLASSES}", f"DATASET.imgSizes=({size[0]},)", f"DATASET.imgMaxSize={size[1]}"]
        stride = {"segformer": 4, "uperhead": 4, "linear": multiple}.get(decoder, 1)
        self.keys += [f"DATASET.padding_constant={multiple}", f"DATASET.segm_downsampling_rate={stride}"]

    def saved(self, folder):
        """The files of encoder and decoder."""
        self.save(self.model, folder / "saved")
        return [folder / "saved"] * 2


class Encoder(Network):
    """An encoder of a package, with a linear head: batch norm and a 1 x 1 convolution of its last map."""

    def __init__(self, title, model, encoder, save, last_map, width, **options):
        super().__init__(title, model, encoder, "linear", save, None, **options)
        self.head = torch.nn.Sequential()
        self.head.add_module("bn", torch.nn.BatchNorm2d(width))
        self.head.add_module("conv_seg", torch.nn.Conv2d(width, CLASSES, 1))
        fill(self.head, 2)
        self.logits = lambda model, x: upsampled(self.head(last_map(model, x)), self.size)

    def saved(self, folder):
        self.save(self.model, folder / "saved")
        torch.save(self.head.state_dict(), folder / "head.pth")
        return [folder / "saved", folder / "head.pth"]


def hugging_face(title, model, encoder, decoder):
    logits = lambda model, x: upsampled(model(x).logits, x.shape[2:])
    return Network(f"transformers {title}", model, encoder, decoder, save_hf, logits, "hf", type(model).from_pretrained)


def of_smp(kind, encoder, decoder):
    build = lambda: getattr(smp, kind)(encoder, encoder_weights=None, classes=CLASSES)

    def reopen(path):
        model = build()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model

    return Network(f"SMP {kind} {encoder}", build(), encoder, decoder, save_pth, lambda model, x: model(x), "smp", reopen)


def resnet(name, build, encoder, to=None):
    """All but the classifier of torchvision's and timm's."""

    def last_map(model, x):
        x = model.maxpool((model.relu if hasattr(model, "relu") else model.act1)(model.bn1(model.conv1(x))))
        return model.layer4(model.layer3(model.layer2(model.layer1(x))))

    def reopen(path):
        model = build()
        lacking = model.load_state_dict(torch.load(path, weights_only=True), strict=False)
        assert lacking.missing_keys == ["fc.weight", "fc.bias"] and not lacking.unexpected_keys, lacking
        return model

    model = build()
    return Encoder(name, model, encoder, save_pth, last_map, model.fc.in_features, to=to, reopen=reopen)


def normalized(x):
    """What the norm of a feature map does that the file lacks."""
    return torch.nn.functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=1e-6).permute(0, 3, 1, 2)


def vit(name, model, encoder, save, tokens, prefix, **options):
    """Tokens after the last norm, without the first `prefix`, as a map."""

    def last_map(model, x):
        side = options.get("multiple", 16)
        rows, columns = -(-x.shape[2] // side), -(-x.shape[3] // side)
        return tokens(model, x)[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))

    return Encoder(name, model, encoder, save, last_map, VIT[encoder[10]]["hidden_size"], **options)


MIT = dict(
    b0=dict(hidden_sizes=[32, 64, 160, 256], depths=[2, 2, 2, 2], decoder_hidden_size=256),
    b1=dict(hidden_sizes=[64, 128, 320, 512], depths=[2, 2, 2, 2], decoder_hidden_size=256),
    b2=dict(hidden_sizes=[64, 128, 320, 512], depths=[3, 4, 6, 3], decoder_hidden_size=768),
    b3=dict(hidden_sizes=[64, 128, 320, 512], depths=[3, 4, 18, 3], decoder_hidden_size=768),
    b4=dict(hidden_sizes=[64, 128, 320, 512], depths=[3, 8, 27, 3], decoder_hidden_size=768),
    b5=dict(hidden_sizes=[64, 128, 320, 512], depths=[3, 6, 40, 3], decoder_hidden_size=768),
)
WIDTHS = dict(tiny=96, small=96, base=128, large=192)
STAGES = ["stage1", "stage2", "stage3", "stage4"]
VIT = dict(
    s=dict(hidden_size=384, num_attention_heads=6, num_hidden_layers=12),
    b=dict(hidden_size=768, num_attention_heads=12, num_hidden_layers=12),
    l=dict(hidden_size=1024, num_attention_heads=16, num_hidden_layers=24),
)
SIZES = dict(s="small", b="base", l="large")
DINOV2 = dict(size=(518, 518), multiple=14)


def convnext(size):
    widths = [WIDTHS[size] << stage for stage in range(4)]
    return dict(hidden_sizes=widths, depths=[3, 3, 9 if size == "tiny" else 27, 3])


def whole_networks():
    for size, options in MIT.items():
        model = hf.SegformerForSemanticSegmentation(hf.SegformerConfig(num_labels=CLASSES, **options))
        yield hugging_face(f"SegFormer-{size}", model, f"mit_{size}", "segformer")
    for size in WIDTHS:
        backbone = hf.ConvNextConfig(out_features=STAGES, **convnext(size))
        config = hf.UperNetConfig(backbone_config=backbone, num_labels=CLASSES, hidden_size=512, auxiliary_in_channels=4 * WIDTHS[size])
        yield hugging_face(f"UPerNet-ConvNeXt-{size}", hf.UperNetForSemanticSegmentation(config), f"convnext_{size}", "uperhead")
    for kind, decoder in [("Unet", "unet"), ("DeepLabV3Plus", "deeplabv3plus")]:
        for encoder in ["resnet18", "resnet34", "resnet50", "resnet101"]:
            yield of_smp(kind, encoder, decoder)
    yield of_smp("Unet", "mit_b0", "unet")
    for size in ("b0", "b2"):
        yield of_smp("Segformer", f"mit_{size}", "segformer_smp")


def encoders():
    models = torchvision.models
    for name, build in [("resnet18", models.resnet18), ("resnet34", models.resnet34), ("resnet50", models.resnet50),
                        ("resnet101", models.resnet101), ("resnext50", models.resnext50_32x4d), ("resnext101_32x8d", models.resnext101_32x8d),
                        ("resnext101_64x4d", models.resnext101_64x4d)]:
        yield resnet(f"torchvision {name}", build, name, "torchvision")
    yield resnet("timm resnet50", lambda: timm.create_model("resnet50"), "resnet50")
    features = lambda model, x: normalized(model.features(x))
    yield Encoder("torchvision ConvNeXt-tiny", models.convnext_tiny(), "convnext_tiny", save_pth, features, 768)
    features = lambda model, x: normalized(model.stages(model.stem(x)))
    for size in WIDTHS:
        yield Encoder(f"timm ConvNeXt-{size}", timm.create_model(f"convnext_{size}"), f"convnext_{size}", save_pth, features, 8 * WIDTHS[size])
    model = hf.ConvNextForImageClassification(hf.ConvNextConfig(**convnext("tiny")))
    features = lambda model, x: normalized(model.convnext(x, output_hidden_states=True).hidden_states[-1])
    yield Encoder("transformers ConvNeXt-tiny", model, "convnext_tiny", save_hf, features, 768)
    yield from vits()


def vits():
    tokens = lambda model, x: model.forward_features(x)
    hidden = lambda model, x: model(x).last_hidden_state
    for letter, size in SIZES.items():
        wide = VIT[letter]["hidden_size"]
        build = lambda family, **more: timm.create_model(f"vit_{size}_patch{family}", dynamic_img_size=True, **more)
        model = build("14_dinov2", dynamic_img_pad=True)
        yield vit(f"timm DINOv2 ViT-{letter.upper()}", model, f"dinov2_vit{letter}14", save_pth, tokens, 1, **DINOV2)
        if letter == "s":
            grid = dict(size=(252, 336), multiple=14)
            yield vit("timm DINOv2 ViT-S, another grid", model, "dinov2_vits14", save_pth, tokens, 1, **grid)
        model = hf.Dinov2Model(hf.Dinov2Config(image_size=518, patch_size=14, **VIT[letter]))
        yield vit(f"transformers DINOv2 ViT-{letter.upper()}", model, f"dinov2_vit{letter}14", save_hf, hidden, 1, **DINOV2)
        model = build("16_dinov3")
        yield vit(f"timm DINOv3 ViT-{letter.upper()}", model, f"dinov3_vit{letter}16", save_pth, tokens, 5, multiple=16)
        biases = dict(query_bias=False, value_bias=False)
        config = hf.DINOv3ViTConfig(intermediate_size=4 * wide, num_register_tokens=4, **biases, **VIT[letter])
        yield vit(f"transformers DINOv3 ViT-{letter.upper()}", hf.DINOv3ViTModel(config), f"dinov3_vit{letter}16", save_hf, hidden, 5, multiple=16)


def evaluated(network, segdist, folder, weights):
    """The share of pixels to which `segdist eval` gives the labels in the folder."""
    lists = [f"DATASET.root_dataset={folder}", "DATASET.list_val=images:truth"]
    said = run(segdist, "eval", "--checkpoint", "weights", "--json", *network.keys, *weights, *lists)
    return json.loads(next(line for line in said.splitlines() if line.startswith("{")))["pixel_accuracy"]


def pixels_of(path):
    return torch.from_numpy(np.array(Image.open(path)))


def check(network, segdist, paths, folder):
    """The row for a network, and whether it is as it should be."""
    fill(network.model, 1)
    height, width = network.size
    pictures = []
    for name in ("images", "truth"):
        (folder / name).mkdir()
    for path in paths:
        # PNG, since decoders of JPEG differ; of the network's size, so that no resizing differs.
        pictures.append(folder / "images" / f"{path.stem}.png")
        Image.open(path).convert("RGB").resize((width, height), Image.BILINEAR).save(pictures[-1])
    encoder, decoder = network.saved(folder)
    files = [encoder] if decoder == encoder else [encoder, decoder]
    weights = [f"MODEL.weights_encoder={encoder}", f"MODEL.weights_decoder={decoder}"]
    said = run(segdist, "predict", "--checkpoint", "weights", "--out", folder / "labels", *pictures, *network.keys, *weights)
    run(segdist, "convert", *files, folder / "traced.pt", "--to", "torchscript", *network.keys)
    traced = torch.jit.load(folder / "traced.pt")
    reopened = None
    if network.to:
        run(segdist, "convert", *files, folder / "back", "--to", network.to, *network.keys)
        reopened = network.reopen(folder / "back").eval()
    worst, equal, returned = 0.0, [], []
    for picture in pictures:
        x = (pixels_of(picture).permute(2, 0, 1)[None] / 255 - MEAN) / STD
        with torch.no_grad():
            expected = network.logits(network.model, x)
            wanted = expected.log_softmax(1)
            worst = max(worst, float((torch.log(traced(x)) - wanted).norm() / wanted.norm()))
            if reopened is not None:
                returned.append(float((network.logits(reopened, x) - expected).abs().max() / expected.abs().max()))
        theirs = expected[0].argmax(0)
        equal.append(float((pixels_of(folder / "labels" / f"{picture.stem}.label.png") == theirs).float().mean()))
        Image.fromarray((theirs + 1).to(torch.uint8).numpy()).save(folder / "truth" / picture.name)
    classes = len(theirs.unique())
    accuracy = evaluated(network, segdist, folder, weights)
    unused = ", ".join(re.sub(r".*unused: ", "", line) for line in said.splitlines() if "unused" in line)
    source = re.search(r"names of ([^)]*)", said)
    good = worst < 1e-4 and min(*equal, accuracy) >= 0.999 and max(returned, default=0) < 1e-5 and classes > 1
    labels = f"{100 * min(equal):.3f} %, {100 * accuracy:.3f} % ({classes} classes)"
    back = f"{max(returned):.1e}" if returned else ""
    row = [network.title, network.name, source and source[1], f"{worst:.1e}", labels, back, unused]
    return f"| {' | '.join(map(str, row))} |", good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("segdist")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    versions = [f"{module.__name__} {module.__version__}" for module in (torch, torchvision, timm, hf, smp)]
    print(", ".join(versions), TITLES, f"|{'---|' * TITLES.count(' | ')}---|", sep="\n", flush=True)
    bad = 0
    for network in itertools.chain(whole_networks(), encoders()):
        if re.search(arguments.only, network.title):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    line, good = check(network, arguments.segdist, arguments.images, Path(folder))
                except (Exception, SystemExit) as problem:
                    line, good = f"{network.title}: {problem}", False
            print(line if good else f"WRONG {line}", flush=True)
            bad += not good
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
