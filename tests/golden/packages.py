"""Writes packages.json, which tests/library/packages.rs compares with: networks as the packages that people have weights
from build them, filled by one written-down function.

    python tests/golden/packages.py [NAME...]

Without NAME, all rows are written; with names of encoders or decoders, theirs alone are made anew. Needs PyTorch 2.11, torchvision, transformers,
timm and segmentation_models_pytorch; nothing is downloaded.

Each row: the package and its version; a digest of the names and shapes of all tensors; norms of the feature maps and
values at fixed places of them and of the scores, in f32; for the smaller ones the loss and gradient
norms of one step with batch statistics, in f64. Images are two of 61 × 97 pixels, which is no multiple of any stride, but where the package refuses that.
"""

import json
import pathlib
import sys
import tempfile

import numpy
import torch

import networks
from networks import norm, uniform

HERE = pathlib.Path(__file__).parent
CLASSES = networks.CLASSES
ANY_SIZE, EVEN_SIZE = (61, 97), (64, 96)


def value(name, shape):
    """What a tensor is filled with, so that activations stay near 1: as in networks.py, and for what its networks lack."""
    last = name.rsplit(".", 1)[-1]
    noise = torch.from_numpy(uniform(name, int(numpy.prod(shape)))).reshape(shape)
    if last in ("layer_scale_parameter", "gamma"):
        return 0.3 + 0.2 * noise
    if len(shape) == 2 and last == "weight":
        return noise * numpy.float32((3.0 / shape[1]) ** 0.5)
    if len(shape) == 3:
        return noise * 0.5
    return networks.value(name, shape)


def is_counted(name):
    return not name.endswith("num_batches_tracked")


class Case:
    """A package's network: `tensors` by our names, the module they belong to, maps and scores as functions of images."""

    def __init__(self, package, module, names, maps, scores=None, size=ANY_SIZE):
        self.package, self.module, self.maps, self.scores, self.size = package, module, maps, scores, size
        self.names = names
        self.tensors = {name: tensor.detach() for name, tensor in self.named().items()}
        self.parameters = {names(n): p for n, p in module.named_parameters() if names(n) is not None}

    def named(self):
        state = self.module.state_dict(keep_vars=True)
        return {self.names(name): state[name] for name in state if self.names(name) is not None}

    def fill(self):
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                if tensor.dtype.is_floating_point:
                    tensor.copy_(value(name, tuple(tensor.shape)))


def version(package):
    return f"{package.__name__} {package.__version__}"


def torchvision_case(encoder):
    import torchvision

    arch = {"resnext50": "resnext50_32x4d"}.get(encoder.removesuffix("dilated"), encoder.removesuffix("dilated"))
    dilated = [False, True, True] if encoder.endswith("dilated") else None
    net = getattr(torchvision.models, arch)(weights=None, **({"replace_stride_with_dilation": dilated} if dilated else {}))
    names = lambda name: None if name.startswith("fc.") else f"encoder.{name}"
    return Case(version(torchvision), net, names, lambda x: torchvision_maps(net, x)[1:])


def torchvision_maps(net, x):
    x = net.relu(net.bn1(net.conv1(x)))
    result = [x]
    x = net.maxpool(x)
    for layer in [net.layer1, net.layer2, net.layer3, net.layer4]:
        x = layer(x)
        result.append(x)
    return result


def transformers_names(module, rename):
    """Our names by the module's own: its files have other names than it, so each tensor is known again by its values."""
    from safetensors.torch import load_file

    with torch.no_grad():
        for number, tensor in enumerate(module.state_dict().values()):
            if tensor.dtype.is_floating_point:
                tensor.fill_(number + 1)
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        saved = load_file(f"{folder}/model.safetensors")
    by_number = {float(t.flatten()[0]): rename(n) for n, t in saved.items() if t.dtype.is_floating_point}
    state = module.state_dict()
    names = {n: by_number[float(t.flatten()[0])] for n, t in state.items() if t.dtype.is_floating_point}
    return lambda name: names.get(name)


MIT = {
    "mit_b0": ([32, 64, 160, 256], [2, 2, 2, 2], 256),
    "mit_b1": ([64, 128, 320, 512], [2, 2, 2, 2], 256),
    "mit_b2": ([64, 128, 320, 512], [3, 4, 6, 3], 768),
    "mit_b3": ([64, 128, 320, 512], [3, 4, 18, 3], 768),
    "mit_b4": ([64, 128, 320, 512], [3, 8, 27, 3], 768),
    "mit_b5": ([64, 128, 320, 512], [3, 6, 40, 3], 768),
}


def segformer_case(encoder):
    import transformers

    widths, depths, width = MIT[encoder]
    config = transformers.SegformerConfig(
        hidden_sizes=widths, depths=depths, decoder_hidden_size=width, num_labels=CLASSES, drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )
    net = transformers.SegformerForSemanticSegmentation(config)
    rename = lambda name: name.replace("segformer.encoder.", "encoder.").replace("decode_head.", "decoder.")
    maps = lambda x: net.segformer(x, output_hidden_states=True).hidden_states
    scores = lambda x: (net(x).logits, None)
    return Case(version(transformers), net, transformers_names(net, rename), maps, scores)


CONVNEXT = {
    "convnext_tiny": (96, [3, 3, 9, 3]), "convnext_small": (96, [3, 3, 27, 3]),
    "convnext_base": (128, [3, 3, 27, 3]), "convnext_large": (192, [3, 3, 27, 3]),
}


def uperhead_case(encoder):
    import transformers

    width, depths = CONVNEXT[encoder]
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[width << i for i in range(4)], depths=depths, out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = transformers.UperNetConfig(backbone_config=backbone, num_labels=CLASSES, hidden_size=512)
    net = transformers.UperNetForSemanticSegmentation(config)

    def rename(name):
        for old, new in [("backbone.encoder.", "encoder."), ("backbone.", "encoder."), ("decode_head.", "decoder."),
                         ("auxiliary_head.", "decoder.auxiliary_head.")]:
            if name.startswith(old):
                return new + name[len(old):]
        raise ValueError(name)

    def scores(x):
        maps = net.backbone(x).feature_maps
        return net.decode_head(maps), net.auxiliary_head(maps)

    return Case(version(transformers), net, transformers_names(net, rename), lambda x: net.backbone(x).feature_maps, scores)


def vit_case(encoder):
    import timm

    size = {"s": "small", "b": "base", "l": "large"}[encoder[10]]
    family, patch = encoder[:6], encoder[11:]
    net = timm.create_model(
        f"vit_{size}_patch{patch}_{family}", pretrained=False, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True
    )
    depth = len(net.blocks)
    head = torch.nn.ModuleDict({"bn": torch.nn.BatchNorm2d(net.embed_dim), "conv_seg": torch.nn.Conv2d(net.embed_dim, CLASSES, 1)})
    indices = [depth // 4 * (i + 1) - 1 for i in range(4)]
    maps = lambda x: net.forward_intermediates(x, indices=indices, norm=True, intermediates_only=True)
    scores = lambda x: (head["conv_seg"](head["bn"](maps(x)[-1])), None)
    both = torch.nn.ModuleDict({"encoder": net, "decoder": head})
    return Case(version(timm), both, lambda name: None if "fc_norm" in name else name, maps, scores)


def smp_names(name):
    return f"decoder.{name}" if name.startswith("segmentation_head.") else name


def unet_case(encoder):
    """segmentation_models.pytorch's own network with a ResNet, its decoder over transformers' MiT and ConvNeXt."""
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.base import SegmentationHead
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

    if encoder.startswith("resnet"):
        net = smp.Unet(encoder, encoder_weights=None, classes=CLASSES)
        return Case(version(smp), net, smp_names, lambda x: net.encoder(x)[1:], lambda x: (net(x), None))
    inner = segformer_case(encoder) if encoder.startswith("mit") else uperhead_case(encoder)
    widths = MIT[encoder][0] if encoder.startswith("mit") else [CONVNEXT[encoder][0] << i for i in range(4)]
    decoder = UnetDecoder([3, 0, *widths], [256, 128, 64, 32, 16])
    net = torch.nn.ModuleDict({"inner": inner.module, "decoder": decoder, "segmentation_head": SegmentationHead(16, CLASSES)})
    own = {id(tensor): name for name, tensor in inner.module.state_dict(keep_vars=True).items()}
    by_name = {own[id(t)]: name for name, t in inner.named().items() if name.startswith("encoder.")}
    names = lambda name: by_name.get(name.removeprefix("inner.")) if name.startswith("inner.") else smp_names(name)

    def scores(x):
        empty = x.new_zeros(x.shape[0], 0, x.shape[2] // 2, x.shape[3] // 2)
        return net["segmentation_head"](decoder([x, empty, *inner.maps(x)])), None

    return Case(version(smp), net, names, inner.maps, scores)


def smp_segformer_case(encoder):
    """segmentation_models.pytorch's own decoder over transformers' MiT."""
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.base import SegmentationHead
    from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

    inner = segformer_case(encoder)
    decoder = SegformerDecoder([3, 0, *MIT[encoder][0]])
    parts = {"inner": inner.module, "decoder": decoder, "segmentation_head": SegmentationHead(256, CLASSES, 1, None, 4)}

    def names(name):
        if name.startswith("inner."):
            ours = inner.names(name.removeprefix("inner."))
            return ours if ours and ours.startswith("encoder.") else None
        for i in range(4):
            name = name.replace(f"mlp_stage.{i}.linear", f"linear_c.{3 - i}.proj")
        for old, new in [("fuse_stage.0", "linear_fuse"), ("fuse_stage.1", "batch_norm"), ("segmentation_head.0", "decoder.classifier")]:
            name = name.replace(old, new)
        return name

    net = torch.nn.ModuleDict(parts)

    def scores(x):
        empty = x.new_zeros(x.shape[0], 0, x.shape[2] // 2, x.shape[3] // 2)
        return net["segmentation_head"](decoder([x, empty, *inner.maps(x)])), None

    return Case(version(smp), net, names, inner.maps, scores, EVEN_SIZE)


def deeplab_case(encoder):
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.base import SegmentationHead
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder

    if not encoder.endswith("dilated"):
        arch = {"resnext50": "resnext50_32x4d"}.get(encoder, encoder)
        net = smp.DeepLabV3Plus(arch, encoder_weights=None, classes=CLASSES, decoder_aspp_dropout=0.0)
        maps = lambda x: net.encoder(x)[2:]
        return Case(version(smp), net, smp_names, maps, lambda x: (net(x), None), EVEN_SIZE)
    inner = torchvision_case(encoder).module
    decoder = DeepLabV3PlusDecoder([3, 64, 256, 512, 1024, 2048], 5, 256, (12, 24, 36), 8, True, 0.0)
    net = torch.nn.ModuleDict({"encoder": inner, "decoder": decoder, "segmentation_head": SegmentationHead(256, CLASSES, 1, None, 4)})
    names = lambda name: None if ".fc." in name else smp_names(name)
    scores = lambda x: (net["segmentation_head"](decoder([x, *torchvision_maps(inner, x)])), None)
    return Case(version(smp), net, names, lambda x: torchvision_maps(inner, x)[1:], scores, EVEN_SIZE)


# Of a family's larger members no step is kept: it would be the test's time twice over.
FORWARD_ONLY = ["resnet101", "resnext101_64x4d", "mit_b3", "mit_b4", "mit_b5", "convnext_small", "convnext_base", "convnext_large",
                "dinov2_vitb14", "dinov2_vitl14", "dinov3_vitb16", "dinov3_vitl16"]

CASES = [
    *[(e, None, torchvision_case) for e in [
        "resnet18", "resnet34", "resnet50", "resnet50dilated", "resnet101", "resnext50", "resnext101_32x8d",
        "resnext101_64x4d"]],
    *[(e, "segformer", segformer_case) for e in MIT],
    ("mit_b0", "segformer_smp", smp_segformer_case),
    *[(e, "uperhead", uperhead_case) for e in CONVNEXT],
    *[(f"{family}_vit{size}{patch}", "linear", vit_case) for family, patch in [("dinov2", 14), ("dinov3", 16)] for size in "sbl"],
    *[(e, "unet", unet_case) for e in ["resnet18", "resnet50", "mit_b0", "convnext_tiny"]],
    *[(e, "deeplabv3plus", deeplab_case) for e in ["resnet18", "resnet50", "resnext50", "resnet50dilated"]],
]


def images(height, width):
    return torch.from_numpy(uniform("images", 2 * 3 * height * width).reshape(2, 3, height, width) * 2)


def sample(tensor, count):
    flat = tensor.detach().flatten()
    return [float(f"{float(flat[i * 7919 % flat.numel()]):.6g}") for i in range(count)]


def digest(tensors):
    """Number, total size and FNV-1a of the sorted lines "name 1x2x3" of what a file of the network holds."""
    lines = sorted(f"{name} {networks.shape(t)}\n" for name, t in tensors.items() if is_counted(name))
    state = 0xCBF29CE484222325
    for byte in "".join(lines).encode():
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    return {"count": len(lines), "digest": f"{state:016x}"}


def loss(case):
    """Cross-entropy at the scores' size, an auxiliary head's at 0.4; without a decoder the maps' mean squares."""
    if case.scores is None:
        return sum(m.square().mean() for m in case.maps(images(*case.size).double()))
    main, auxiliary = case.scores(images(*case.size).double())
    truth = networks.labels(*main.shape[2:])
    entropy = lambda scores: torch.nn.functional.cross_entropy(scores, truth, ignore_index=-1)
    total = entropy(main)
    if auxiliary is not None:
        size = main.shape[2:]
        auxiliary = torch.nn.functional.interpolate(auxiliary, size=size, mode="bilinear", align_corners=False)
        total = total + 0.4 * entropy(auxiliary)
    return total


def row(encoder, decoder, build):
    case = build(encoder)
    case.fill()
    result = {"package": case.package, "encoder": encoder, "decoder": decoder, "size": case.size, "tensors": digest(case.tensors)}
    case.module.eval()
    with torch.no_grad():
        maps = case.maps(images(*case.size))
        result["maps"] = [{"size": list(m.shape), "norm": networks.significant(norm(m)), "values": sample(m, 8)} for m in maps]
        if case.scores is not None:
            scores = case.scores(images(*case.size))[0]
            result["scores"] = {"size": list(scores.shape), "norm": networks.significant(norm(scores)), "values": sample(scores, 32)}
    if encoder in FORWARD_ONLY:
        return result
    case.module.train(), case.module.double()
    value = loss(case)
    value.backward()
    gradients = {n: norm(p.grad) for n, p in case.parameters.items() if p.grad is not None}
    names = sorted(gradients)
    chosen = names[:: max(1, len(names) // 40)]
    result["step"] = {
        "loss": value.item(),
        "gradient": networks.significant(sum(g * g for g in gradients.values()) ** 0.5),
        "gradients": {n: float(f"{gradients[n]:.6g}") for n in chosen},
    }
    return result


def main():
    path = HERE / "packages.json"
    wanted = sys.argv[1:]  # encoders or decoders
    old = {(r["encoder"], r["decoder"]): r for r in json.loads(path.read_text())} if path.exists() else {}
    rows = []
    for encoder, decoder, build in CASES:
        if wanted and not {encoder, decoder} & set(wanted) and (encoder, decoder) in old:
            rows.append(old[encoder, decoder])
        else:
            print(encoder, decoder, flush=True)
            rows.append(row(encoder, decoder, build))
    lines = ",\n".join("  " + json.dumps(r, separators=(",", ":")) for r in rows)
    path.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
