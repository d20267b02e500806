"""Writes parameter_groups.txt and parameter_groups.json, which tests/library/parameter_groups.rs compares with.

    python tests/golden/parameter_groups.py

Needs PyTorch 2.11, mmengine, and mmsegmentation 1.2 (its files alone: mmcv is not imported).

The table: learning-rate factor and decay of every parameter by mmsegmentation's own constructors and the paramwise_cfg
of its own configurations, under our names. The other file: ten steps of torch.optim.AdamW over groups with layer decay.
"""

import importlib.util
import json
import pathlib
import sys
import types

import mmengine.registry
import torch
from mmengine.optim import DefaultOptimWrapperConstructor

HERE = pathlib.Path(__file__).parent
MMSEG = pathlib.Path(importlib.util.find_spec("mmengine").origin).parents[1] / "mmseg"


def constructors():
    """mmsegmentation's file, without the package around it, which asks for mmcv."""
    registry = types.ModuleType("mmseg.registry")
    registry.OPTIM_WRAPPER_CONSTRUCTORS = mmengine.registry.OPTIM_WRAPPER_CONSTRUCTORS
    sys.modules["mmseg"], sys.modules["mmseg.registry"] = types.ModuleType("mmseg"), registry
    path = MMSEG / "engine/optimizers/layer_decay_optimizer_constructor.py"
    spec = importlib.util.spec_from_file_location("layer_decay", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(path):
    """optim_wrapper of one of its configurations."""
    values = {}
    exec((MMSEG / ".mim/configs" / path).read_text(), values)
    return values["optim_wrapper"]


def renamed(pairs, theirs, ours):
    """(mmsegmentation's name, number of dimensions, our names) of `pairs`, ends of names and numbers of dimensions."""
    return [(theirs + part, dims, [name + part for name in ours]) for part, dims in pairs]


def layer(theirs, *ours):
    return renamed([(".weight", 2), (".bias", 1)], theirs, ours)


def norms(theirs, *ours):
    return renamed([(".weight", 1), (".bias", 1)], theirs, ours)


def mit_b0():
    rows = []
    for i in range(4):
        rows += layer(f"backbone.layers.{i}.0.projection", f"encoder.patch_embeddings.{i}.proj")
        rows += norms(f"backbone.layers.{i}.0.norm", f"encoder.patch_embeddings.{i}.layer_norm")
        for j in range(2):
            theirs, ours = f"backbone.layers.{i}.1.{j}", f"encoder.block.{i}.{j}"
            rows += norms(f"{theirs}.norm1", f"{ours}.layer_norm_1") + norms(f"{theirs}.norm2", f"{ours}.layer_norm_2")
            parts = [f"{ours}.attention.self.{part}" for part in ("query", "key", "value")]
            rows += renamed([("weight", 2), ("bias", 1)], f"{theirs}.attn.attn.in_proj_", [f"{part}." for part in parts])
            rows += layer(f"{theirs}.attn.attn.out_proj", f"{ours}.attention.output.dense")
            if i < 3:
                rows += layer(f"{theirs}.attn.sr", f"{ours}.attention.self.sr")
                rows += norms(f"{theirs}.attn.norm", f"{ours}.attention.self.layer_norm")
            rows += layer(f"{theirs}.ffn.layers.0", f"{ours}.mlp.dense1")
            rows += layer(f"{theirs}.ffn.layers.1", f"{ours}.mlp.dwconv.dwconv")
            rows += layer(f"{theirs}.ffn.layers.4", f"{ours}.mlp.dense2")
        rows += norms(f"backbone.layers.{i}.2", f"encoder.layer_norm.{i}")
        rows += layer(f"decode_head.linear_c.{i}.proj", f"decoder.linear_c.{i}.proj")
    rows += [("decode_head.linear_fuse.conv.weight", 4, ["decoder.linear_fuse.weight"])]
    rows += norms("decode_head.linear_fuse.bn", "decoder.batch_norm")
    return rows + layer("decode_head.linear_pred", "decoder.classifier")


def convnext_tiny():
    rows = layer("backbone.downsample_layers.0.0", "encoder.embeddings.patch_embeddings")
    rows += norms("backbone.downsample_layers.0.1", "encoder.embeddings.layernorm")
    for i, depth in enumerate([3, 3, 9, 3]):
        if i > 0:
            rows += norms(f"backbone.downsample_layers.{i}.0", f"encoder.stages.{i}.downsampling_layer.0")
            rows += layer(f"backbone.downsample_layers.{i}.1", f"encoder.stages.{i}.downsampling_layer.1")
        for j in range(depth):
            theirs, ours = f"backbone.stages.{i}.{j}", f"encoder.stages.{i}.layers.{j}"
            rows += [(f"{theirs}.gamma", 1, [f"{ours}.layer_scale_parameter"])]
            rows += layer(f"{theirs}.depthwise_conv", f"{ours}.dwconv") + norms(f"{theirs}.norm", f"{ours}.layernorm")
            rows += layer(f"{theirs}.pointwise_conv1", f"{ours}.pwconv1")
            rows += layer(f"{theirs}.pointwise_conv2", f"{ours}.pwconv2")
        rows += norms(f"backbone.norm{i}", f"encoder.hidden_states_norms.stage{i + 1}")
    return rows + norms("decode_head.bn", "decoder.bn") + layer("decode_head.conv_seg", "decoder.conv_seg")


def vit_small():
    rows = [("backbone.cls_token", 3, ["encoder.cls_token"]), ("backbone.pos_embed", 3, ["encoder.pos_embed"])]
    rows += layer("backbone.patch_embed.projection", "encoder.patch_embed.proj")
    for i in range(12):
        theirs, ours = f"backbone.layers.{i}", f"encoder.blocks.{i}"
        rows += norms(f"{theirs}.ln1", f"{ours}.norm1") + norms(f"{theirs}.ln2", f"{ours}.norm2")
        rows += [(f"{theirs}.gamma_{k}", 1, [f"{ours}.ls{k}.gamma"]) for k in (1, 2)]
        rows += layer(f"{theirs}.attn.qkv", f"{ours}.attn.qkv") + layer(f"{theirs}.attn.proj", f"{ours}.attn.proj")
        rows += layer(f"{theirs}.ffn.layers.0.0", f"{ours}.mlp.fc1") + layer(f"{theirs}.ffn.layers.1", f"{ours}.mlp.fc2")
    rows += norms("backbone.ln1", "encoder.norm")
    return rows + norms("decode_head.bn", "decoder.bn") + layer("decode_head.conv_seg", "decoder.conv_seg")


def network(rows, backbone):
    """A module with one parameter for each of mmsegmentation's names."""
    root = torch.nn.Module()
    root.backbone = type(backbone, (torch.nn.Module,), {})()
    for name, dims, _ in rows:
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_parameter(last, torch.nn.Parameter(torch.zeros([1] * dims)))
    return root


def table(title, rows, backbone, path, constructor):
    wrapper = config(path)
    base = dict(type="AdamW", lr=1.0, weight_decay=1.0)
    module = network(rows, backbone)
    built = constructor(dict(type="OptimWrapper", optimizer=base), wrapper["paramwise_cfg"])(module)
    found = {}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for group in built.optimizer.param_groups:
        for parameter in group["params"]:
            found[names[id(parameter)]] = group["lr"], group["weight_decay"]
    lines = [f"[{title}] {path}"]
    for name, _, ours in rows:
        lr, decay = found[name]
        lines += [f"{own} {lr!r} {'decays' if decay else '-'}" for own in ours]
    return lines


def adamw():
    """Parameters of three layers and a head after ten steps, their rates 0.65 apart."""
    shapes = {"encoder.0.weight": (4, 3), "encoder.0.bias": (4,), "encoder.1.weight": (4, 4), "encoder.2.weight": (5, 4),
              "encoder.2.bias": (5,), "decoder.weight": (3, 5), "decoder.bias": (3,)}
    above = {"0": 3, "1": 2, "2": 1}

    def ramp(shape, scale, shift):
        count = int(torch.tensor(shape).prod())
        return torch.sin(torch.arange(count, dtype=torch.float32) * scale + shift).reshape(shape)

    tensors = {name: ramp(shape, 0.37, i).requires_grad_() for i, (name, shape) in enumerate(shapes.items())}
    groups = []
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        lr = 0.01 * 0.65 ** above[rest[0]] if part == "encoder" else 0.02 * 10
        groups.append({"params": [tensor], "lr": lr, "weight_decay": 0.05 if name.endswith("weight") else 0.0})
    optimizer = torch.optim.AdamW(groups, betas=(0.85, 0.98), eps=1e-6)
    for step in range(10):
        for i, (name, tensor) in enumerate(tensors.items()):
            tensor.grad = ramp(shapes[name], 0.9, i + step)
        optimizer.step()
    return {name: tensor.flatten().tolist() for name, tensor in tensors.items()}


def main():
    own = constructors()
    lines = table("mit_b0 segformer", mit_b0(), "MixVisionTransformer",
                  "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py", DefaultOptimWrapperConstructor)
    lines += table("convnext_tiny linear", convnext_tiny(), "ConvNeXt",
                   "convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py", own.LearningRateDecayOptimizerConstructor)
    lines += table("dinov2_vits14 linear", vit_small(), "MAE",
                   "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py", own.LayerDecayOptimizerConstructor)
    (HERE / "parameter_groups.txt").write_text("\n".join(lines) + "\n")
    (HERE / "parameter_groups.json").write_text(json.dumps(adamw()) + "\n")


main()
