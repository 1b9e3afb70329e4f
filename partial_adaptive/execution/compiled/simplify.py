"""The same program with fewer divisions among elements, each of which takes as long as ten multiplications."""

from collections import Counter
from typing import Any

from partial_adaptive.execution.compiled.program import Node, Program


def simplified(program: Program) -> Program:
    """x/c becomes x·(1/c), with 1/c one number per parameter, and x/s^(2p) becomes x·s^(−p)·s^(−p).

    A power of the scale, whose base is not negative and whose exponent is in [0, 1], gets an operation of its own:
    `power`, or `over_power` where it divides.
    """
    uses = Counter(child for node in program.nodes for child in node.inputs)
    uses.update(program.elements.values())
    made: dict[Node, Node] = {}
    for node in program.nodes:
        made[node] = _simplified(node, [made[arg] if isinstance(arg, Node) else arg for arg in node.args], uses)
    return Program(
        {name: made[node] for name, node in program.elements.items()},
        {name: made[node] for name, node in program.scalars.items()},
    )


def _simplified(node: Node, args: list[Any], uses: Counter[Node]) -> Node:
    """One expression, whose arguments are simplified already."""
    if not node.elementwise or node.op == "element":
        return Node(node.op, tuple(args), node.elementwise)
    if node.op == "pow" and _is_of_partial(args[1]):
        return Node("power", tuple(args), elementwise=True)
    if node.op == "div" and isinstance(args[1], Node):
        divisor: Node = args[1]
        if not divisor.elementwise:
            args[1] = Node("div", (1.0, divisor), elementwise=False)
            return Node("mul", tuple(args), elementwise=True)
        if divisor.op == "power" and uses[node.args[1]] == 1:
            return Node("over_power", (args[0], *divisor.args), elementwise=True)
    if node.op == "mul":
        # (n/sᵉ)·c as (n·c)/sᵉ: the last multiplication becomes one operation with the subtraction from the parameter.
        quotient, factor = args
        if _is(quotient, "over_power") and isinstance(factor, Node) and not factor.elementwise:
            scaled = Node("mul", (quotient.args[0], factor), elementwise=True)
            return Node("over_power", (scaled, *quotient.args[1:]), elementwise=True)
    return Node(node.op, tuple(args), elementwise=True)


def _is(value: Any, op: str) -> bool:
    return isinstance(value, Node) and value.op == op


def _is_of_partial(exponent: Any) -> bool:
    """Whether an exponent is made of p alone."""
    if not isinstance(exponent, Node) or exponent.elementwise:
        return False
    if exponent.op == "number":
        return bool(exponent.args[0] == "partial")
    return exponent.op == "mul" and all(not isinstance(arg, Node) or _is_of_partial(arg) for arg in exponent.args)
