"""Torch's own test data, on the members at p = 1/2: the inputs that it refuses, and its learning rate schedulers."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from family import with_modes
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

import partial_adaptive as pa
from partial_adaptive.testing.harness import default_dtype, same, values

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_optimizers

# The module is private to torch: what a version lacks is left out, and the last test sees whether anything is left.
INFOS = {info.optim_cls: info for info in getattr(common_optimizers, "optim_db", ())}
PAIRS = {name: member.counterpart for name, member in pa.MEMBERS.items() if member.counterpart}
SHAPES = ((6, 4), (6, 1), (4, 1))  # of W, b and x: matrices, which every optimizer takes
STEPS = 24

# What torch refuses and we take, by torch's own description, with the reason.
TAKEN = {
    "lr as Tensor doesn't work with foreach & not capturable": "its value is fetched, as without foreach",
    "betas must be either both floats or both Tensors": "each is a number for itself",
    r"betas\[0\] as a Tensor is not supported for capturable=False and foreach=True": "its value is fetched",
    "does not support complex parameters": "they are updated as pairs of real numbers",
    "Tensor lr must be 0-dimension": "older versions of torch alone; one entry in one dimension is a number",
}


def data(counterpart: type[Optimizer] | None, name: str) -> Any:
    """A field of torch's data for an optimizer, None where there is none."""
    return getattr(INFOS.get(counterpart), name, None)


def half(name: str, params: Any, options: Mapping[str, Any]) -> Optimizer:
    """A member in the place of its counterpart."""
    return pa.create(name, params, partial=0.5, **{**pa.MEMBERS[name].counterpart_options, **options})


def error_inputs() -> Iterator[Any]:
    """(member, what its counterpart refuses)."""
    for name, counterpart in PAIRS.items():
        inputs = data(counterpart, "optim_error_inputs_func")
        for number, entry in enumerate(inputs("cpu", torch.float32) if inputs else ()):
            yield pytest.param(name, entry, id=f"{name}-{number}-{entry.optimizer_error_input.desc}")


@pytest.mark.parametrize(("name", "entry"), list(error_inputs()))
def test_what_torch_refuses(name: str, entry: Any) -> None:
    """An error of the same kind that names the argument and its value, or the table says why we take it."""
    given, counterpart = entry.optimizer_error_input, PAIRS[name]
    params = [Parameter(torch.ones(2, 2))] if given.params is None else given.params

    def refused(make: Callable[..., Any], **options: Any) -> str | None:
        """The message of torch's kind of error, None where there is no error."""
        try:
            optimizer = make(params, **options)
            if entry.error_on is common_optimizers.OptimizerErrorEnum.STEP_ERROR:
                optimizer.step()
        except entry.error_type as error:
            return str(error)
        return None

    ours = refused(lambda params, **options: half(name, params, options), **given.kwargs)
    assert refused(counterpart, **given.kwargs), "torch itself takes it"
    if given.desc in TAKEN:
        assert ours is None, f"the table says that we take it, because {TAKEN[given.desc]}"
        return
    assert ours, f"torch refuses it ({given.desc}) and we take it"
    if not given.kwargs:
        assert "param" in ours
    without = {key: {k: v for k, v in given.kwargs.items() if k != key} for key in given.kwargs}
    at_fault = [key for key in given.kwargs if not refused(counterpart, **without[key])]
    assert at_fault or not given.kwargs
    for key in at_fault:
        assert key in ours
        assert repr(given.kwargs[key]) in ours


@pytest.mark.parametrize("name", [name for name, counterpart in PAIRS.items() if counterpart is Adam])
def test_what_is_taken_trains(name: str) -> None:
    """The numbers that torch refuses as tensors do what they do as floats."""
    betas = (0.8, 0.95)
    taken: list[dict[str, Any]] = [
        {"lr": torch.tensor(0.01), "betas": betas, "foreach": True},
        {"lr": torch.tensor([0.01]), "betas": betas},
        {"lr": 0.01, "betas": (torch.tensor(0.8), 0.95)},
        {"lr": 0.01, "betas": (0.8, torch.tensor(0.95))},
        {"lr": 0.01, "betas": tuple(map(torch.tensor, betas)), "foreach": True},
    ]
    _, expected = descend(lambda params: half(name, params, {"lr": 0.01, "betas": betas}), [], torch.float32)
    for options in taken:
        _, params = descend(lambda params, options=options: half(name, params, options), [], torch.float32)
        same(params, expected, f"{options} train otherwise than the same numbers", 1e-5)


def descend(
    make: Callable[[Any], Optimizer], schedulers: Sequence[Callable[[Optimizer], Any]], dtype: torch.dtype
) -> tuple[list[list[float]], list[Tensor]]:
    """Bring Wx + b to zero, as in torch's tests: the learning rates of each step, and where the parameters end."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for shape in SHAPES)
    params = [Parameter(weight), Parameter(bias)]
    optimizer = make([{"params": params[:1]}, {"params": params[1:], "lr": 0.02}])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's data may use what torch deprecates
        running: list[LRScheduler] = [scheduler(optimizer) for scheduler in schedulers]
    rates = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        (params[0] @ x + params[1]).square().sum().backward()
        optimizer.step()
        for scheduler in running:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(1.0)  # a loss that never improves
            else:
                scheduler.step()
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    return rates, values(params)


def scheduler_inputs() -> Iterator[Any]:
    """(member, schedulers that run together): those of its counterpart, and those of SGD, which has most."""
    for name, counterpart in PAIRS.items():
        for source in (counterpart, SGD):
            for number, schedulers in enumerate(data(source, "scheduler_inputs") or ()):
                yield pytest.param(name, schedulers, id=f"{name}-{source.__name__}-{number}")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize(("name", "schedulers", "mode"), with_modes(scheduler_inputs()))
def test_schedulers(name: str, schedulers: Any, dtype: torch.dtype, tolerance: float, mode: dict[str, Any]) -> None:
    """Torch's schedulers see and set the same learning rates as in the counterpart, and training follows them."""
    counterpart = PAIRS[name]
    loop = {"foreach": False} if "foreach" in inspect.signature(counterpart).parameters else {}

    def theirs(params: Any) -> Optimizer:
        return counterpart(params, **pa.MEMBERS[name].counterpart_options, **loop)

    with default_dtype(dtype):
        defaults = theirs([Parameter(torch.ones(1, 1))]).defaults
        expected_rates, expected = descend(theirs, schedulers, dtype)
        options = {key: defaults[key] for key in ("lr", "eps") if key in defaults} | mode
        rates, params = descend(lambda params: half(name, params, options), schedulers, dtype)
    assert rates == expected_rates
    assert len({tuple(rate) for rate in rates}) > 1, "the schedulers have done nothing"
    same(params, expected, f"{name} is scheduled otherwise than {counterpart.__name__}", tolerance)


def test_torch_has_data() -> None:
    """Of both kinds and for every counterpart, or tests have vanished without notice."""
    for inputs in (error_inputs, scheduler_inputs):
        assert {case.values[0] for case in inputs()} == set(PAIRS)
