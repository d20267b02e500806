#!/usr/bin/env python3
"""Lists what the packages call their tensors, with shapes, for tests/library/weight_sources.rs.

    python tests/golden/weight_sources.py      writes weight_sources.txt beside itself

Needs torch, torchvision, timm, transformers, segmentation_models_pytorch and, for the checkpoints of mmsegmentation and
mmpretrain, those with mmcv-lite and mmengine. NVIDIA's SegFormer and Meta's ConvNeXt are in no package: their names are
derived here from those of the packages that took them over.
"""

import re
import sys
import types
import warnings
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
import transformers as hf

warnings.simplefilter("ignore")
OUT = Path(__file__).with_suffix(".txt")
CLASSES = 7
STAGES = ["stage1", "stage2", "stage3", "stage4"]
CONVNEXT = dict(hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3], out_features=STAGES)
VIT_S = dict(hidden_size=384, num_attention_heads=6, num_hidden_layers=12)


def memory(model):
    """Names as in the module."""
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def saved(model):
    """Names as save_pretrained writes them."""
    import tempfile

    from safetensors import safe_open

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}


def transformers_files():
    segformer = hf.SegformerConfig(num_labels=CLASSES)
    model = hf.SegformerForSemanticSegmentation(segformer)
    yield "transformers SegFormer", saved(model)
    yield "transformers 5 SegFormer", memory(model)
    yield "transformers SegFormer classification", saved(hf.SegformerForImageClassification(segformer))
    convnext = hf.ConvNextConfig(**CONVNEXT)
    yield "transformers UPerNet", saved(hf.UperNetForSemanticSegmentation(hf.UperNetConfig(backbone_config=convnext, num_labels=CLASSES, hidden_size=512)))
    yield "transformers ConvNeXt", saved(hf.ConvNextForImageClassification(convnext))
    yield "transformers DINOv2", saved(hf.Dinov2Model(hf.Dinov2Config(image_size=518, patch_size=14, **VIT_S)))
    yield "transformers DINOv3", saved(hf.DINOv3ViTModel(hf.DINOv3ViTConfig(intermediate_size=1536, num_register_tokens=4, **VIT_S)))


def other_packages():
    yield "torchvision ResNet", memory(torchvision.models.resnet18())
    yield "torchvision ResNeXt", memory(torchvision.models.resnext50_32x4d())
    yield "torchvision MobileNetV2", memory(torchvision.models.mobilenet_v2())
    yield "torchvision ConvNeXt", memory(torchvision.models.convnext_tiny())
    yield "torchvision FCN", memory(torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None))
    yield "timm ResNet", memory(timm.create_model("resnet18"))
    yield "timm ConvNeXt", memory(timm.create_model("convnext_tiny"))
    yield "timm DINOv2", memory(timm.create_model("vit_small_patch14_dinov2"))
    yield "timm DINOv3", memory(timm.create_model("vit_small_patch16_dinov3"))
    options = dict(encoder_weights=None, classes=CLASSES)
    yield "SMP Unet ResNet", memory(smp.Unet("resnet18", **options))
    yield "SMP DeepLabV3Plus ResNet", memory(smp.DeepLabV3Plus("resnet18", **options))
    yield "SMP Unet MiT", memory(smp.Unet("mit_b0", **options))
    yield "SMP Segformer MiT", memory(smp.Segformer("mit_b0", **options))


def mmsegmentation():
    class Compiled(types.ModuleType):
        """mmcv's compiled operators, which none of these networks calls."""

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *_: None

    sys.modules["mmcv._ext"] = Compiled("mmcv._ext")
    import mmpretrain.models  # noqa: F401  registers ConvNeXt
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS

    norm = dict(type="BN")
    head = lambda kind, channels, width, **more: dict(
        type=kind, in_channels=channels, channels=width, num_classes=CLASSES, norm_cfg=norm, align_corners=False, **more
    )
    widths = [96, 192, 384, 768]
    uper = lambda channels: head("UPerHead", channels, 512, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6))
    fcn = lambda channels: head("FCNHead", channels, 256, in_index=2, num_convs=1, concat_input=False)
    build = lambda **parts: memory(MODELS.build(dict(type="EncoderDecoder", train_cfg=dict(), test_cfg=dict(mode="whole"), **parts)))
    mit = dict(type="MixVisionTransformer", embed_dims=32, num_layers=[2, 2, 2, 2], num_heads=[1, 2, 5, 8], sr_ratios=[8, 4, 2, 1])
    convnext = dict(type="mmpretrain.ConvNeXt", arch="tiny", out_indices=[0, 1, 2, 3], gap_before_final_norm=False)
    resnet = dict(type="ResNet", depth=18, num_stages=4, out_indices=(0, 1, 2, 3), norm_cfg=norm)
    yield "mmsegmentation MiT", build(backbone=mit, decode_head=head("SegformerHead", [32, 64, 160, 256], 256, in_index=[0, 1, 2, 3]))
    yield "mmsegmentation ConvNeXt", build(backbone=convnext, decode_head=uper(widths), auxiliary_head=fcn(384))
    yield "mmsegmentation ResNet", build(backbone=resnet, decode_head=uper([64, 128, 256, 512]))


def renamed(names, rules):
    """Names after the first rule that fits each; those that none fits are left out."""
    found = {}
    for name, shape in names.items():
        for pattern, to in rules:
            if re.fullmatch(pattern, name):
                found[re.sub(pattern, to, name)] = shape
                break
    return found


def releases(known):
    """NVIDIA's SegFormer from SMP, whose encoder keeps its names, and transformers; Meta's ConvNeXt from timm."""
    encoder = renamed(known["SMP Segformer MiT"], [(r"encoder\.(.*)", r"\1")])
    yield "NVIDIA MiT", encoder | {"head.weight": [1000, 256], "head.bias": [1000]}
    shift = lambda names: {re.sub(r"linear_c\.(\d)", lambda m: f"linear_c{int(m[1]) + 1}", name): shape for name, shape in names.items()}
    head = [(r"(decode_head\.linear_c.*)", r"\1"), (r"decode_head\.linear_fuse\.(.*)", r"decode_head.linear_fuse.conv.\1")]
    head += [(r"decode_head\.batch_norm\.(.*)", r"decode_head.linear_fuse.bn.\1"), (r"decode_head\.classifier\.(.*)", r"decode_head.linear_pred.\1")]
    backbone = {f"backbone.{name}": shape for name, shape in encoder.items()}
    yield "NVIDIA SegFormer", backbone | shift(renamed(known["transformers SegFormer"], head))
    rules = [(r"stem\.(.*)", r"downsample_layers.0.\1"), (r"stages\.(\d)\.downsample\.(.*)", r"downsample_layers.\1.\2")]
    rules += [(r"stages\.(\d)\.blocks\.(\d+)\." + a, r"stages.\1.\2." + b) for a, b in [("conv_dw(.*)", r"dwconv\3"), (r"mlp\.fc(.*)", r"pwconv\3"), ("(.*)", r"\3")]]
    rules += [(r"head\.norm\.(.*)", r"norm.\1"), (r"head\.fc\.(.*)", r"head.\1")]
    yield "Meta ConvNeXt", renamed(known["timm ConvNeXt"], rules)


def folded(names):
    """Lines of names and shapes; names that differ in one number only share a line: blocks.{0,1,2}.norm1.weight."""
    left, lines = dict(names), []
    while left:
        first = next(iter(left))
        best = [first]
        parts = first.split(".")
        for at, part in enumerate(parts):
            if part.isdigit():
                same = lambda other: len(other) == len(parts) and other[at].isdigit() and other[:at] + other[at + 1 :] == parts[:at] + parts[at + 1 :]
                group = [name for name in left if same(name.split(".")) and left[name] == left[first]]
                if len(group) > len(best):
                    best, place = group, at
        if len(best) > 1:
            numbers = ",".join(name.split(".")[place] for name in best)
            text = ".".join(parts[:place] + ["{" + numbers + "}"] + parts[place + 1 :])
        else:
            text = first
        lines.append(f"{text} {'x'.join(map(str, left[first]))}".rstrip())
        for name in best:
            del left[name]
    return lines


def main():
    known = {}
    for lists in [transformers_files(), other_packages(), mmsegmentation()]:
        known.update(lists)
    known.update(releases(known))
    versions = [f"{module.__name__} {module.__version__}" for module in (torch, torchvision, timm, hf, smp, sys.modules["mmseg"])]
    with OUT.open("w") as out:
        print(f"# Made by weight_sources.py with {', '.join(versions)}", file=out)
        for title, names in known.items():
            print(f"\n= {title}: {len(names)}", file=out)
            print(*folded(names), sep="\n", file=out)


if __name__ == "__main__":
    main()
