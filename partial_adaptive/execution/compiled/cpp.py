"""Fused on the CPU: a program as one C++ function that updates all tensors of a group in one call."""

import ctypes
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.compiled.codegen import cache_directory, generate, opmath
from partial_adaptive.execution.compiled.program import Program
from partial_adaptive.execution.sharing import addresses_of

TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16", torch.float16: "_Float16"}

_FLAGS: tuple[str, ...] = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-fPIC",
    "-shared",
)
if platform.machine() in ("x86_64", "AMD64"):
    _FLAGS += ("-mprefer-vector-width=512",)  # the widest there are; some tunings of g++ pick narrower ones
    if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
        _FLAGS += ("-mno-avx512f",)  # as torch does
_PROCESS = os.getpid()
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
    "exp2": "rule::exp2({})",
    "log2": "rule::log2({})",
    "floor": "rule::floor({})",
    "ceil": "rule::ceil({})",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "where": "{0} != 0 ? {1} : {2}",
    "copy": "{}",
    "pow": "rule::pow({}, {})",
    "power": "rule::power({}, {})",
    "over_power": "rule::over_power({}, {}, {})",
    "max": "rule::max({}, {})",
    "min": "rule::min({}, {})",
    "nearest": "rule::nearest<stored>({})",
    "stochastic": "rule::stochastic<stored>({}, {}, i, {}, {}u)",
}
_SOURCE = Path(__file__).with_name("kernel.cpp.in").read_text()
_LOCATE = Path(__file__).with_name("locate.cpp.in").read_text()
_LIST_ITEM = ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p)


class Kernel:
    """A compiled program.

    Args:
        program: what to compile.
        dtypes: the dtype of each of its tensors, by name.

    Raises:
        RuntimeError: where there is no C++ compiler, or it fails.
    """

    masks = False  # whether it reads `found_inf` itself

    def __init__(self, program: Program, dtypes: Mapping[str, torch.dtype]) -> None:
        self.program = program
        self.numbers = program.numbers
        self._run = _load(source(program, dtypes)).run

    def table(self, sizes: Sequence[int], device: torch.device, captured: list[Any]) -> "array[int]":
        """What a launch keeps: the sizes of the parameters."""
        return array("q", sizes)

    def __call__(
        self,
        table: "array[int]",
        addresses: "array[int]",
        numbers: Sequence[Any],
        found_inf: Tensor | None,
    ) -> None:
        """Take one step.

        Args:
            table: what `table` gave.
            addresses: those of the program's elements and scalars, one after the other.
            numbers: the values of the program's numbers.
            found_inf: has been looked at.
        """
        given = array("d", map(float, numbers))
        pointers = (ctypes.c_void_p(buffer.buffer_info()[0]) for buffer in (table, addresses, given))
        # The threads, which torch shares, are not there after a fork; a parallel region would wait for them for ever.
        threads = torch.get_num_threads() if os.getpid() == _PROCESS else 1
        self._run(ctypes.c_int64(len(table)), *pointers, threads)


def locate(tensors: list[Tensor]) -> "array[int]":
    """Where strided tensors begin; ten times as fast as asking each from Python."""
    read = getattr(torch._C._dynamo.guards, "_torchinductor_pyobject_tensor_data_ptr", None)
    if read is None:  # not a public interface
        return addresses_of(tensors)
    places = array("q", bytes(8 * len(tensors)))
    _locator()(tensors, len(tensors), _LIST_ITEM, read, places.buffer_info()[0])
    return places


@cache
def _locator() -> Any:
    function = ctypes.PyDLL(_built(_LOCATE)).locate
    function.argtypes = [ctypes.py_object, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    function.restype = None
    return function


def source(program: Program, dtypes: Mapping[str, torch.dtype]) -> str:
    """The C++ of a program."""
    code = generate(
        program,
        _OPERATIONS,
        read=lambda kind, name: _READ[kind].format(name),
        constant=lambda value, elementwise: f"real({_literal(value)})" if elementwise else _literal(value),
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
    text = text.replace("@stored@", TYPES[dtypes["param"]])
    for mark, lines in (("@scalars@", scalars), ("@setup@", setup), ("@elements@", elements)):
        text = text.replace(mark, "\n".join(lines))
    return text


def _literal(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return '__builtin_nan("")' if math.isnan(value) else f"{'-' if value < 0 else ''}__builtin_inf()"


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
    return ctypes.CDLL(_built(text))


def _built(text: str) -> str:
    """The path of the library that a source is compiled to."""
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
    return str(library)


def _processor() -> str:
    """What -march=native depends on, where several machines share one cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
