"""Fused on CUDA: a program as two Triton kernels, one for the numbers of each tensor and one for all elements."""

import hashlib
import importlib.util
import math
from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.compiled.codegen import cache_directory, generate, opmath, publish
from partial_adaptive.execution.compiled.program import Program
from partial_adaptive.execution.sharing import addresses_of
from partial_adaptive.execution.staging import is_capturing

TYPES = {
    torch.float32: "tl.float32",
    torch.float64: "tl.float64",
    torch.bfloat16: "tl.bfloat16",
    torch.float16: "tl.float16",
}

_BLOCK = 1024  # elements a program of the second kernel updates
_TENSORS = 128  # tensors a program of the first kernel prepares
_OPERATIONS = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "neg": "-{}",
    "abs": "tl.abs({})",
    "sign": "({0} > 0).to({0}.dtype) - ({0} < 0).to({0}.dtype)",
    "sqrt": "tl.sqrt({})",
    "exp": "tl.exp({})",
    "log": "tl.log({})",
    "exp2": "tl.exp2({})",
    "log2": "tl.log2({})",
    "floor": "tl.floor({})",
    "ceil": "tl.ceil({})",
    **{
        name: f"tl.where({{}} {sign} {{}}, 1.0, 0.0)"
        for name, sign in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!="))
    },
    "where": "tl.where({0} != 0, {1}, {2})",
    "copy": "{}",
    "expm1": "tl.where(tl.abs({0}) < 1e-2, {0} * (1 + {0} / 2 * (1 + {0} / 3 * (1 + {0} / 4))), tl.exp({0}) - 1)",
    "pow": "tl.where({1} == 0, 1.0, tl.exp2({1} * tl.log2({0})))",
    "power": "tl.where({1} == 0, 1.0, tl.exp2({1} * tl.log2({0})))",
    "over_power": "{0} * tl.where({2} == 0, 1.0, tl.exp2(-0.5 * {2} * tl.log2({1})))"
    " * tl.where({2} == 0, 1.0, tl.exp2(-0.5 * {2} * tl.log2({1})))",
    "max": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "min": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "nearest": "{}.to(stored).to(real)",
    "stochastic": "stochastic({}, {}, start + i, {}, {}, stored).to(real)",
}
_SOURCE = Path(__file__).with_name("kernel.triton.in").read_text()


class Mail:
    """Lists of numbers on their way to the device, none of which waits.

    A CUDA graph reads the host's copy at every replay, so what is sent while one is captured stays allocated, on both
    sides, and is written to by nobody else. As page-locked memory cannot always be allocated then, some is laid up.

    Args:
        count: how many numbers.
        dtype: of the copy.
        device: that gets the copy.
        captured: keeps what is sent during a capture.
        spare: how many lists are laid up; so many captures may follow each other without a step in between.
    """

    def __init__(
        self, count: int, dtype: torch.dtype, device: torch.device, captured: list[Any], *, spare: int = 4
    ) -> None:
        self._device, self._dtype, self._count = device, dtype, count
        self._spares = spare if device.type == "cuda" else 0
        self._captured = captured
        self._spare: list[Tensor] = []
        self._sent: Sequence[float] | None = None
        self._copy: Tensor | None = None

    def send(self, values: Sequence[float], *, capturing: bool) -> Tensor:
        """The device's copy of these numbers; during a capture a new one, which belongs to the graph."""
        if capturing:
            host = self._spare.pop() if self._spare else self._host()
            copy = self._post(host, values)
            self._captured += [host, copy]
            return copy
        while len(self._spare) < self._spares:
            self._spare.append(self._host())
        if self._copy is None or values != self._sent:
            self._copy, self._sent = self._post(self._host(), values), list(values)
        return self._copy

    def _post(self, host: Tensor, values: Sequence[float]) -> Tensor:
        host.copy_(torch.tensor(values, dtype=self._dtype, device="cpu"))
        return host.to(self._device, non_blocking=True)

    def _host(self) -> Tensor:
        pinned = self._device.type == "cuda"
        try:
            return torch.empty(self._count, dtype=self._dtype, device="cpu", pin_memory=pinned)
        except RuntimeError as error:
            if not is_capturing(self._device):
                raise
            raise RuntimeError(
                f"fused=True: no page-locked memory can be had while a CUDA graph is captured, and what {self._spares} "
                "captures need has been used; take a step of these parameters outside of a capture first"
            ) from error


class Table:
    """How the elements are divided among the programs of a launch, and the way to tell them where the tensors are.

    Args:
        sizes: how many elements each parameter has.
        device: where they are.
        rows: how many tensors a parameter has.
        coefficients: how many numbers are prepared for each parameter.
        numbers: how many numbers the program reads.
        captured: keeps what CUDA graphs use.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        device: torch.device,
        rows: int,
        coefficients: int,
        numbers: int,
        captured: list[Any],
    ) -> None:
        blocks = [(t, start) for t, size in enumerate(sizes) for start in range(0, size, _BLOCK)]
        self.device = device
        self.count = len(sizes)
        self.blocks = len(blocks)
        capturing = is_capturing(device)
        self.owners, self.starts, self.sizes = (
            Mail(len(values), torch.int64, device, captured, spare=0).send(values, capturing=capturing)
            for values in ([t for t, _ in blocks], [start for _, start in blocks], list(sizes))
        )
        self.coefficients = self.room(coefficients)
        self.addresses = Mail(rows * self.count, torch.int64, device, captured)
        self.numbers = Mail(numbers, torch.float64, device, captured)
        self.captured = captured

    def room(self, coefficients: int) -> Tensor:
        """Memory for the numbers of each parameter."""
        return torch.empty(self.count * coefficients, dtype=torch.float64, device=self.device)


class Kernel:
    """A compiled program.

    Args:
        program: what to compile.
        dtypes: the dtype of each of its tensors, by name.

    Raises:
        RuntimeError: where Triton is not installed.
    """

    masks = True  # whether it reads `found_inf` itself

    def __init__(self, program: Program, dtypes: Mapping[str, torch.dtype]) -> None:
        self.program = program
        self.numbers = program.numbers
        text, self._coefficients = source(program, dtypes)
        self._module = load(text)

    def table(self, sizes: Sequence[int], device: torch.device, captured: list[Any]) -> Table:
        """What a launch keeps on the device. Made before a capture or in it; a graph keeps it either way."""
        rows = len(self.program.elements) + len(self.program.scalars)
        return Table(sizes, device, rows, self._coefficients, len(self.numbers), captured)

    def __call__(
        self,
        table: Table,
        addresses: Sequence[int],
        numbers: Sequence[Any],
        found_inf: Tensor | None,
    ) -> None:
        """Take one step.

        Args:
            table: what `table` gave.
            addresses: those of the program's elements and scalars, one after the other.
            numbers: the values of the program's numbers; tensors are read on the device.
            found_inf: not 0 where the step is to be skipped; None where it never is.
        """
        with torch.cuda.device_of(table.sizes):
            capturing = is_capturing(table.device)
            coefficients = table.coefficients
            if capturing:
                coefficients = table.room(self._coefficients)
                table.captured += [table, coefficients]
            plain = [0.0 if isinstance(value, Tensor) else float(value) for value in numbers]
            given = table.numbers.send(plain, capturing=capturing)
            for i, value in enumerate(numbers):
                if isinstance(value, Tensor):
                    given[i].copy_(value.reshape(()))
            skips = found_inf is not None
            shared = (given, coefficients, found_inf.to(table.device) if found_inf is not None else given)
            places = table.addresses.send(list(addresses), capturing=capturing)
            elements = len(self.program.elements) * table.count
            aligned = all(address % 16 == 0 for address in addresses[:elements])
            grid = (-(-table.count // _TENSORS),)
            self._module.prepare[grid](places, *shared, table.count, skips=skips, width=_TENSORS)
            if table.blocks:
                self._module.update[(table.blocks,)](
                    places,
                    *shared,
                    table.owners,
                    table.starts,
                    table.sizes,
                    table.count,
                    skips=skips,
                    aligned=aligned,
                    width=_BLOCK,
                )


def locate(tensors: list[Tensor]) -> "array[int]":
    """Where strided tensors begin."""
    return addresses_of(tensors)


def source(program: Program, dtypes: Mapping[str, torch.dtype]) -> tuple[str, int]:
    """The Triton module of a program, and how many coefficients each parameter has in it."""
    read = {
        "element": "tl.load({} + i@mask@).to(real)",
        "scalar": "tl.load({}, mask).to(tl.float64)",
        "number": "tl.load(numbers + {})",
    }
    code = generate(
        program,
        _OPERATIONS,
        read=lambda kind, name: read[kind].format(name),
        constant=lambda value, _: repr(value) if math.isfinite(value) else f'float("{value}")',
    )
    count = len(code.coefficients)

    def pointer(name: str, mask: str = "") -> str:
        row = f"{code.rows[name]} * tensors + t"
        return f"{name} = tl.load(table + {row}{mask}).to(tl.pointer_type({TYPES[dtypes[name]]}))"

    scalars = [
        *(pointer(name, mask=", mask") for name in program.scalars),
        *(f"{variable} = {value}" for variable, value in code.scalars.items()),
        *(f"tl.store(coefficients + t * {count} + {i}, {x}, mask)" for i, x in enumerate(code.coefficients)),
        *(f"tl.store({name}, {variable}, mask)" for name, variable in code.new_scalars.items()),
    ]
    setup = []
    for name in program.elements:
        setup += [
            pointer(name) + " + start",
            f"if aligned:\n        {name} = tl.multiple_of({name}, 16)",
        ]
    setup += [f"c{i} = tl.load(coefficients + t * {count} + {i}).to(real)" for i in range(count)]
    elements = [
        *(f"{variable} = {value}" for variable, value in code.elements.items()),
        *(f"tl.store({name} + i, {variable}@mask@)" for name, variable in code.new_elements.items()),
    ]
    text = _SOURCE.replace("@real@", TYPES[opmath(program, dtypes)]).replace("@stored@", TYPES[dtypes["param"]])
    for mark, lines, depth, mask in (
        ("@scalars@", scalars, 4, ""),
        ("@setup@", setup, 4, ""),
        ("@whole@", elements, 8, ""),
        ("@partial@", elements, 8, ", mask=mask"),
    ):
        text = text.replace(mark, "\n".join(" " * depth + line.replace("@mask@", mask) for line in lines))
    return text, count


@cache
def load(text: str) -> ModuleType:
    """The module of a Triton source, from a file, as Triton reads its kernels from one."""
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError(
            "fused=True on CUDA needs Triton, which comes with torch on Linux: install triton, or use foreach=True"
        )
    name = f"kernel_{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    path = cache_directory() / f"{name}.py"
    if not path.exists():
        publish(path, text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
