"""What the checks are made of: parameters and gradients that repeat exactly, comparisons that explain."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, overload

import torch
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.stage import Needs

SHAPES: tuple[tuple[int, ...], ...] = ((3, 4), (5,), (), (2, 3, 2))
MODES: tuple[dict[str, Any], ...] = ({"foreach": False}, {"foreach": True}, {"fused": True})
DECAYS: tuple[dict[str, Any], ...] = ({}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True})


Make = Callable[..., PartialAdaptiveOptimizer]  # the optimizer under test, from parameters and keyword arguments


class Check(Protocol):
    """A check of an optimizer."""

    __name__: str

    def __call__(self, make: Make) -> None:
        """Raise AssertionError, with what would break, where the optimizer does not pass."""


CHECKS: dict[str, Check] = {}


@overload
def check(function: Callable[[Make], None]) -> Check: ...
@overload
def check(*, law: str) -> Callable[[Callable[[Make], None]], Check]: ...
def check(function: Callable[[Make], None] | None = None, *, law: str | None = None) -> Any:
    """Enter a check in `CHECKS`; whatever it raises becomes an AssertionError that says what was being protected.

    Args:
        function: the check.
        law: the law that it checks, if optimizers may declare that it does not hold for them.
    """
    if function is None:
        return functools.partial(check, law=law)

    @functools.wraps(function)
    def explained(make: Make) -> None:
        purpose = " ".join((function.__doc__ or "").split())
        try:
            if law is None or law not in broken(make):
                function(make)
        except AssertionError as error:
            raise AssertionError(f"{function.__name__}: {error}\n{purpose}") from error
        except Exception as error:
            raise AssertionError(f"{function.__name__}: {type(error).__name__}: {error}\n{purpose}") from error

    CHECKS[function.__name__] = explained
    return explained


def broken(make: Make) -> frozenset[str]:
    """The laws that an optimizer declares not to hold."""
    optimizer = make(parameters())
    return optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).breaks


def modes_of(make: Make) -> list[dict[str, Any]]:
    """The modes that an optimizer has: all, but `fused` only where single elements are all that it must see."""
    optimizer = make(parameters())
    needs = optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).needs
    return [mode for mode in MODES if needs is Needs.ELEMENT or not mode.get("fused")]


def parameters(shapes: Iterable[Sequence[int]] = SHAPES, dtype: torch.dtype = torch.float64) -> list[Parameter]:
    """Parameters with the same values, to rounding, on every call; on the default device."""
    return [Parameter(_normal(shape, dtype, seed)) for seed, shape in enumerate(shapes)]


def gradient(param: Tensor, step: int, index: int = 0) -> Tensor:
    """The gradient of the index-th parameter at a step, the same on every call; its size changes with the step."""
    return _normal(param.shape, param.dtype, 1000 * (step + 1) + index).to(param.device) * (1 + step % 3)


def train(optimizer: PartialAdaptiveOptimizer, steps: int = 4, start: int = 0, factor: float = 1.0) -> None:
    """Take steps with `gradient` times a factor."""
    for step in range(start, start + steps):
        for index, param in enumerate(params_of(optimizer)):
            param.grad = gradient(param, step, index) * factor
        optimizer.step()


def run(make: Make, steps: int = 4, dtype: torch.dtype = torch.float64, **options: Any) -> list[Tensor]:
    """Where training with these options leaves the parameters."""
    params = parameters(dtype=dtype)
    train(make(params, **options), steps)
    return values(params)


def displacement(make: Make, steps: int = 4, factor: float = 1.0, **options: Any) -> Tensor:
    """How far training with these options, and gradients multiplied by a factor, moves the parameters, all in one."""
    params = parameters()
    train(make(params, **options), steps, factor=factor)
    return torch.cat([(param - start).detach().ravel() for param, start in zip(params, parameters(), strict=True)])


def params_of(optimizer: PartialAdaptiveOptimizer) -> list[Tensor]:
    """All parameters, in order."""
    return [param for group in optimizer.param_groups for param in group["params"]]


def values(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Detached copies."""
    return [tensor.detach().clone() for tensor in tensors]


def contents(optimizer: PartialAdaptiveOptimizer) -> list[Tensor]:
    """Copies of everything that a step changes: parameters and state."""
    params = params_of(optimizer)
    states = [value for param in params for _, value in sorted(optimizer.state.get(param, {}).items())]
    return values((*params, *states))


def same(actual: Sequence[Tensor], expected: Sequence[Tensor], otherwise: str, tolerance: float = 0.0) -> None:
    """Raise AssertionError where tensors differ in shape, dtype or by more than a part of the largest value."""
    assert len(actual) == len(expected), f"{otherwise} (got {len(actual)} tensors where {len(expected)} are right)"
    for i, (ours, right) in enumerate(zip(actual, expected, strict=True)):
        assert ours.shape == right.shape, f"{otherwise} (tensor {i}: shape {ours.shape}, right is {right.shape})"
        assert ours.dtype == right.dtype, f"{otherwise} (tensor {i}: {ours.dtype}, right is {right.dtype})"
        if right.numel():
            error, size = (ours - right).abs().max().item(), right.abs().max().item()
            assert error <= tolerance * size, f"{otherwise} (tensor {i} is off by {error:.1e}, its size is {size:.1e})"


def raises(kind: type[Exception], action: Callable[[], object], otherwise: str) -> str:
    """The message of the exception that `action` must raise."""
    try:
        action()
    except kind as error:
        return str(error)
    raise AssertionError(otherwise)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """A default dtype for a while; step counts are kept in it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _normal(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    widest = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, dtype=widest, generator=generator, device="cpu").to(torch.empty(0).device, dtype)
