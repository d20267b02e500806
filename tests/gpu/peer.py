"""The networks of the benchmarks in PyTorch, and a training step of them, timed: what segdist is compared with.

    peer.py '{"arch": "resnet50dilated-ppm_deepsup", "batch": 2, "height": 600, "width": 800, "device": "cuda"}'

Same layers and shapes as segdist's own (He et al. 2015 with a stem of three convolutions; Zhao et al. 2017; peer_networks.py):
the number of parameters, which is printed, must be the one that `segdist config` prints.
"""
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

from peer_networks import NETWORKS

CLASSES = 150


def conv_norm(inputs, outputs, kernel, stride=1, dilation=1):
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_norm_relu(*args, **kwargs):
    return nn.Sequential(*conv_norm(*args, **kwargs), nn.ReLU(inplace=True))


class Block(nn.Module):
    """Two convolutions of 3 × 3, or 1 × 1, 3 × 3, 1 × 1 with four times the width at the end; and a way around them."""

    def __init__(self, inputs, width, stride, dilations, bottleneck):
        super().__init__()
        outputs = width * 4 if bottleneck else width
        first, second = dilations
        if bottleneck:
            layers = [conv_norm_relu(inputs, width, 1), conv_norm_relu(width, width, 3, stride, first), conv_norm(width, outputs, 1)]
        else:
            layers = [conv_norm_relu(inputs, width, 3, stride, first), conv_norm(width, width, 3, 1, second)]
        self.layers = nn.Sequential(*layers)
        same = stride == 1 and inputs == outputs
        self.around = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x):
        return F.relu(self.layers(x) + self.around(x), inplace=True)


class ResNetDilated(nn.Module):
    """Output stride 8: the last two stages do not shrink, and look 2 and 4 pixels apart."""

    def __init__(self, depths, bottleneck):
        super().__init__()
        self.stem = nn.Sequential(
            conv_norm_relu(3, 64, 3, 2), conv_norm_relu(64, 64, 3), conv_norm_relu(64, 128, 3), nn.MaxPool2d(3, 2, 1)
        )
        inputs, stages = 128, []
        for width, depth, stride, dilation in zip((64, 128, 256, 512), depths, (1, 2, 1, 1), (1, 1, 2, 4)):
            blocks = []
            for index in range(depth):
                # The first block of a stage that lost its stride is half as far apart.
                around = max(dilation // 2, 1) if index == 0 else dilation
                blocks.append(Block(inputs, width, stride if index == 0 else 1, (around, dilation), bottleneck))
                inputs = width * 4 if bottleneck else width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.width = inputs

    def forward(self, x):
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class PyramidPooling(nn.Module):
    """Means over 1, 2, 3 and 6 cells a side beside the map itself, and a second head on the map before the last."""

    def __init__(self, width, classes):
        super().__init__()
        self.cells = (1, 2, 3, 6)
        self.means = nn.ModuleList(conv_norm_relu(width, 512, 1) for _ in self.cells)
        self.last = nn.Sequential(
            conv_norm_relu(width + 512 * 4, 512, 3), nn.Dropout2d(0.1), nn.Conv2d(512, classes, 1)
        )
        self.deepsup = nn.Sequential(
            conv_norm_relu(width // 2, width // 4, 3), nn.Dropout2d(0.1), nn.Conv2d(width // 4, classes, 1)
        )

    def forward(self, maps):
        x = maps[-1]
        size = x.shape[2:]
        parts = [x]
        for cells, layer in zip(self.cells, self.means):
            pooled = F.adaptive_avg_pool2d(x, cells)
            parts.append(layer(F.interpolate(pooled, size, mode="bilinear", align_corners=False)))
        return self.last(torch.cat(parts, 1)), self.deepsup(maps[-2])


class Network(nn.Module):
    def __init__(self, arch, classes):
        super().__init__()
        encoder, decoder = arch.split("-")
        depths = {"resnet18dilated": (2, 2, 2, 2), "resnet50dilated": (3, 4, 6, 3), "resnet101dilated": (3, 4, 23, 3)}
        if encoder not in depths or decoder != "ppm_deepsup":
            raise SystemExit(f"peer.py: there is no {arch}")
        self.encoder = ResNetDilated(depths[encoder], bottleneck=encoder != "resnet18dilated")
        self.decoder = PyramidPooling(self.encoder.width, classes)

    def forward(self, x):
        return self.decoder(self.encoder(x))


def loss_of(scores, labels):
    weighted = zip((1.0, 0.4), scores)
    return sum(weight * F.cross_entropy(part.float(), labels, ignore_index=-1) for weight, part in weighted)


def built(arch):
    """The network, the stride of its scores, and its optimizer over groups of parameters."""
    if arch in NETWORKS:
        network, drop_path = NETWORKS[arch]
        return network(CLASSES, drop_path), 4, lambda groups: torch.optim.AdamW(groups, lr=6e-5, fused=True)
    return Network(arch, CLASSES), 8, lambda groups: torch.optim.SGD(groups, lr=0.02, momentum=0.9, fused=True)


def main():
    with_defaults = {"batch": 2, "height": 64, "width": 96, "device": "cpu", "amp": None, "channels_last": False}
    with_defaults |= {"compile": False, "steps": 10, "warm_up": 3, "tf32": True}
    spec = with_defaults | json.loads(sys.argv[1])
    device = torch.device(spec["device"])
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = spec["tf32"]
    torch.manual_seed(1)
    network, stride, optimizer = built(spec["arch"])
    network = network.to(device).train()
    order = torch.channels_last if spec["channels_last"] else torch.contiguous_format
    network = network.to(memory_format=order)
    weights = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() == 1]
    groups = [{"params": weights, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = optimizer(groups)
    size = (spec["batch"], 3, spec["height"], spec["width"])
    images = torch.randn(size, device=device).to(memory_format=order)
    labels = torch.randint(-1, CLASSES, (size[0], -(-size[2] // stride), -(-size[3] // stride)), device=device)
    run = torch.compile(network) if spec["compile"] else network
    amp = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(spec["amp"])

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, amp or torch.bfloat16, enabled=amp is not None):
            scores = run(images)
        loss_of(scores, labels).backward()
        optimizer.step()

    seconds = []
    for index in range(spec["warm_up"] + spec["steps"]):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if index >= spec["warm_up"]:
            seconds.append(time.perf_counter() - start)
    seconds.sort()
    result = {"parameters": sum(p.numel() for p in network.parameters()), "median_s": seconds[len(seconds) // 2]}
    if device.type == "cuda":
        result["peak_device_mb"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps(result))


main()
