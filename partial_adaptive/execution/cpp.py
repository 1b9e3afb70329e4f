"""Fused on the CPU: a program as one C++ function that updates all tensors of a group in one call."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from partial_adaptive.execution.emit import cache_directory, generate, opmath
from partial_adaptive.execution.trace import Program, values

TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16", torch.float16: "_Float16"}

_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared")
_READ = {"element": "{}[i]", "scalar": "*{}", "number": "numbers[{}]"}
_OPERATIONS = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "neg": "-{}",
    "abs": "rule::fabs({})",
    "sign": "rule::sign({})",
    "sqrt": "rule::sqrt({})",
    "exp": "rule::exp({})",
    "log": "rule::log({})",
    "expm1": "rule::expm1({})",
    "pow": "rule::pow({}, {})",
    "max": "rule::max({}, {})",
    "min": "rule::min({}, {})",
}
_SOURCE = Path(__file__).with_name("kernel.cpp.in").read_text()


class Table(NamedTuple):
    """Sizes of the parameters, and a row of addresses for each tensor of the program."""

    sizes: "ctypes.Array[ctypes.c_int64]"
    addresses: "ctypes.Array[ctypes.c_int64]"


class Kernel:
    """A compiled program.

    Args:
        program: what to compile.
        dtypes: the dtype of each of its tensors, by name.

    Raises:
        RuntimeError: where there is no C++ compiler, or it fails.
    """

    def __init__(self, program: Program, dtypes: Mapping[str, torch.dtype]) -> None:
        self.program = program
        self._numbers = program.numbers
        self._run = _load(source(program, dtypes)).run

    def table(self, rows: Sequence[Sequence[Tensor]]) -> Table:
        """The table of tensors, given in the order of the program's elements and scalars."""
        sizes = [tensor.numel() for tensor in rows[0]]
        addresses = [tensor.data_ptr() for row in rows for tensor in row]
        return Table((ctypes.c_int64 * len(sizes))(*sizes), (ctypes.c_int64 * len(addresses))(*addresses))

    def __call__(
        self,
        table: Table,
        grads: list[int],
        group: Mapping[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take one step with the gradients at these addresses, unless one of them was found to be infinite."""
        if found_inf is not None and found_inf.item():
            return
        count = len(table.sizes)
        table.addresses[count : 2 * count] = grads  # type: ignore[assignment]  # ints are taken, list is invariant
        numbers = [float(value) for value in values(self._numbers, group, grad_scale)]
        self._run(
            ctypes.c_int64(count),
            table.sizes,
            table.addresses,
            (ctypes.c_double * len(numbers))(*numbers),
            torch.get_num_threads(),
        )


def source(program: Program, dtypes: Mapping[str, torch.dtype]) -> str:
    """The C++ of a program."""
    code = generate(
        program,
        _OPERATIONS,
        read=lambda kind, name: _READ[kind].format(name),
        constant=lambda value, elementwise: f"real({value!r})" if elementwise else repr(value),
    )
    count = len(code.coefficients)

    def pointers(names: Iterable[str], qualifier: str = "") -> list[str]:
        return [
            f"{TYPES[dtypes[name]]}* {qualifier}{name} = "
            f"static_cast<{TYPES[dtypes[name]]}*>(table[{code.rows[name]} * tensors + t]);"
            for name in names
        ]

    scalars = [
        *pointers(program.scalars),
        *(f"const double {variable} = {value};" for variable, value in code.scalars.items()),
        *(f"coefficients[t * {count} + {i}] = {variable};" for i, variable in enumerate(code.coefficients)),
        *(f"*{name} = {variable};" for name, variable in code.new_scalars.items()),
    ]
    setup = [
        *pointers(program.elements, "__restrict "),
        *(f"const real c{i} = coefficients[t * {count} + {i}];" for i in range(count)),
    ]
    elements = [
        *(f"const real {variable} = {value};" for variable, value in code.elements.items()),
        *(f"{name}[i] = {variable};" for name, variable in code.new_elements.items()),
    ]
    text = _SOURCE.replace("@real@", TYPES[opmath(program, dtypes)]).replace("@coefficients@", str(count))
    for mark, lines in (("@scalars@", scalars), ("@setup@", setup), ("@elements@", elements)):
        text = text.replace(mark, "\n".join(lines))
    return text


def compiler() -> list[str]:
    """The command of the C++ compiler: $CXX, or the first that is found.

    Raises:
        RuntimeError: where there is none.
    """
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for candidate in candidates:
        command = shlex.split(candidate)
        if shutil.which(command[0]):
            return command
    raise RuntimeError(
        f"fused=True on the CPU needs a C++ compiler, looked for {', '.join(candidates)}: "
        "install one, name it in $CXX, or use foreach=True"
    )


@cache
def _load(text: str) -> ctypes.CDLL:
    command = [*compiler(), *_FLAGS]
    key = hashlib.sha256("\0".join((text, *command, _processor())).encode()).hexdigest()[:32]
    library = cache_directory() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as directory:
            path = Path(directory, "kernel.cpp")
            path.write_text(text)
            built = path.with_suffix(".so")
            result = subprocess.run([*command, path, "-o", built], capture_output=True, text=True, check=False)
            if result.returncode:
                raise RuntimeError(f"fused=True: {shlex.join(command)} failed, use foreach=True\n{result.stderr}")
            built.replace(library)
    return ctypes.CDLL(str(library))


def _processor() -> str:
    """What -march=native depends on, where several machines share one cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
