"""Fused on CUDA: a program as two Triton kernels, one for the numbers of each tensor and one for all elements."""

import hashlib
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.emit import cache_directory, generate, opmath
from partial_adaptive.execution.trace import Program, values

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
    "expm1": "tl.where(tl.abs({0}) < 1e-2, {0} * (1 + {0} / 2 * (1 + {0} / 3 * (1 + {0} / 4))), tl.exp({0}) - 1)",
    "pow": "tl.where({1} == 0, 1.0, tl.exp2({1} * tl.log2({0})))",
    "max": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "min": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
}
_SOURCE = Path(__file__).with_name("kernel.triton.in").read_text()


class Sent:
    """A list of numbers that the device has a copy of, sent anew only when they change, without waiting.

    A CUDA graph reads the host's copy at every replay, so what is sent during a capture stays allocated; and as
    page-locked memory can't be allocated then, some is kept in reserve.

    Args:
        count: how many numbers.
        dtype: of the copy.
        device: that gets the copy.
    """

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device) -> None:
        self.values: Sequence[float] = []
        self.copy = torch.zeros(count, dtype=dtype, device=device)
        self._captured: list[tuple[Tensor, Tensor]] = []
        self._reserve: Tensor | None = self._host()

    def send(self, values: Sequence[float]) -> Tensor:
        """The device's copy of these numbers."""
        if values == self.values:
            return self.copy
        host, self._reserve = self._reserve, None
        if host is None:
            raise RuntimeError("fused=True: before a step is captured a second time it has to be run once uncaptured")
        host.copy_(torch.tensor(values, dtype=host.dtype))
        self.values, self.copy = values, host.to(self.copy.device, non_blocking=True)
        if host.is_pinned() and torch.cuda.is_current_stream_capturing():
            self._captured.append((host, self.copy))
        else:
            self._reserve = self._host()
        return self.copy

    def _host(self) -> Tensor:
        return torch.empty(len(self.copy), dtype=self.copy.dtype, pin_memory=self.copy.is_cuda)


class Table:
    """Where the tensors are, in memory of the device: addresses, and the tensor that each block of elements is of.

    Args:
        rows: the tensors, in the order of the program's elements and scalars.
        elements: how many of the rows are of the parameters' shapes.
        coefficients: how many numbers are prepared for each parameter.
        numbers: how many numbers the program reads.
    """

    def __init__(self, rows: Sequence[Sequence[Tensor]], elements: int, coefficients: int, numbers: int) -> None:
        params = rows[0]
        device = params[0].device
        blocks = [(t, start) for t, param in enumerate(params) for start in range(0, param.numel(), _BLOCK)]
        self.count = len(params)
        self.owners = torch.tensor([t for t, _ in blocks], device=device)
        self.starts = torch.tensor([start for _, start in blocks], device=device)
        self.sizes = torch.tensor([param.numel() for param in params], device=device)
        self.addresses = torch.tensor([tensor.data_ptr() for row in rows for tensor in row], device=device)
        self.aligned = all(tensor.data_ptr() % 16 == 0 for row in rows[:elements] for tensor in row)
        self.coefficients = torch.empty(self.count * coefficients, dtype=torch.float64, device=device)
        self.grads = Sent(self.count, torch.int64, device)
        self.numbers = Sent(numbers, torch.float64, device)


class Kernel:
    """A compiled program.

    Args:
        program: what to compile.
        dtypes: the dtype of each of its tensors, by name.

    Raises:
        RuntimeError: where Triton is not installed.
    """

    def __init__(self, program: Program, dtypes: Mapping[str, torch.dtype]) -> None:
        self.program = program
        self._numbers = program.numbers
        text, self._coefficients = source(program, dtypes)
        self._module = _load(text)

    def table(self, rows: Sequence[Sequence[Tensor]]) -> Table:
        """The table of tensors, given in the order of the program's elements and scalars."""
        return Table(rows, len(self.program.elements), self._coefficients, len(self._numbers))

    def __call__(
        self,
        table: Table,
        grads: list[int],
        group: Mapping[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take one step with the gradients at these addresses, unless one of them was found to be infinite."""
        given = values(self._numbers, group, grad_scale)
        numbers = table.numbers.send([0.0 if isinstance(value, Tensor) else float(value) for value in given])
        for i, value in enumerate(given):
            if isinstance(value, Tensor):
                numbers[i].copy_(value.reshape(()))
        skips = found_inf is not None
        shared = (numbers, table.coefficients, found_inf if skips else numbers)
        with torch.cuda.device_of(table.addresses):
            grid = (-(-table.count // _TENSORS),)
            self._module.prepare[grid](table.addresses, *shared, table.count, skips=skips, width=_TENSORS)
            if len(table.owners):
                self._module.update[(len(table.owners),)](
                    table.addresses,
                    table.grads.send(grads),
                    *shared,
                    table.owners,
                    table.starts,
                    table.sizes,
                    table.count,
                    skips=skips,
                    aligned=table.aligned and all(address % 16 == 0 for address in grads),
                    width=_BLOCK,
                )


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
        constant=lambda value, _: repr(value),
    )
    count = len(code.coefficients)

    def pointer(name: str, table: str = "table", mask: str = "") -> str:
        row = "" if table == "grads" else f"{code.rows[name]} * tensors + "
        return f"{name} = tl.load({table} + {row}t{mask}).to(tl.pointer_type({TYPES[dtypes[name]]}))"

    scalars = [
        *(pointer(name, mask=", mask") for name in program.scalars),
        *(f"{variable} = {value}" for variable, value in code.scalars.items()),
        *(f"tl.store(coefficients + t * {count} + {i}, {x}, mask)" for i, x in enumerate(code.coefficients)),
        *(f"tl.store({name}, {variable}, mask)" for name, variable in code.new_scalars.items()),
    ]
    setup = []
    for name in program.elements:
        setup += [
            pointer(name, "grads" if name == "grad" else "table") + " + start",
            f"if aligned:\n        {name} = tl.multiple_of({name}, 16)",
        ]
    setup += [f"c{i} = tl.load(coefficients + t * {count} + {i}).to(real)" for i in range(count)]
    elements = [
        *(f"{variable} = {value}" for variable, value in code.elements.items()),
        *(f"tl.store({name} + i, {variable}@mask@)" for name, variable in code.new_elements.items()),
    ]
    text = _SOURCE.replace("@real@", TYPES[opmath(program, dtypes)])
    for mark, lines, depth, mask in (
        ("@scalars@", scalars, 4, ""),
        ("@setup@", setup, 4, ""),
        ("@whole@", elements, 8, ""),
        ("@partial@", elements, 8, ", mask=mask"),
    ):
        text = text.replace(mark, "\n".join(" " * depth + line.replace("@mask@", mask) for line in lines))
    return text, count


@cache
def _load(text: str) -> ModuleType:
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError(
            "fused=True on CUDA needs Triton, which comes with torch on Linux: install triton, or use foreach=True"
        )
    name = f"kernel_{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    path = cache_directory() / f"{name}.py"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
