#!/usr/bin/env bash
# Answers on a machine with a GPU what no machine without one can: whether everything is right there, and how fast.
#
#   tests/gpu/run.sh --cpu                    the same parts at toy sizes on the CPU: does the kit itself work?
#   KIT/run.sh --out DIR                      on the GPU; KIT is a folder that tests/gpu/pack.sh made
#   KIT/run.sh --out DIR --only steps,bench   these parts
#
# Needs an NVIDIA driver, Python with PyTorch 2.11 (PYTHON names another than python3), and nothing else: no network, no
# Rust, no compiler. The most important parts come first, each has its own time limit, all are told in a table at the end
# and in DIR/results.json. In the repository it packs first.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ ! -e "$here/bin/segdist" ]; then
    kit=$here/../../target/gpu-kit
    "$here/pack.sh" "$kit"
    exec "$kit/run.sh" "$@"
fi

python=${PYTHON:-python3}
# Python's PyTorch serves as libtorch, looked for without being loaded; in the repository that of launch/setup.sh does.
torch=$("$python" - <<'PY'
import importlib.metadata, importlib.util
found = importlib.util.find_spec("torch")
print(found.submodule_search_locations[0] if found and importlib.metadata.version("torch").startswith("2.11.") else "")
PY
)
[ -n "$torch" ] || torch=$here/../../.deps/torch
[ -e "$torch/lib/libtorch_cpu.so" ] || { echo "run.sh: $python has no PyTorch; PYTHON=... names one that has 2.11" >&2; exit 2; }

libraries=$torch/lib:$here/lib
for folder in "$torch"/../nvidia/*/lib; do libraries+=:$folder; done
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec "$python" "$here/kit.py" "$@"
