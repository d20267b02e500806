#!/usr/bin/env python3
"""Makes the small .pth files that tests/library/weights.rs reads: one set of tensors in every container, and hostile ones.

    python tests/golden/weights.py      needs PyTorch; writes beside itself, into weights/
"""

import io
import os
import pickle
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent / "weights"
PROTOCOL = 2


def tensors():
    """One tensor of each kind of layout; value i of a tensor is i / 8 minus 1."""
    ramp = lambda *size: (torch.arange(torch.Size(size).numel()) / 8 - 1).reshape(size)
    shared = ramp(12)
    return OrderedDict(
        [
            ("z.weight", ramp(2, 3, 1, 1)),
            ("a.transposed", ramp(3, 2).t()),
            ("a.offset", shared[4:8].reshape(2, 2)),
            ("a.shared", shared),
            ("half", ramp(4).half()),
            ("bfloat16", ramp(4).bfloat16()),
            ("double", ramp(4).double()),
            ("bn.num_batches_tracked", torch.tensor(7)),
            ("scalar", torch.tensor(0.5)),
            ("empty", torch.zeros(0, 3)),
        ]
    )


def save(name, what, zipped):
    torch.save(what, HERE / name, _use_new_zipfile_serialization=zipped)


class OsSystem:
    """Unpickling it with Python would run a command that leaves a trace."""

    def __reduce__(self):
        return os.system, ("touch segdist-was-here",)


def save_tar(path, named):
    """The container from before PyTorch 0.1.10, which no current PyTorch writes but all read."""
    dump = lambda out, what: pickle.dump(what, out, protocol=PROTOCOL)
    storages, described, names = io.BytesIO(), io.BytesIO(), io.BytesIO()
    dump(storages, len(named))
    dump(described, len(named))
    for key, tensor in enumerate(named.values()):
        values = tensor.contiguous()
        dump(storages, (key, "cpu", torch.FloatStorage))
        storages.write(struct.pack("<q", values.numel()) + values.numpy().tobytes())
        dump(described, (100 + key, key, torch.FloatTensor))
        described.write(struct.pack("<ii", values.dim(), 0))
        described.write(struct.pack(f"<{2 * values.dim() + 1}q", *values.size(), *values.stride(), 0))
    dump(storages, [])

    class Pickler(pickle.Pickler):
        def persistent_id(self, what):
            for key, tensor in enumerate(named.values()):
                if what is tensor:
                    return str(100 + key)

    Pickler(names, protocol=PROTOCOL).dump(named)
    info = io.BytesIO()
    dump(info, {"protocol_version": 1000, "little_endian": True})
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in [("sys_info", info), ("pickle", names), ("tensors", described), ("storages", storages)]:
            member = tarfile.TarInfo(name)
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))


def main():
    HERE.mkdir(exist_ok=True)
    named = tensors()
    for form, zipped in [("zip", True), ("stream", False)]:
        save(f"plain.{form}.pth", named, zipped)
        save(f"nested.{form}.pth", {"epoch": 3, "lr": 0.1, "state_dict": named, "optimizer": {"state": {0: torch.ones(2)}}}, zipped)
        save(f"parameter.{form}.pth", {"weight": torch.nn.Parameter(torch.ones(2, 2))}, zipped)
        save(f"hostile.{form}.pth", {"weight": torch.ones(2), "evil": OsSystem()}, zipped)
    floats = OrderedDict((name, tensor) for name, tensor in named.items() if tensor.dtype == torch.float32 and tensor.dim() > 0 and tensor.numel() > 0)
    save_tar(HERE / "plain.tar.pth", floats)
    torch.load(HERE / "plain.tar.pth", weights_only=False)["z.weight"]
    (HERE / "hostile.pickle.pth").write_bytes(pickle.dumps(OsSystem(), protocol=4))
    (HERE / "hostile.text.pth").write_bytes(b"cos\nsystem\n(S'touch segdist-was-here'\ntR.")


if __name__ == "__main__":
    main()
