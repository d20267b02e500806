#!/usr/bin/env python3
"""A training step of networks that transformers has as well, on the CPU: segdist beside transformers under PyTorch eager.

    python tests/measure/step.py SEGDIST [--pairs 5] [--threads 2] [--only segformer] [--rate 4] [--side 512]

Runs are taken in turn, segdist, transformers, segdist, …, in processes of their own, and a step is timed by the clock and by
CPU time; medians of the runs' medians, and the median of the ratios of neighbours. Both have random values,
two images of --side pixels (512), 150 classes, AdamW, stochastic depth, dropout, and the loss at the scores' size (`--rate 4`) or at the
image's (`--rate 1`, as transformers computes it). Threads sleep while they wait in both (OMP_WAIT_POLICY=PASSIVE), since
others may use the machine. Peak memory is that of the process, Python and its packages included; what these take alone is
printed beside it. Needs torch and transformers.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

BATCH, CLASSES, WARM_UP, STEPS = 2, 150, 3, 10
NETWORKS = {
    "segformer": ("mit_b0", "segformer", 0.1),
    "upernet": ("convnext_tiny", "uperhead", 0.4),
}


def build(name, drop_path):
    import transformers as hf

    if name == "segformer":
        return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(num_labels=CLASSES, drop_path_rate=drop_path))
    stages = {"hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3], "out_features": [f"stage{number}" for number in (1, 2, 3, 4)]}
    backbone = hf.ConvNextConfig(drop_path_rate=drop_path, **stages)
    return hf.UperNetForSemanticSegmentation(hf.UperNetConfig(backbone_config=backbone, num_labels=CLASSES, hidden_size=512))


def at_scores(name, model, images, labels):
    """The loss at the size of the scores, the auxiliary head's resized to them."""
    from torch.nn import functional as F

    entropy = lambda scores: F.cross_entropy(scores, labels, ignore_index=255)
    if name == "segformer":
        return entropy(model(images).logits)
    maps = model.backbone(images).feature_maps
    main, auxiliary = model.decode_head(maps), model.auxiliary_head(maps)
    auxiliary = F.interpolate(auxiliary, main.shape[2:], mode="bilinear", align_corners=False)
    return entropy(main) + 0.4 * entropy(auxiliary)


def peer(name, side, rate, threads):
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = build(name, NETWORKS[name][2]).train()
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-5, weight_decay=0.01)
    images = torch.randn(BATCH, 3, side, side)
    labels = torch.randint(0, CLASSES, (BATCH, side // rate, side // rate))
    walls, cpus = [], []
    for step in range(WARM_UP + STEPS):
        start = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        loss = model(images, labels=labels).loss if rate == 1 else at_scores(name, model, images, labels)
        loss.backward()
        optimizer.step()
        loss.item()
        if step >= WARM_UP:
            walls.append(time.perf_counter() - start[0])
            cpus.append(time.process_time() - start[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"wall": statistics.median(walls), "cpu": statistics.mean(cpus), "mb": peak, "base": base, "parameters": parameters}


def run(words, threads):
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def ours(options, name):
    segdist, side, rate, threads = options.segdist, options.side, options.rate, options.threads
    encoder, decoder, drop_path = NETWORKS[name]
    keys = [f"MODEL.arch_encoder={encoder}", f"MODEL.arch_decoder={decoder}", f"MODEL.drop_path={drop_path}", "MODEL.init=random"]
    keys += [f"DATASET.imgSizes=({side},)", f"DATASET.imgMaxSize={side}", f"DATASET.num_class={CLASSES}", "DATASET.padding_constant=32"]
    keys += [f"DATASET.segm_downsampling_rate={rate}", f"TRAIN.batch_size_per_gpu={BATCH}", "TRAIN.optim=AdamW", "TRAIN.lr_encoder=6e-5"]
    keys += ["TRAIN.lr_decoder=6e-5", "TRAIN.weight_decay=0.01", "DIST.device=cpu"]
    row = json.loads(run([segdist, "bench", "step", "--json", *keys], threads).splitlines()[-1])
    config = run([segdist, "config", *keys], threads)
    count = next(line.split(":")[1].split("#")[0] for line in config.splitlines() if "parameters:" in line)
    return {"wall": row["median_s"], "cpu": row["cpu_s"], "mb": row["peak_rss_mb"], "parameters": int(count.replace(",", ""))}


def compare(options, name):
    rows = []
    for _ in range(options.pairs):
        own = ours(options, name)
        words = [sys.executable, __file__, options.segdist, "--peer", name, "--side", options.side, "--rate", options.rate]
        words += ["--threads", options.threads]
        theirs = json.loads(run(words, options.threads).splitlines()[-1])
        if own["parameters"] != theirs["parameters"]:
            raise SystemExit(f"{name}: {own['parameters']} parameters, transformers' has {theirs['parameters']}")
        rows.append((own, theirs))
        print(f"  {name}: {json.dumps(own)} {json.dumps(theirs)}", file=sys.stderr, flush=True)
    middle = lambda key, side: statistics.median(row[side][key] for row in rows)
    ratio = lambda key: statistics.median(theirs[key] / own[key] for own, theirs in rows)
    encoder, decoder, _ = NETWORKS[name]
    print(f"{encoder} + {decoder}, {options.side} x {options.side}, {options.threads} threads, loss at 1/{options.rate}: "
          f"{BATCH / middle('wall', 0):.2f} and {BATCH / middle('wall', 1):.2f} images/s, ratio {ratio('wall'):.2f} by the clock, "
          f"{ratio('cpu'):.2f} by CPU time; {middle('mb', 0):.0f} and {middle('mb', 1):.0f} MB, {1 / ratio('mb'):.2f} "
          f"({middle('base', 1):.0f} MB of it before the first step)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("segdist")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rate", type=int, default=4, choices=[1, 4])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--peer", choices=NETWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(peer(options.peer, options.side, options.rate, options.threads)))
        return
    for name in [options.only] if options.only else NETWORKS:
        compare(options, name)


if __name__ == "__main__":
    main()
