#!/usr/bin/env python3
"""A SegFormer-B0 of transformers, fine-tuned for ten steps on 1, 2 and 4 ranks and given back.

    python tests/golden/fine_tune.py SEGDIST MPIRUN

Four images a step, by the recipe of configs/ade20k-mit_b0-segformer.yaml with crops that no image is too small for, in two
settings. `together`: the ranks share the
four images, as batch_size_per_gpu 4, 2 and 1; batch statistics cover all of them. `one by one`: batch_size_per_gpu is 1, so
that one rank computes four rounds of one image, and batch norm keeps the statistics of the file: those of a batch cover a
round, as many images as there are ranks, and would be others on other numbers of ranks.

Ends with code 1 where losses differ by more than 1e-4 between numbers of ranks, or where the label maps of `segdist predict`
and of the folder that `segdist convert --to hf` wrote, opened by transformers, differ in more than 0.1 % of the pixels.
Needs torch, transformers and Pillow.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from PIL import Image

from weight_files import MIT, fill, run

CLASSES, SIDE, STEPS, IMAGES = 5, 128, 10, 4
RANKS = (1, 2, 4)
RECIPE = [f"TRAIN.epoch_iters={STEPS}", "TRAIN.num_epoch=1", f"TRAIN.global_batch={IMAGES}", "TRAIN.disp_iter=1", "TRAIN.workers=1",
          "TRAIN.optim=AdamW", "TRAIN.lr_encoder=6e-5", "TRAIN.lr_decoder=6e-4", "TRAIN.lr_pow=1.0", "TRAIN.weight_decay=0.01",
          "MODEL.drop_path=0.1", "DATASET.random_flip=True", "DATASET.scale_jitter=[1.0,2.0]", f"DATASET.crop={SIDE}"]
SETTINGS = {
    "together": lambda ranks: [f"TRAIN.batch_size_per_gpu={IMAGES // ranks}"],
    "one by one": lambda ranks: ["TRAIN.batch_size_per_gpu=1", "TRAIN.fix_bn=True"],
}


def train(segdist, mpirun, ranks, run_folder, words):
    start = [mpirun, "--oversubscribe", "--bind-to", "none", "-np", ranks] if ranks > 1 else []
    said = run(*start, segdist, "train", f"DIR={run_folder}", *RECIPE, *words)
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["event"] == "train"]
    assert len(losses) == STEPS
    return said, losses


def trained(segdist, mpirun, folder, keys):
    """The largest relative difference of a loss from that of one rank; the runs are in the folder."""
    worst = 0.0
    weights = [f"MODEL.weights_{part}={folder / 'hf'}" for part in ("encoder", "decoder")]
    for setting, more in SETTINGS.items():
        losses = {}
        for ranks in RANKS:
            words = [*keys, *weights, *more(ranks)]
            said, losses[ranks] = train(segdist, mpirun, ranks, folder / f"{setting}-{ranks}", words)
            print(f"{setting}, {ranks} ranks: " + " ".join(f"{loss:.6f}" for loss in losses[ranks]), flush=True)
        apart = [max(abs(a - b) / b for a, b in zip(losses[ranks], losses[1])) for ranks in RANKS[1:]]
        print(f"{setting}: losses differ by {max(apart):.1e} at most")
        worst = max(worst, *apart)
    print(*[line for line in said.splitlines() if "names of" in line], sep="\n")
    return worst


def main():
    segdist, mpirun = sys.argv[1:]
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    print(f"torch {torch.__version__}, transformers {hf.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run(segdist, "demo-data", "--out", folder / "data")
        found = sorted(path for path in (folder / "data").rglob("*.odgt"))
        training, validation = (next(path for path in found if part in path.name) for part in ("train", "val"))
        model = fill(hf.SegformerForSemanticSegmentation(hf.SegformerConfig(num_labels=CLASSES, **MIT["b0"])), 3)
        model.save_pretrained(folder / "hf")
        keys = [f"DATASET.root_dataset={folder / 'data'}", f"DATASET.list_train={training}", f"DATASET.list_val={validation}", f"DATASET.num_class={CLASSES}",
                f"DATASET.imgSizes=({SIDE},)", f"DATASET.imgMaxSize={2 * SIDE}", "DATASET.padding_constant=32",
                "DATASET.segm_downsampling_rate=4", "MODEL.arch_encoder=mit_b0", "MODEL.arch_decoder=segformer"]
        worst = trained(segdist, mpirun, folder, keys)

        checkpoint = sorted((folder / "together-1" / "checkpoints").iterdir())[-1]
        print(run(segdist, "convert", checkpoint, folder / "back", "--to", "hf").strip())
        back = hf.SegformerForSemanticSegmentation.from_pretrained(folder / "back").eval()
        processor = hf.AutoImageProcessor.from_pretrained(folder / "back")
        pictures = sorted((folder / "data").rglob("*.png")) + sorted((folder / "data").rglob("*.jpg"))
        equal = []
        for number, path in enumerate([path for path in pictures if "annot" not in str(path) and "label" not in str(path)][:3]):
            picture = Image.open(path).convert("RGB").resize((160, SIDE))
            picture.save(folder / f"picture{number}.png")
            run(segdist, "predict", "--checkpoint", checkpoint, "--out", folder / "labels", folder / f"picture{number}.png", *keys)
            labels = np.array(Image.open(folder / "labels" / f"picture{number}.label.png"))
            with torch.no_grad():
                outputs = back(**processor(picture, return_tensors="pt"))
            [theirs] = processor.post_process_semantic_segmentation(outputs, target_sizes=[(SIDE, 160)])
            equal.append(float((theirs.numpy() == labels).mean()))
        print(f"labels equal on {[f'{100 * part:.3f} %' for part in equal]}; "
              f"id2label {dict(list(back.config.id2label.items())[:3])}, palette {getattr(back.config, 'palette', None)}")
        sys.exit(worst > 1e-4 or min(equal) < 0.999)


if __name__ == "__main__":
    main()
