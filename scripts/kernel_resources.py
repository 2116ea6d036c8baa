"""Compile the Triton kernel for A100 and H100/H200 and print its registers, spills and shared memory.  No GPU needed.

    PYTHONPATH=lib python scripts/kernel_resources.py

Prints a JSON list, one entry per architecture, type of the logits and variant.  Needs triton, not TRITON_INTERPRET.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from zerosearch.kernels import triton_tiles

CAPABILITIES, TYPES = (80, 90), ("bf16", "fp16", "fp32")
PARTS = ("IS_POLICY", "HAS_OLD", "HAS_SAMPLER", "HAS_REF", "HAS_SOFTCAP", "HAS_BONUS", "CORRECT")
VARIANTS = {  # name -> (with gradient, parts that are on)
    "scores": (False, ()),
    "cross entropy": (True, ()),
    "policy": (True, ("IS_POLICY", "HAS_OLD", "HAS_REF")),
    "everything": (True, PARTS),
}
POINTERS = {"logits_ptr": None, "targets_ptr": "i64"}  # the others point to float32
INTEGERS = ("n_rows", "n_cols", "row_stride")  # the last two are multiples of 16 for all real vocabularies


def main() -> None:
    """Print the resources of every variant."""
    rows = [
        resources(capability, dtype, name) for capability in CAPABILITIES for dtype in TYPES for name in VARIANTS
    ]
    print(json.dumps(rows, indent=1))


def resources(capability: int, dtype: str, variant: str) -> dict[str, Any]:
    """Return what one variant takes on one architecture."""
    with_gradient, parts = VARIANTS[variant]
    constants = {"WITH_GRADIENT": with_gradient, "BLOCK": triton_tiles.BLOCK} | {p: p in parts for p in PARTS}
    kernel = triton_tiles.sweep_kernel
    signature = {name: "constexpr" if name in constants else _type(name, dtype) for name in kernel.arg_names}
    aligned = [i for i, name in enumerate(kernel.arg_names) if name.endswith("_ptr") or name in INTEGERS[1:]]
    source = ASTSource(kernel, signature, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options=triton_tiles.OPTIONS)
    usage = _usage(compiled.asm["cubin"])
    return {
        "capability": capability, "dtype": dtype, "variant": variant, "registers": usage["REG"],
        "spill_bytes": usage["STACK"] + usage["LOCAL"], "shared_bytes": compiled.metadata.shared,
        "cubin_bytes": len(compiled.asm["cubin"]),
    }


def _type(name: str, dtype: str) -> str:
    if name.endswith("_ptr"):
        return f"*{POINTERS.get(name, 'fp32') or dtype}"
    return "i32" if name in INTEGERS else "fp32"


def _usage(cubin: bytes) -> dict[str, int]:
    """Return what a cubin says of itself: registers per thread, and bytes of stack and local memory (spills)."""
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [str(cuobjdump), "--dump-resource-usage", str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in re.findall(r"(\w+):(\d+)", said)}
    if not {"REG", "STACK", "LOCAL"} <= set(found):
        raise SystemExit(f"expected the resource usage of a kernel from cuobjdump, found: {said[:500]}")
    return found


if __name__ == "__main__":
    main()
