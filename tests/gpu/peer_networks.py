"""SegFormer (Xie et al. 2021) and UPerNet (Xiao et al. 2018) over ConvNeXt (Liu et al. 2022) in plain PyTorch, for peer.py.

Layer for layer what transformers runs, which the machine need not have; its parameters are as many.
"""
import torch
from torch import nn
from torch.nn import functional as F


def to_tokens(x):
    return x.flatten(2).transpose(1, 2)


def to_map(x, size):
    return x.transpose(1, 2).reshape(x.shape[0], -1, *size)


def resized(x, like):
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


class DropPath(nn.Module):
    """Leaves out the branch of some images."""

    def __init__(self, probability):
        super().__init__()
        self.probability = probability

    def forward(self, x):
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        mask = torch.rand((x.shape[0],) + (1,) * (x.dim() - 1), device=x.device).add_(keep).floor_().to(x.dtype)
        return x.div(keep) * mask


class MitBlock(nn.Module):
    def __init__(self, width, heads, reduction, drop):
        super().__init__()
        self.heads, self.drop = heads, DropPath(drop)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.reduce = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.reduce_norm = nn.LayerNorm(width) if reduction > 1 else None
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.depthwise = nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width)

    def attend(self, x, size):
        source = self.reduce_norm(to_tokens(self.reduce(to_map(x, size)))) if self.reduce else x
        split = lambda y: y.unflatten(2, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(split(self.query(x)), split(self.key(source)), split(self.value(source)))
        return self.output(y.transpose(1, 2).flatten(2))

    def forward(self, x, size):
        x = x + self.drop(self.attend(self.norms[0](x), size))
        y = to_tokens(self.depthwise(to_map(self.widen(self.norms[1](x)), size)))
        return x + self.drop(self.narrow(F.gelu(y)))


class SegFormer(nn.Module):
    """B0."""

    def __init__(self, classes, drop_path):
        super().__init__()
        widths, inputs, blocks = (32, 64, 160, 256), 3, []
        rates = torch.linspace(0, drop_path, 8).tolist()
        self.patches, self.blocks = nn.ModuleList(), nn.ModuleList()
        for stage, (width, heads, reduction) in enumerate(zip(widths, (1, 2, 5, 8), (8, 4, 2, 1))):
            side, stride = (7, 4) if stage == 0 else (3, 2)
            self.patches.append(nn.Conv2d(inputs, width, side, stride, side // 2))
            blocks = [MitBlock(width, heads, reduction, rates[2 * stage + index]) for index in range(2)]
            self.blocks.append(nn.ModuleList(blocks))
            inputs = width
        self.patch_norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.projections = nn.ModuleList(nn.Linear(width, 256) for width in widths)
        self.fuse = nn.Sequential(nn.Conv2d(1024, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(), nn.Dropout(0.1))
        self.last = nn.Conv2d(256, classes, 1)

    def forward(self, x):
        maps = []
        for patches, patch_norm, blocks, norm in zip(self.patches, self.patch_norms, self.blocks, self.norms):
            x = patches(x)
            size = x.shape[2:]
            x = patch_norm(to_tokens(x))
            for block in blocks:
                x = block(x, size)
            x = to_map(norm(x), size).contiguous()
            maps.append(x)
        parts = [resized(to_map(layer(to_tokens(m)), m.shape[2:]), maps[0]) for layer, m in zip(self.projections, maps)]
        return [self.last(self.fuse(torch.cat(parts[::-1], 1)))]


class ChannelNorm(nn.LayerNorm):
    """Over the channels of (n, channels, h, w)."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, width, drop):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))
        self.drop = DropPath(drop)

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(F.gelu(self.widen(y)))
        return x + self.drop(y.permute(0, 3, 1, 2))


def conv_norm_relu(inputs, outputs, side):
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class UPerNet(nn.Module):
    """Over ConvNeXt tiny, 512 wide, with the auxiliary head on the third map."""

    def __init__(self, classes, drop_path):
        super().__init__()
        widths, depths = (96, 192, 384, 768), (3, 3, 9, 3)
        rates = iter(torch.linspace(0, drop_path, sum(depths)).tolist())
        self.stages = nn.ModuleList()
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            first = [nn.Conv2d(3, width, 4, 4), ChannelNorm(width, eps=1e-6)]
            if stage > 0:
                first = [ChannelNorm(widths[stage - 1], eps=1e-6), nn.Conv2d(widths[stage - 1], width, 2, 2)]
            self.stages.append(nn.Sequential(*first, *(ConvNextBlock(width, next(rates)) for _ in range(depth))))
        self.norms = nn.ModuleList(ChannelNorm(width, eps=1e-6) for width in widths)
        self.cells = (1, 2, 3, 6)
        self.pools = nn.ModuleList(conv_norm_relu(768, 512, 1) for _ in self.cells)
        self.bottleneck = conv_norm_relu(768 + 4 * 512, 512, 3)
        self.laterals = nn.ModuleList(conv_norm_relu(width, 512, 1) for width in widths[:-1])
        self.outputs = nn.ModuleList(conv_norm_relu(512, 512, 3) for _ in widths[:-1])
        self.fuse, self.last = conv_norm_relu(4 * 512, 512, 3), nn.Conv2d(512, classes, 1)
        self.auxiliary = nn.Sequential(conv_norm_relu(384, 256, 3), nn.Conv2d(256, classes, 1))

    def forward(self, x):
        maps = []
        for stage, norm in zip(self.stages, self.norms):
            x = stage(x)
            maps.append(norm(x))
        pooled = [resized(pool(F.adaptive_avg_pool2d(maps[-1], cells)), maps[-1]) for pool, cells in zip(self.pools, self.cells)]
        levels = [layer(m) for layer, m in zip(self.laterals, maps)]
        levels.append(self.bottleneck(torch.cat([maps[-1], *pooled], 1)))
        for index in (2, 1, 0):
            levels[index] = levels[index] + resized(levels[index + 1], levels[index])
        outputs = [layer(level) for layer, level in zip(self.outputs, levels)] + [levels[-1]]
        main = self.last(self.fuse(torch.cat([resized(level, outputs[0]) for level in outputs], 1)))
        return [main, resized(self.auxiliary(maps[2]), main)]


NETWORKS = {"mit_b0-segformer": (SegFormer, 0.1), "convnext_tiny-uperhead": (UPerNet, 0.4)}
