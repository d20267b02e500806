"""The parts that tests/gpu/run.sh runs, the most important first, with the table and results.json at the end."""
import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

KIT = Path(__file__).resolve().parent
SEGDIST = str(KIT / "bin" / "segdist")


class Failed(Exception):
    """A part that found something wrong."""


class Skipped(Exception):
    """A part that cannot be run here."""


class Bench:
    """One run of the kit: where it computes, how large, and what it may still take."""

    def __init__(self, cpu, folder):
        self.cpu, self.folder, self.end = cpu, folder, 0.0
        self.device = "cpu" if cpu else "cuda"

    def command(self, words, code=0, env=None):
        """Runs a program within the part's time; its output, once it has ended with this code (None: any but 0)."""
        left = self.end - time.monotonic()
        environment = os.environ | {"RUST_BACKTRACE": "0", "SEGDIST_KIT_DEVICE": self.device} | (env or {})
        if self.cpu:
            environment.setdefault("OMP_NUM_THREADS", "1")
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        try:
            out, err = process.communicate(timeout=max(left, 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            out, err = process.communicate()
            raise Failed(f"out of time: {' '.join(words[-3:])}: {last_line(err)}") from None
        wrong = process.returncode == 0 if code is None else process.returncode != code
        if wrong:
            raise Failed(f"exit code {process.returncode}: {last_line(err) or last_line(out)}")
        return out, err

    def segdist(self, *words, ranks=1, env=None, code=0, mpirun=()):
        launcher = [] if ranks == 1 else mpi(ranks, *mpirun)
        return self.command([*launcher, SEGDIST, *map(str, words)], code, env)

    def train(self, name, *more, device=None, ranks=1, steps=3, **how):
        """A short training on the packed images; its folder."""
        run = self.folder / name
        keys = {
            "DATASET.list_train": KIT / "shards" / "training", "DATASET.list_val": KIT / "shards" / "validation",
            "DATASET.num_class": 5, "DATASET.imgSizes": "(48,)", "DATASET.imgMaxSize": 64,
            "DATASET.segm_downsampling_rate": 8, "MODEL.arch_encoder": "resnet18dilated",
            "MODEL.arch_decoder": "ppm_deepsup", "MODEL.init": "random", "TRAIN.num_epoch": 1,
            "TRAIN.epoch_iters": steps, "TRAIN.disp_iter": 1, "TRAIN.workers": 1, "TRAIN.lr_encoder": 1e-3,
            "TRAIN.lr_decoder": 1e-3, "TRAIN.batch_size_per_gpu": 4 // ranks, "DIST.share_gpu": True,
            "DIST.device": device or self.device, "DIR": run,
        }
        # TF32 rounds to ten bits; comparisons want all of f32.
        how["env"] = {"NVIDIA_TF32_OVERRIDE": "0"} | (how.get("env") or {})
        self.segdist(*(f"{key}={value}" for key, value in keys.items()), *more, ranks=ranks, **how)
        return run


def mpi(ranks, *more):
    return [str(KIT / "bin" / "mpirun"), "-np", str(ranks), "--oversubscribe", "--bind-to", "none", *more]


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("segdist: ") or "panicked" in line or "is off by" in line]
    return (own or lines or [""])[-1]


def events(run, event):
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def losses(run):
    return [line["loss"] for line in events(run, "train")]


def tensors(path):
    """The f32 tensors of a safetensors file: its header is JSON behind eight bytes of its length."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            found[name] = array("f", data[8 + length + start : 8 + length + end])
    return found


def parameters(run, step):
    return tensors(run / "checkpoints" / f"step-{step:08}" / "model.safetensors")


def difference(ours, theirs):
    """The largest difference of two runs' tensors, each as a share of the tensor's largest value."""
    worst = 0.0
    for name, values in ours.items():
        largest = max(map(abs, theirs[name]), default=0.0)
        error = max((abs(a - b) for a, b in zip(values, theirs[name])), default=0.0)
        worst = max(worst, error / max(largest, 0.01))
    return worst


def require(holds, text):
    if not holds:
        raise Failed(text)


def close(ours, theirs, tolerance, what):
    require(len(ours) == len(theirs), f"{what}: {len(ours)} values for {len(theirs)}")
    worst = max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(ours, theirs))
    require(worst <= tolerance, f"{what}: off by {worst:.1e}, allowed are {tolerance:.0e}")
    return worst


# The parts. Each gives figures for the table, or raises.


def load(bench):
    """The program starts on this machine's libtorch and finds the device."""
    out, _ = bench.segdist("doctor", "--json", code=0)
    found = json.loads(out)
    text = json.dumps(found)
    torch = os.environ["LD_LIBRARY_PATH"].split(":")[0]
    require(torch in text, f"libtorch is not the one in {torch}")
    if not bench.cpu:
        require('"gpus": 0' not in text, "libtorch sees no GPU")
    return {"libtorch": torch}


def batch_norm(bench):
    """Synchronized batch norm of two processes against the formula: 3 types, 2 memory orders, 2 divisors, 6 shapes."""
    words = [str(KIT / "bin" / "gpu-tests"), "batch_norm::", "--test-threads", "1", "--nocapture"]
    bench.command([*mpi(2), *words])
    bench.command(words)
    return {"cases": 72}


def ranks(bench):
    """Two processes that share the device train what one trains."""
    fixed = "TRAIN.fix_bn=True"
    one, two = (bench.train(f"ranks{n}", fixed, ranks=n, steps=5) for n in (1, 2))
    loss = close(losses(two), losses(one), 1e-5 if bench.cpu else 1e-4, "losses, fixed statistics")
    worst = difference(parameters(two, 5), parameters(one, 5))
    require(worst < 1e-4, f"parameters are off by {worst:.1e}")
    one, two = (bench.train(f"ranks-bn{n}", ranks=n, steps=2) for n in (1, 2))
    close(losses(two)[:1], losses(one)[:1], 1e-5 if bench.cpu else 1e-4, "first loss, batch statistics")
    return {"losses": loss, "parameters": worst}


def optimizers(bench):
    """Twenty steps of SGD and AdamW, clipped, in two micro-batches, on the device and on the CPU."""
    figures, steps = {}, 4 if bench.cpu else 20
    for optim, rate in (("SGD", 1e-3), ("AdamW", 1e-5)):
        more = ["TRAIN.fix_bn=True", f"TRAIN.optim={optim}", "TRAIN.clip_norm=1", "TRAIN.batch_size_per_gpu=2"]
        more += ["TRAIN.global_batch=4", f"TRAIN.lr_encoder={rate}", f"TRAIN.lr_decoder={rate}"]
        # The CPU has itself to compare with, in another memory order.
        order = f"TRAIN.channels_last={bench.cpu}"
        here = bench.train(f"{optim}-here", *more, order, steps=steps)
        cpu = bench.train(f"{optim}-cpu", *more, device="cpu", steps=steps)
        figures[optim] = close(losses(here), losses(cpu), 1e-4, f"{optim}: losses")
        worst = difference(parameters(here, steps), parameters(cpu, steps))
        # AdamW divides by the size of a gradient: where that is near 0, rounding decides the sign of a whole step.
        allowed = 1e-3 if optim == "SGD" else 1e-2
        require(worst < allowed, f"{optim}: parameters are off by {worst:.1e}")
    return figures


# Of the reference: two images of 600 × 800, SGD. Of transformers: two of 512 × 512, AdamW.
OF_TRANSFORMERS = {"mit_b0-segformer": 0.1, "convnext_tiny-uperhead": 0.4}


def workloads(bench):
    """Network, images, mixed precision and memory order of every line of `speed`."""
    if bench.cpu:
        return [("resnet18dilated-ppm_deepsup", 2, None, False), ("mit_b0-segformer", 2, None, False)]
    big = [("resnet50dilated-ppm_deepsup", n, amp, last) for n, amp, last in ((2, None, False), (8, "bf16", True))]
    today = [(arch, 2, amp, last) for arch in OF_TRANSFORMERS for amp, last in ((None, False), ("bf16", True))]
    return [*big, *today, ("resnet18dilated-ppm_deepsup", 2, None, False)]


def step_keys(bench, arch, batch, amp, channels_last, spec):
    """What `bench step` is told of a workload."""
    encoder, decoder = arch.split("-")
    keys = [f"MODEL.arch_encoder={encoder}", f"MODEL.arch_decoder={decoder}", "MODEL.init=random"]
    keys += [f"DATASET.imgSizes=({spec['height']},)", f"DATASET.imgMaxSize={spec['width']}", "DATASET.num_class=150"]
    keys += [f"TRAIN.batch_size_per_gpu={batch}", f"TRAIN.channels_last={channels_last}", f"DIST.device={bench.device}"]
    keys += [f"TRAIN.amp={amp}"] if amp else []
    if arch in OF_TRANSFORMERS:
        keys += ["DATASET.segm_downsampling_rate=4", "DATASET.padding_constant=32", "TRAIN.optim=AdamW", "TRAIN.lr_encoder=6e-5"]
        keys += ["TRAIN.lr_decoder=6e-5", f"MODEL.drop_path={OF_TRANSFORMERS[arch]}"]
    return keys


def speed(bench):
    """A training step beside the same one in PyTorch, one after the other, medians."""
    rows = {}
    for arch, batch, amp, channels_last in workloads(bench):
        height, width = (64, 64) if bench.cpu else (512, 512) if arch in OF_TRANSFORMERS else (600, 800)
        spec = {"height": height, "width": width, "device": bench.device, "steps": 3 if bench.cpu else 10}
        keys = step_keys(bench, arch, batch, amp, channels_last, spec)
        peer = spec | {"arch": arch, "batch": batch, "amp": amp, "channels_last": channels_last}
        ours, theirs = [], []
        for _ in range(2):
            out, _ = bench.segdist("bench", "step", "--json", *keys)
            ours.append(json.loads(out.strip().splitlines()[-1]))
            try:
                out, _ = bench.command([sys.executable, str(KIT / "peer.py"), json.dumps(peer)])
                theirs.append(json.loads(out.strip().splitlines()[-1]))
            except Failed as failure:
                raise Skipped(f"the peer does not run: {failure}") if bench.cpu else failure from None
        config, _ = bench.segdist("config", *keys)
        count = next(line.split(":")[1] for line in config.splitlines() if "parameters:" in line)
        require(int(count.split("#")[0].replace(",", "")) == theirs[0]["parameters"], f"{arch}: other parameters")
        middle = lambda rows, key: statistics.median(row[key] for row in rows)
        row = {"ours_s": middle(ours, "median_s"), "peer_s": middle(theirs, "median_s")}
        row["ratio"] = row["peer_s"] / row["ours_s"]
        if not bench.cpu:
            row |= {"ours_mb": middle(ours, "peak_device_mb"), "peer_mb": middle(theirs, "peak_device_mb")}
        rows[f"{arch} x{batch} {amp or 'f32'}{' channels-last' if channels_last else ''}"] = row
    return rows


def networks(bench):
    """Every encoder and decoder: scores and gradients against the CPU, and an empty batch."""
    bench.command([str(KIT / "bin" / "gpu-tests"), "networks::", "--test-threads", "1"], env={"NVIDIA_TF32_OVERRIDE": "0"})
    return {}


def calls(bench):
    """Synchronisations, copies and kernel launches of a step in the steady state, by a library that counts them."""
    if bench.cpu:
        raise Skipped("needs a GPU")
    counts = {}
    for steps in (10, 30):
        path = bench.folder / f"calls-{steps}"
        more = ["TRAIN.disp_iter=100", "TRAIN.fix_bn=False"]
        env = {"LD_PRELOAD": str(KIT / "lib" / "libcallcount.so"), "SEGDIST_CALLCOUNT": str(path)}
        bench.train(f"calls{steps}", *more, steps=steps, env=env)
        counts[steps] = {name: int(count) for name, count in (line.split() for line in path.read_text().split("\n") if line)}
    per_step = {name: (counts[30][name] - counts[10][name]) / 20 for name in counts[30]}
    waits = sum(count for name, count in per_step.items() if name.endswith("Synchronize"))
    return per_step | {"waits": waits}


def overflow(bench):
    """fp16 with a loss scale that is far too large: steps are skipped, the scale halves, training goes on."""
    # sixteen bits are slow on a CPU
    steps, scale, ranks = (5, 2**17, 1) if bench.cpu else (8, 2**21, 2)
    more = ["TRAIN.amp=fp16", f"TRAIN.loss_scale={scale}", "MODEL.arch_decoder=c1"]
    run = bench.train("overflow", *more, steps=steps, ranks=ranks)
    skipped = len(events(run, "skipped"))
    require(0 < skipped < steps, f"{skipped} of {steps} steps were skipped")
    require(all(loss == loss and abs(loss) < 1e9 for loss in losses(run)), "a loss is not finite")
    return {"skipped": skipped}


def checkpoints(bench):
    """Three steps here, three on the CPU, three here: what nine steps here are."""
    total = 9
    more = ["TRAIN.fix_bn=True", "CHECKPOINT.every_steps=3"]
    whole = bench.train("whole", *more, steps=total)
    parts = bench.folder / "parts"
    for stop, device in ((3, bench.device), (6, "cpu"), (9, bench.device)):
        bench.train("parts", *more, device=device, steps=total)
        for step in (path for path in (parts / "checkpoints").glob("step-*") if int(path.name[5:]) > stop):
            shutil.rmtree(step)
    worst = difference(parameters(parts, total), parameters(whole, total))
    require(worst < 1e-3, f"parameters are off by {worst:.1e}")
    return {"parameters": worst}


def killed(bench):
    """One of two ranks dies in the middle of a step: the job ends soon, and says which."""
    start = time.monotonic()
    script = 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then export SEGDIST_FAULT=hook:190:panic; fi; exec "$0" "$@"'
    keys = [f"DATASET.list_train={KIT / 'shards' / 'training'}", f"DATASET.list_val={KIT / 'shards' / 'validation'}"]
    keys += ["DATASET.num_class=5", "DATASET.imgSizes=(48,)", "DATASET.imgMaxSize=64", "MODEL.arch_encoder=resnet18dilated"]
    keys += ["MODEL.arch_decoder=ppm_deepsup", "MODEL.init=random", "TRAIN.num_epoch=1", "TRAIN.epoch_iters=50"]
    keys += [f"DIST.device={bench.device}", "DIST.share_gpu=True", f"DIR={bench.folder / 'killed'}"]
    _, err = bench.command([*mpi(2), "sh", "-c", script, SEGDIST, *keys], code=None)
    require("rank 1" in err, f"nobody names rank 1: {last_line(err)}")
    return {"seconds": time.monotonic() - start}


def nccl(bench):
    """Two ranks on one GPU are refused before the first step; one rank sums by NCCL."""
    refusal = "share" if not bench.cpu else "computes on the CPU"
    _, err = bench.segdist(
        "bench", "step", "MODEL.arch_encoder=resnet18dilated", "MODEL.init=random", "DATASET.imgSizes=(48,)",
        "DATASET.imgMaxSize=64", "DIST.transport=nccl", "DIST.share_gpu=True", f"DIST.device={bench.device}", ranks=2, code=2,
    )
    require(refusal in err, last_line(err))
    if bench.cpu:
        raise Skipped("refused as it should be; the rest needs a GPU")
    bench.train("nccl1", "DIST.transport=nccl", steps=3)
    return {}


def evaluation(bench):
    """Evaluation and prediction on the device and on the CPU."""
    run = bench.train("eval", steps=2)
    scores, maps = [], []
    # The CPU has itself to compare with, on two ranks.
    for name, device, ranks in (("here", bench.device, 2 if bench.cpu else 1), ("cpu", "cpu", 1)):
        keys = [f"DATASET.list_val={KIT / 'shards' / 'validation'}", "DATASET.num_class=5", "DATASET.imgSizes=(48,)"]
        keys += ["DATASET.imgMaxSize=64", "MODEL.arch_encoder=resnet18dilated", "MODEL.arch_decoder=ppm_deepsup"]
        keys += [f"DIR={run}", f"DIST.device={device}"]
        env = {"NVIDIA_TF32_OVERRIDE": "0"}
        out, _ = bench.segdist("eval", "--checkpoint", "latest", "--json", *keys, env=env, ranks=ranks)
        scores.append(json.loads(out.strip().splitlines()[-1]))
        target = bench.folder / f"predict-{name}"
        bench.segdist("predict", "--checkpoint", "latest", "--out", target, KIT / "images", *keys, env=env, ranks=ranks)
        maps.append(sorted(target.glob("*.label.png")))
    accuracy = [score["pixel_accuracy"] for score in scores]
    require(abs(accuracy[0] - accuracy[1]) < 2e-3, f"pixel accuracies differ: {accuracy}")
    require(len(maps[0]) == len(maps[1]) == 4, "four images were to be predicted")
    same = sum(a.read_bytes() == b.read_bytes() for a, b in zip(*maps))
    return {"pixel_accuracy": accuracy, "same_predictions": same}


def memory(bench):
    """Too large a batch ends in one line that says how much was missing and what to make smaller."""
    if bench.cpu:
        raise Skipped("would take the host's memory before it asks for too much")
    keys = ["MODEL.arch_encoder=resnet101dilated", "MODEL.init=random", "TRAIN.batch_size_per_gpu=256"]
    _, err = bench.segdist("bench", "step", *keys, f"DIST.device={bench.device}", code=2)
    require("too little memory" in err and "batch_size_per_gpu" in err, f"the message does not help: {last_line(err)}")
    return {"message": last_line(err)}


def sanitizer(bench):
    """No access outside of memory in one small step, by compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if bench.cpu or not tool:
        raise Skipped("needs a GPU and compute-sanitizer")
    out, _ = bench.command([tool, "--tool", "memcheck", str(KIT / "bin" / "gpu-tests"), "batch_norm::", "--test-threads", "1"])
    require("ERROR SUMMARY: 0 errors" in out, last_line(out))
    return {}


# Name, what it is, and the seconds it may take on a GPU.
PARTS = [
    (load, 30), (batch_norm, 60), (ranks, 60), (optimizers, 60), (speed, 300), (calls, 40), (networks, 60), (nccl, 30),
    (overflow, 30), (checkpoints, 40), (evaluation, 40), (killed, 30), (memory, 30), (sanitizer, 60),
]
# Two slow cores that others use as well.
PATIENCE_ON_CPU = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="toy sizes, on the CPU")
    parser.add_argument("--out", type=Path, help="folder for results.json; by default a new one")
    parser.add_argument("--only", help="names of parts, with commas between them")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="segdist-gpu-"))
    out.mkdir(parents=True, exist_ok=True)
    wanted = options.only.split(",") if options.only else [part.__name__ for part, _ in PARTS]
    results = []
    for part, limit in PARTS:
        if part.__name__ not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="segdist-gpu-") as folder:
            bench = Bench(options.cpu, Path(folder))
            start = time.monotonic()
            bench.end = start + limit * (PATIENCE_ON_CPU if options.cpu else 1)
            row = {"part": part.__name__, "what": part.__doc__}
            try:
                row |= {"result": "passed", "figures": part(bench)}
            except Skipped as reason:
                row |= {"result": "skipped", "why": str(reason)}
            except Exception as failure:  # one part's failure is no reason to leave out the next
                row |= {"result": "FAILED", "why": f"{failure}" if isinstance(failure, Failed) else repr(failure)}
        row["seconds"] = round(time.monotonic() - start, 1)
        results.append(row)
        print(f"[gpu {row['seconds']:6.1f} s] {row['result']:7} {row['part']}: {row.get('why') or row['what']}", flush=True)
        (out / "results.json").write_text(json.dumps({"device": bench.device, "parts": results}, indent=1))
    for row in results:
        for name, value in row.get("figures", {}).items():
            print(f"  {row['part']:12} {name}: {value}")
    counts = {kind: sum(row["result"] == kind for row in results) for kind in ("passed", "skipped", "FAILED")}
    print(f"gpu kit on {bench.device}: {counts['passed']} passed, {counts['skipped']} skipped, {counts['FAILED']} failed; {out / 'results.json'}")
    sys.exit(1 if counts["FAILED"] else 0)


main()
