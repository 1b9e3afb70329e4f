"""What the code generators share: the lines of a program, and a place for what is made of them."""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from partial_adaptive.execution.compiled.program import Node, Program
from partial_adaptive.execution.compiled.simplify import simplified


@dataclass(frozen=True)
class Code:
    """A program as assignments x7 = … in some language.

    Args:
        rows: the row of each tensor in the table of addresses.
        scalars: variables with one value per parameter, and their expressions, in order.
        elements: variables with a value per element, and their expressions, in order.
        coefficients: the scalar variables that the elements use, as c0, c1, ….
        new_scalars: 0-dim tensors that change, and the variables that they become.
        new_elements: tensors that change, and the variables that they become.
    """

    rows: Mapping[str, int]
    scalars: Mapping[str, str]
    elements: Mapping[str, str]
    coefficients: list[str]
    new_scalars: Mapping[str, str]
    new_elements: Mapping[str, str]


def generate(
    program: Program,
    operations: Mapping[str, str],
    read: Callable[[str, str | int], str],
    constant: Callable[[float, bool], str],
) -> Code:
    """Write a program.

    Args:
        program: what to write.
        operations: a format string for each operation, with a field for each argument.
        read: writes an input, from its kind ("element", "scalar", "number") and its name (position, for numbers).
        constant: writes a constant among elements (True) or numbers (False).
    """
    numbers = {name: i for i, name in enumerate(program.numbers)}
    program = simplified(program)
    nodes = program.nodes
    variables = {node: f"x{i}" for i, node in enumerate(nodes)}
    crossing = dict.fromkeys(arg for node in nodes if node.elementwise for arg in node.inputs if not arg.elementwise)
    slots = {node: f"c{i}" for i, node in enumerate(crossing)}

    def operand(arg: Node | float, node: Node) -> str:
        if isinstance(arg, int):
            return str(arg)
        if not isinstance(arg, Node):
            return constant(arg, node.elementwise)
        return slots[arg] if node.elementwise and not arg.elementwise else variables[arg]

    def expression(node: Node) -> str:
        if node.op in ("element", "scalar", "number"):
            name = node.args[0]
            return read(node.op, numbers[name] if node.op == "number" else name)
        return operations[node.op].format(*(operand(arg, node) for arg in node.args))

    return Code(
        rows={name: i for i, name in enumerate((*program.elements, *program.scalars))},
        scalars={variables[node]: expression(node) for node in nodes if not node.elementwise},
        elements={variables[node]: expression(node) for node in nodes if node.elementwise},
        coefficients=[variables[node] for node in crossing],
        new_scalars={name: variables[node] for name, node in program.scalars.items() if node.op != "scalar"},
        new_elements={name: variables[node] for name, node in program.elements.items() if node.op != "element"},
    )


def opmath(program: Program, dtypes: Mapping[str, torch.dtype]) -> torch.dtype:
    """The precision of the elements' arithmetic: float64 where a tensor has it, otherwise float32."""
    return torch.float64 if torch.float64 in (dtypes[name] for name in program.elements) else torch.float32


def cache_directory() -> Path:
    """Where compiled kernels are kept: in $TORCH_EXTENSIONS_DIR, as torch's own extensions are.

    Raises:
        RuntimeError: where nothing can be written there.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cache / "torch_extensions", "partial_adaptive")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        writable = os.access(directory, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise RuntimeError(
            f"fused=True keeps compiled kernels in {directory}, which cannot be written; "
            "name another directory in $TORCH_EXTENSIONS_DIR, or use foreach=True"
        )
    return directory


def publish(path: Path, text: str) -> None:
    """Write a file as a whole or not at all, for all who may read the directory."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(text)  # as the umask has it; a file of `tempfile` would be for its owner alone
    temporary.replace(path)
