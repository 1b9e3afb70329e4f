"""Fused, first half: the arithmetic of one tensor, recorded as expressions that any compiler can be given."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from torch import Tensor

from partial_adaptive.execution.lifted import Lifted
from partial_adaptive.power import is_dyadic
from partial_adaptive.rule import Rule
from partial_adaptive.state import AGE, STEP


@dataclass(frozen=True, eq=False)
class Node:
    """An expression: `op` applied to `args`, or an input where `op` is "element", "scalar" or "number".

    Args:
        op: what is computed.
        args: expressions and constants, or the name of an input.
        elementwise: whether it has a value per element of the parameter, rather than one per parameter.
    """

    op: str
    args: tuple[Any, ...]
    elementwise: bool

    @property
    def inputs(self) -> Iterator["Node"]:
        """The expressions that it is made from."""
        return (arg for arg in self.args if isinstance(arg, Node))


@dataclass(frozen=True)
class Program:
    """A rule as expressions.

    Args:
        elements: the tensors with a value per element and what each becomes; "grad" stays as it is.
        scalars: the 0-dim state tensors and what each becomes.
    """

    elements: Mapping[str, Node]
    scalars: Mapping[str, Node]

    @property
    def nodes(self) -> list[Node]:
        """All expressions, each after those that it is made from."""
        order: dict[Node, None] = {}

        def visit(node: Node) -> None:
            if node not in order:
                for child in node.inputs:
                    visit(child)
                order[node] = None

        for root in (*self.scalars.values(), *self.elements.values()):
            visit(root)
        return list(order)

    @property
    def numbers(self) -> list[str]:
        """Names of the numbers that it reads."""
        return list(dict.fromkeys(node.args[0] for node in self.nodes if node.op == "number"))


class Symbol(Lifted):
    """Stands for a tensor; its methods record what would be computed."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node

    def item(self) -> Any:
        """A symbol for the present value."""
        return Symbol(self.node)

    def __getattr__(self, name: str) -> Callable[..., Self]:
        if not name.startswith("__") and name.removesuffix("_") not in _OPERATIONS:
            raise TypeError(
                f"fused=True can compile elementwise methods only, got Tensor.{name}; it knows "
                f"{', '.join(_OPERATIONS)}. Use foreach=True, which runs any method"
            )
        return super().__getattr__(name)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Self:
        operation = method.removesuffix("_")
        args = tuple(map(_operand, args))
        node = _OPERATIONS[operation](self.node, *args, **{name: _operand(value) for name, value in kwargs.items()})
        if method == operation:
            return type(self)(node)
        self.node = node
        return self


def static(group: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What of a param group a program depends on: all but the values of its numbers."""
    entries = (entry for entry in group.items() if entry[0] not in ("params", "param_names"))
    return tuple((name, "number" if _varies(name, value) else value) for name, value in entries)


def trace(rule: Rule, group: Mapping[str, Any], *, scaled: bool) -> Program:
    """Record one step of a rule.

    Args:
        rule: what to record.
        group: the param group; `static` says what of it matters.
        scaled: whether gradients come multiplied by the factor of a `torch.amp.GradScaler`, the number "grad_scale".
    """
    elements = {name: _input("element", name) for name in ("param", "grad", *rule.buffers)}
    counters = (STEP, AGE) if rule.estimator else (STEP,)
    scalars = {name: _input("scalar", name) for name in (*counters, *rule.momentum.scalars)}
    for name in counters:
        scalars[name].add_(1)
    step, age = scalars[counters[0]].item(), scalars[counters[-1]].item()
    numbers = {name: _input("number", name) if _varies(name, value) else value for name, value in group.items()}
    numbers["betas"] = (_input("number", "beta1"), _input("number", "beta2"))
    hyper = rule.hyper(numbers, step, age)
    grad: Any = elements["grad"] / _input("number", "grad_scale") if scaled else elements["grad"]
    state: Any = elements | scalars
    rule.update(state["param"], grad, hyper, state)
    program = Program({k: v.node for k, v in elements.items()}, {k: v.node for k, v in scalars.items()})
    if program.elements["grad"].op != "element":
        raise TypeError(f"{type(rule.estimator).__name__} changes the gradient in place; it must leave it as it is")
    return program


def is_elementwise(rule: Rule, group: Mapping[str, Any]) -> bool:
    """Whether a rule treats every element for itself, so that tensors may be joined and split at will."""
    try:
        trace(rule, group, scaled=False)
    except Exception:  # whatever a component does that symbols can't follow
        return False
    return True


def values(names: Iterable[str], group: Mapping[str, Any], grad_scale: Any) -> list[Any]:
    """The values of a program's numbers."""
    derived = {"grad_scale": grad_scale}
    if "betas" in group:
        derived["beta1"], derived["beta2"] = group["betas"]
    return [derived[name] if name in derived else group[name] for name in names]


def _input(kind: str, name: str) -> Symbol:
    return Symbol(Node(kind, (name,), elementwise=kind == "element"))


def _varies(name: str, value: Any) -> bool:
    """Whether a hyperparameter is a number that may change without a new program."""
    if name == "betas":
        return True
    if isinstance(value, bool) or not isinstance(value, float | int | Tensor):
        return False
    if name == "partial" and not isinstance(value, Tensor):
        return not is_dyadic(2 * value)
    return name != "weight_decay" or bool(value != 0)


def _operand(value: Any) -> Any:
    if isinstance(value, Symbol):
        return value.node
    if isinstance(value, float | int):
        return float(value)
    raise TypeError(f"fused=True can compile tensors of the state and numbers as operands, got {type(value).__name__}")


def _apply(op: str, *args: Any) -> Any:
    return Node(op, args, elementwise=any(isinstance(arg, Node) and arg.elementwise for arg in args))


def _multiply(a: Any, b: Any) -> Any:
    if a == 1.0 or b == 1.0:
        return b if a == 1.0 else a
    return _apply("mul", a, b)


def _divide(a: Any, b: Any) -> Any:
    return a if b == 1.0 else _apply("div", a, b)


def _add(a: Any, b: Any, alpha: Any = 1.0) -> Any:
    return _apply("add", a, _multiply(alpha, b))


def _subtract(a: Any, b: Any, alpha: Any = 1.0) -> Any:
    return _apply("sub", a, _multiply(alpha, b))


def _clamp(a: Any, min: Any = None, max: Any = None) -> Any:
    a = a if min is None else _apply("max", a, min)
    return a if max is None else _apply("min", a, max)


_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **{op: partial(_apply, op) for op in ("neg", "abs", "sign", "sqrt", "exp", "log", "expm1")},
    "add": _add,
    "sub": _subtract,
    "mul": _multiply,
    "div": _divide,
    "pow": lambda a, exponent: _apply("sqrt", a) if exponent == 0.5 else _apply("pow", a, exponent),
    "square": lambda a: _apply("mul", a, a),
    "reciprocal": lambda a: _apply("div", 1.0, a),
    "rsqrt": lambda a: _apply("div", 1.0, _apply("sqrt", a)),
    "clone": lambda a: a,
    "lerp": lambda a, end, weight: _add(a, _subtract(end, a), weight),
    "addcmul": lambda a, x, y, value=1.0: _add(a, _apply("mul", x, y), value),
    "addcdiv": lambda a, x, y, value=1.0: _add(a, _apply("div", x, y), value),
    "clamp": _clamp,
    "clamp_min": lambda a, bound: _apply("max", a, bound),
    "clamp_max": lambda a, bound: _apply("min", a, bound),
    "maximum": lambda a, b: _apply("max", a, b),
    "minimum": lambda a, b: _apply("min", a, b),
}
