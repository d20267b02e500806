"""Writes the golden files that networks.rs and parity.rs of tests/library compare with, from the reference itself.

    python tests/golden/networks.py PATH_OF_THE_REFERENCE [FILE...]

PATH_OF_THE_REFERENCE is a checkout of CSAILVision/semantic-segmentation-pytorch; without FILE, all are
written. Needs PyTorch 2.11, numpy, and what the reference's train.py imports.

networks-tensors.txt: names and shapes of every encoder's, and every encoder's decoders', state dict.
networks.json: for a selection of pairs, filled by `fill`, scores at fixed places, norms of the feature maps, and one
training step.
parity.json: losses and running statistics of a few steps of the reference's SGD.
"""

import json
import pathlib
import sys
import types

import numpy
import torch

HERE = pathlib.Path(__file__).parent
ENCODERS = [
    "mobilenetv2dilated", "resnet18", "resnet18dilated", "resnet34", "resnet34dilated", "resnet50", "resnet50dilated",
    "resnet101", "resnet101dilated", "resnext101", "hrnetv2",
]
DECODERS = ["c1", "c1_deepsup", "ppm", "ppm_deepsup", "upernet", "upernet_lite"]
# What a batch norm keeps in a state dict, in this order.
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked", "_tmp_running_mean",
        "_tmp_running_var", "_running_iter"]
CLASSES = 7
BATCH, HEIGHT, WIDTH = 2, 64, 96

# Every encoder once or more, every decoder once or more.
PAIRS = [
    ("mobilenetv2dilated", "c1_deepsup"), ("resnet18", "upernet"), ("resnet18dilated", "ppm_deepsup"),
    ("resnet18dilated", "c1_deepsup"), ("resnet34", "c1"), ("resnet34dilated", "ppm"), ("resnet50", "upernet_lite"),
    ("resnet50dilated", "ppm_deepsup"), ("resnet101", "upernet_lite"), ("resnet101dilated", "c1_deepsup"),
    ("resnext101", "ppm"), ("hrnetv2", "c1"), ("mobilenetv2dilated", "upernet_lite"),
]

# Pairs whose training is compared over several steps; none has dropout.
TRAINED = [("resnet18dilated", "c1_deepsup"), ("mobilenetv2dilated", "c1_deepsup"), ("hrnetv2", "c1")]

# With batch statistics MobileNet's second loss depends on rounding: at 1e-3 the reference differs from itself on one and
# two threads by 1e-4.
BATCH_LR = 1e-5


def mix(words):
    """The finaliser of splitmix64 (Steele et al. 2014) on an array of u64."""
    words = words ^ (words >> numpy.uint64(30))
    words = words * numpy.uint64(0xBF58476D1CE4E5B9)
    words = words ^ (words >> numpy.uint64(27))
    words = words * numpy.uint64(0x94D049BB133111EB)
    return words ^ (words >> numpy.uint64(31))


def uniform(name, count):
    """`count` numbers in [-1, 1) that are a function of the name and the index: FNV-1a of the name plus the index times
    the golden ratio, mixed; the upper 24 bits."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    with numpy.errstate(over="ignore"):
        index = numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
        words = mix(numpy.uint64(state) + index)
    return ((words >> numpy.uint64(40)).astype(numpy.float64) / 2**23 - 1.0).astype(numpy.float32)


def value(name, shape):
    """What a tensor of the network is filled with: activations stay near 1 and no two channels are alike."""
    count = int(numpy.prod(shape))
    noise = uniform(name, count)
    last = name.rsplit(".", 1)[1]
    if len(shape) == 4:
        scale = (3.0 * 2.0 / (shape[1] * shape[2] * shape[3])) ** 0.5
        data = noise * numpy.float32(scale)
    elif last == "weight":
        # Where residual blocks and HRNet's branches are added up, the added part is the smaller one.
        added = any(part in ("bn2", "bn3", "fuse_layers") for part in name.split("."))
        data = (0.3 if added else 1.0) * (0.75 + 0.25 * noise)
    elif last in ("bias", "running_mean", "_tmp_running_mean"):
        data = 0.1 * noise
    elif last in ("running_var", "_tmp_running_var"):
        data = 1.0 + 0.25 * noise
    elif last == "_running_iter":
        data = numpy.ones(1)
    else:
        data = numpy.zeros(count)
    return torch.from_numpy(numpy.asarray(data, dtype=numpy.float32).reshape(shape))


def fill(module, prefix):
    for name, tensor in module.state_dict().items():
        # The sums stand for the running statistics, as their count is 1.
        source = name.replace("_tmp_running", "running")
        tensor.copy_(value(f"{prefix}.{source}", tuple(tensor.shape)))


def build(models, encoder, decoder, classes):
    """The reference's modules, with what it leaves out: ResNet-34, and lateral widths that follow the encoder."""
    if encoder.startswith("resnet34"):
        trunk = models.resnet.ResNet(models.resnet.BasicBlock, [3, 4, 6, 3])
        net = models.ResnetDilated(trunk) if encoder.endswith("dilated") else models.Resnet(trunk)
    else:
        net = random_encoder(models, encoder)
    with torch.no_grad():
        net.eval()
        widths = [m.shape[1] for m in net(torch.zeros(1, 3, 64, 64), return_feature_maps=True)]
    if decoder.endswith("deepsup") and len(widths) < 2 or decoder.startswith("upernet") and len(widths) < 4:
        return net, None
    if decoder.startswith("upernet"):
        width = 256 if decoder == "upernet_lite" else 512
        head = models.UPerNet(num_class=classes, fc_dim=widths[-1], fpn_inplanes=widths, fpn_dim=width)
    else:
        head = models.ModelBuilder.build_decoder(arch=decoder, fc_dim=widths[-1], num_class=classes)
    return net, head


def random_encoder(models, encoder):
    if encoder == "mobilenetv2dilated":
        return models.MobileNetV2Dilated(models.mobilenet.mobilenetv2())
    if encoder == "resnext101":
        return models.Resnet(models.resnext.resnext101())
    if encoder == "hrnetv2":
        return models.hrnet.hrnetv2()
    trunk = getattr(models.resnet, encoder.removesuffix("dilated"))()
    return models.ResnetDilated(trunk) if encoder.endswith("dilated") else models.Resnet(trunk)


def tensor_list(models):
    lines, decoders = [], {}
    for encoder in ENCODERS:
        for number, decoder in enumerate(DECODERS):
            with torch.device("meta"):
                net, head = build(models, encoder, decoder, 150)
            if number == 0:
                lines.append(f"[{encoder}]")
                lines += rows(net)
            if head is not None:
                decoders.setdefault((decoder, tuple(rows(head))), []).append(encoder)
    for (decoder, tensors), encoders in decoders.items():
        lines.append(f"[{decoder} after {' '.join(encoders)}]")
        lines += tensors
    return "\n".join(lines) + "\n"


def rows(module):
    """A line per tensor of the state dict, but one for the eight of a batch norm, which must be as expected."""
    state = module.state_dict()
    norms = {n for n, m in module.named_modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)}
    result = []
    for name, tensor in state.items():
        parent = name.rpartition(".")[0]
        if parent in norms:
            if name.endswith("weight"):
                assert [n for n in state if n.rpartition(".")[0] == parent] == [f"{parent}.{n}" for n in NORM], parent
                result.append(f"{parent} norm {shape(tensor)}")
        else:
            result.append(f"{name} {shape(tensor)}")
    return result


def shape(tensor):
    return "x".join(map(str, tensor.shape))


def images():
    return torch.from_numpy(uniform("images", BATCH * 3 * HEIGHT * WIDTH).reshape(BATCH, 3, HEIGHT, WIDTH) * 2)


def labels(height, width):
    """Classes 0..CLASSES and -1, every ninth pixel or so."""
    draws = uniform("labels", BATCH * height * width).astype(numpy.float64)
    classes = numpy.floor((draws + 1) / 2 * (CLASSES + 1)).astype(numpy.int64) - 1
    return torch.from_numpy(classes.reshape(BATCH, height, width))


def norm(tensor):
    return float(tensor.detach().double().norm())


def significant(number):
    return float(f"{number:.8g}")


def golden(models, encoder, decoder):
    net, head = build(models, encoder, decoder, CLASSES)
    fill(net, "encoder")
    fill(head, "decoder")
    for module in [*net.modules(), *head.modules()]:
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    result = {"encoder": encoder, "decoder": decoder}

    net.eval(), head.eval()
    with torch.no_grad():
        maps = net(images(), return_feature_maps=True)
        result["maps"] = [significant(norm(m)) for m in maps]
        scores = log_scores(head, maps)[0]
    result["size"] = list(scores.shape)
    flat = scores.flatten()
    places = [i * 7919 % flat.numel() for i in range(32)]
    result["log_scores"] = [significant(float(flat[i])) for i in places]

    net.train(), head.train()
    result["step"] = step(models, net, head)
    return result


def log_scores(head, maps):
    scores = head(maps)
    return scores if isinstance(scores, tuple) else (scores,)


def parameters(net, head):
    named = [(f"encoder.{n}", p) for n, p in net.named_parameters()]
    return named + [(f"decoder.{n}", p) for n, p in head.named_parameters()]


def forward_loss(net, head):
    """The training loss of the fixed batch, the scores and the labels."""
    criterion = torch.nn.NLLLoss(ignore_index=-1)
    scores = log_scores(head, net(images().to(next(net.parameters()).dtype), return_feature_maps=True))
    truth = labels(*scores[0].shape[2:])
    loss = criterion(scores[0], truth)
    if len(scores) == 2:
        loss = loss + 0.4 * criterion(scores[1], truth)
    return loss, scores[0], truth


def step(models, net, head):
    """Loss, pixel accuracy and gradient norms with batch statistics; in f64, since otherwise rounding, which differs from
    processor to processor, moves inputs of ReLUs over 0 and gradients by up to 1e-2."""
    net.double(), head.double()
    loss, scores, truth = forward_loss(net, head)
    loss.backward()
    return {
        "loss": loss.item(),
        "accuracy": models.SegmentationModuleBase().pixel_acc(scores, truth).item(),
        "gradients": [significant(norm(parameter.grad)) for _, parameter in parameters(net, head)],
    }


def training(models, encoder, decoder, steps, lr, fix_bn, debiased=False):
    """Losses of `steps` updates by the reference's optimizer and schedule, and the norms of the running statistics.

    `debiased` applies the rule of the reference's batch norm over several GPUs, by its own code.
    """
    import train

    net, head = build(models, encoder, decoder, CLASSES)
    fill(net, "encoder"), fill(head, "decoder")
    net.train(not fix_bn), head.train(not fix_bn)
    norms = [m for m in [*net.modules(), *head.modules()] if isinstance(m, models.BatchNorm2d)]
    if debiased:
        for layer in norms:
            layer.register_forward_hook(observe)
    keys = types.SimpleNamespace(lr_encoder=lr, lr_decoder=lr, beta1=0.9, weight_decay=1e-4, lr_pow=0.9, max_iters=steps)
    keys = types.SimpleNamespace(TRAIN=keys)
    optimizers = train.create_optimizers((net, head, None), keys)
    losses = []
    for number in range(steps):
        train.adjust_learning_rate(optimizers, number, keys)
        net.zero_grad(), head.zero_grad()
        loss = forward_loss(net, head)[0]
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    statistics = [[significant(norm(m.running_mean)), significant(norm(m.running_var))] for m in norms]
    return {"losses": losses, "statistics": statistics}


def observe(layer, inputs, _):
    """Replaces what plain batch norm left in the running statistics by the multi-GPU rule's."""
    values = inputs[0].detach().double()
    count = values.numel() // values.shape[1]
    total, squares = values.sum((0, 2, 3)), (values**2).sum((0, 2, 3))
    layer._compute_mean_std(total, squares, count)
    for name in NORM[2:4] + NORM[5:]:
        setattr(layer, name, getattr(layer, name).float())


def parity(models, encoder, decoder):
    return {
        "encoder": encoder,
        "decoder": decoder,
        "batch": training(models, encoder, decoder, 2, BATCH_LR, fix_bn=False),
        "debiased": training(models, encoder, decoder, 2, BATCH_LR, fix_bn=False, debiased=True),
        "fix_bn": training(models, encoder, decoder, 10, 1e-3, fix_bn=True)["losses"],
    }


def main():
    sys.path.insert(0, sys.argv[1])
    from mit_semseg.models import models

    files = {
        "networks-tensors.txt": lambda: tensor_list(models),
        "networks.json": lambda: lines(golden, models, PAIRS),
        "parity.json": lambda: lines(parity, models, TRAINED),
    }
    for name in sys.argv[2:] or files:
        (HERE / name).write_text(files[name]())


def lines(measure, models, pairs):
    """A JSON array with one line per pair."""
    result = []
    for pair in pairs:
        result.append("  " + json.dumps(measure(models, *pair), separators=(",", ":")))
        print(*pair, file=sys.stderr)
    return "[\n" + ",\n".join(result) + "\n]\n"


if __name__ == "__main__":
    main()
