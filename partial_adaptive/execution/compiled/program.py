"""The arithmetic of one tensor, recorded as expressions that any compiler can be given."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from torch import Tensor

from partial_adaptive.execution.lifted import ELEMENTWISE, Lifted
from partial_adaptive.execution.state import STEP, counts_of, scalars_of
from partial_adaptive.rules.hyperparameters import Hyperparameter
from partial_adaptive.rules.power import is_dyadic
from partial_adaptive.rules.rule import Rule


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

    @property
    def version(self) -> Any:
        """Another one after each change in place."""
        return self.node

    def item(self) -> Any:
        """A symbol for the present value."""
        return Symbol(self.node)

    def choose(self, condition: Any, chosen: Any, otherwise: Any) -> Any:
        """A choice that is recorded."""
        return Symbol(_apply("where", *map(_operand, (condition, chosen, otherwise))))

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Self:
        operation = method.removesuffix("_")
        args = tuple(map(_operand, args))
        node = _OPERATIONS[operation](self.node, *args, **{name: _operand(value) for name, value in kwargs.items()})
        if method == operation:
            return type(self)(node)
        if not isinstance(node, Node) or (self.node.elementwise and not node.elementwise):
            node = Node("copy", (node,), self.node.elementwise)  # a number for every element
        self.node = node
        return self


@dataclass(frozen=True)
class _Landing:
    """How results are rounded to the parameter's dtype.

    Args:
        before: the parameter before the step.
        step: the count of the step.
    """

    before: Node
    step: Node

    def nearest(self, value: Symbol) -> Symbol:
        """An operation of the language's."""
        return Symbol(Node("nearest", (value.node,), elementwise=True))

    def stochastic(self, value: Symbol, seed: int) -> Symbol:
        """By noise that is a hash of these, the seed, and the position of the element."""
        return Symbol(Node("stochastic", (value.node, self.before, self.step, seed), elementwise=True))


def static(group: Mapping[str, Any], table: Mapping[str, Hyperparameter]) -> tuple[Any, ...]:
    """What of a param group a program depends on: the options, and of numbers only which of them vary."""
    return tuple("number" if _varies(name, entry, group[name]) else group[name] for name, entry in table.items())


def trace(rule: Rule, group: Mapping[str, Any], table: Mapping[str, Hyperparameter], *, scaled: bool) -> Program:
    """Record one step of a rule.

    Args:
        rule: what to record; it needs single elements only.
        group: the param group; `static` says what of it matters.
        table: the hyperparameters of the optimizer.
        scaled: whether gradients come multiplied by the factor of a `torch.amp.GradScaler`, the number "grad_scale".

    Raises:
        TypeError: where the rule does what is not elementwise, by name.
    """
    elements = {name: _input("element", name) for name in ("param", "grad", *rule.slots)}
    counters = counts_of(rule)
    scalars = {name: _input("scalar", name) for name in scalars_of(rule)}
    for name in counters:
        scalars[name].add_(1)
    step, age = scalars[counters[0]].item(), scalars[counters[-1]].item()
    numbers = {
        name: _input("number", name) if _varies(name, entry, group[name]) else group[name]
        for name, entry in table.items()
    }
    if "betas" in numbers:
        numbers["betas"] = (_input("number", "beta1"), _input("number", "beta2"))
    hyper = rule.hyper(numbers, step, age, [scalars[name] for name in rule.momentum.scalars])
    landing = _Landing(elements["param"].node, scalars[STEP].node)
    if rule.rounding is not None:
        rule.rounding.widen(elements["param"], elements)
    grad: Any = elements["grad"] / _input("number", "grad_scale") if scaled else elements["grad"]
    state: Any = {name: elements[name] for name in rule.slots}
    names = ", ".join(type(stage).__name__ for stage in rule.stages)
    try:
        rule.update(elements["param"], grad, hyper, state)  # type: ignore[arg-type]  # a symbol stands in for a tensor
    except TypeError as error:
        named = any(type(stage).__name__ in str(error) for stage in rule.stages)
        raise error if named else TypeError(f"{names}: {error}") from error
    if rule.rounding is not None:
        rule.rounding.land(Symbol(elements["param"].node), elements["param"], elements, landing)
    program = Program({k: v.node for k, v in elements.items()}, {k: v.node for k, v in scalars.items()})
    if program.elements["grad"].op != "element":
        raise TypeError(f"one of {names} changes the gradient in place; it must leave it as it is")
    return program


def values(names: Iterable[str], group: Mapping[str, Any], grad_scale: Any) -> list[Any]:
    """The values of a program's numbers."""
    derived = {"grad_scale": grad_scale}
    if "betas" in group:
        derived["beta1"], derived["beta2"] = group["betas"]
    return [derived[name] if name in derived else group[name] for name in names]


def _input(kind: str, name: str) -> Symbol:
    return Symbol(Node(kind, (name,), elementwise=kind == "element"))


def _varies(name: str, entry: Hyperparameter, value: Any) -> bool:
    """Whether a hyperparameter is a number that may change without a new program."""
    if name == "partial" and not isinstance(value, Tensor):
        return not is_dyadic(2 * value)
    return value is not None and not entry.static and (name != "weight_decay" or bool(value != 0))


def _operand(value: Any) -> Any:
    if isinstance(value, Symbol):
        return value.node
    if isinstance(value, float | int):
        return float(value)
    raise TypeError(
        f"a rule that declares needs = ELEMENT takes tensors of the state and numbers as operands, got a "
        f"{type(value).__name__}; what is not a number of the step belongs into a hyperparameter"
    )


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


def _raise(a: Any, exponent: Any) -> Any:
    if exponent in (0.5, 1.0):
        return a if exponent == 1.0 else _apply("sqrt", a)
    if not isinstance(exponent, float) or not exponent.is_integer() or not 2 <= abs(exponent) <= 8:
        return _apply("pow", a, exponent)
    product = a  # of any sign
    for _ in range(int(abs(exponent)) - 1):
        product = _apply("mul", product, a)
    return product if exponent > 0 else _apply("div", 1.0, product)


def _lerp(a: Any, end: Any, weight: Any) -> Any:
    """In torch's two forms: each is exact at its end."""
    difference = _subtract(end, a)
    if isinstance(weight, float):
        return _add(a, difference, weight) if weight < 0.5 else _add(end, difference, weight - 1.0)
    near = _apply("lt", weight, 0.5)
    base = _apply("where", near, a, end)
    return _add(base, difference, _apply("where", near, weight, _subtract(weight, 1.0)))


_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **{op: partial(_apply, op) for op in ("neg", "abs", "sign", "sqrt", "exp", "exp2", "log", "log2", "expm1")},
    **{op: partial(_apply, op) for op in ("floor", "ceil", "lt", "le", "gt", "ge", "eq", "ne")},
    "add": _add,
    "sub": _subtract,
    "mul": _multiply,
    "div": _divide,
    "pow": _raise,
    "square": lambda a: _apply("mul", a, a),
    "reciprocal": lambda a: _apply("div", 1.0, a),
    "rsqrt": lambda a: _apply("div", 1.0, _apply("sqrt", a)),
    "clone": lambda a: a,
    "copy": lambda a, source: source,
    "fill": lambda a, value: value,
    "zero": lambda a: 0.0,
    "lerp": _lerp,
    "addcmul": lambda a, x, y, value=1.0: _add(a, _multiply(_multiply(value, x), y)),  # x·y alone may overflow
    "addcdiv": lambda a, x, y, value=1.0: _add(a, _multiply(value, _apply("div", x, y))),
    "clamp": _clamp,
    "clamp_min": lambda a, bound: _apply("max", a, bound),
    "clamp_max": lambda a, bound: _apply("min", a, bound),
    "maximum": lambda a, b: _apply("max", a, b),
    "minimum": lambda a, b: _apply("min", a, b),
    "where": lambda a, condition, b: _apply("where", condition, a, b),
}
assert _OPERATIONS.keys() == ELEMENTWISE, "what may be traced and what counts as elementwise must be one list"
