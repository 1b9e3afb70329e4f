"""Compile Triton kernels for a GPU of compute capability 9.0, without one."""

import inspect
from itertools import repeat

import torch
import triton  # type: ignore[import-untyped]  # triton has no types
from torch.nn import Parameter
from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped]  # triton has no types
from triton.compiler import ASTSource  # type: ignore[import-untyped]  # triton has no types

from partial_adaptive import create
from partial_adaptive.execution.compiled import triton as backend
from partial_adaptive.execution.compiled.program import trace

POINTERS = {"table": "*i64", "grads": "*i64", "numbers": "*fp64", "coefficients": "*fp64", "found_inf": "*fp32"}
POINTERS |= {"owners": "*i64", "starts": "*i64", "sizes": "*i64", "tensors": "i32"}
MEMBERS = ("padam", "partial_nadam", "partial_adadelta")  # the dearest, one with more 0-dim state, one without momentum
CONSTANTS = {"skips": True, "aligned": True, "width": 1024}


def main() -> None:
    """Compile both kernels of some members that between them use every operation."""
    for name, rounding in [*zip(MEMBERS, repeat("nearest")), *zip(repeat("padam"), ("stochastic", "kahan"))]:
        optimizer = create(name, [Parameter(torch.ones(3))], partial=0.3, weight_decay=0.1)
        optimizer.param_groups[0]["rounding"] = rounding
        group, recipe = optimizer.param_groups[0], optimizer.recipe
        table = recipe.table
        program = trace(recipe.rule(group, scaled=True), group, table, scaled=True)
        dtypes = dict.fromkeys((*program.elements, *program.scalars), torch.float32)
        if rounding != "nearest":
            dtypes |= {key: torch.bfloat16 for key in ("param", "grad", "compensation") if key in dtypes}
        module = backend.load(backend.source(program, dtypes)[0])
        for kernel in (module.prepare, module.update):
            names = inspect.signature(kernel.fn).parameters
            constants = {key: value for key, value in CONSTANTS.items() if key in names}
            signature = {key: POINTERS.get(key, "constexpr") for key in names}
            source = ASTSource(kernel, signature, constants)
            ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
            if kernel is module.update and rounding == "nearest":
                wide = sum(ptx.count(f"{access}.global.v4") for access in ("ld", "st"))
                tensors = len(program.elements) + sum(node.op != "element" for node in program.elements.values())
                assert wide >= tensors, f"{name}: {wide} 128-bit accesses for {tensors} tensors"


if __name__ == "__main__":
    main()
