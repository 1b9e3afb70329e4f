"""torch.compile: one break around a step, or none, no recompilation, and the values of a step that is not compiled."""

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from compile_counts import MODES, SHAPES, STEPS, Counting, Counts, counts_of, recompiled, set_numbers, whole
from family import has, maker, plain
from torch import Tensor
from torch.nn import Linear, Parameter, Sequential, Tanh
from torch.optim import Adam

import partial_adaptive as pa
from partial_adaptive.testing.harness import contents, default_dtype, gradient, parameters, params_of, raises, same

# Dynamo looks at the gradients of all tensors, and torch warns of those that have none; Inductor's own settings (2.6).
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:Skipping serialization of:UserWarning"),
]

TOLERANCE = 1e-12
CASES = [
    pytest.param(name, mode, id=f"{name}-{mode}") for name in pa.MEMBERS for mode in MODES if has(name, MODES[mode])
]
OUTSIDE = [case for case in CASES if not MODES[str(case.values[1])].get("capturable")]
Act = Callable[[pa.PartialAdaptiveOptimizer, int], object]


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    """Dynamo without what other tests have compiled; step counts in float64."""
    torch._dynamo.reset()
    with default_dtype(torch.float64):
        yield
    torch._dynamo.reset()


def course(optimizer: pa.PartialAdaptiveOptimizer, step: Callable[[], Any], act: Act | None = None) -> list[Tensor]:
    """Where 6 steps lead, before each of which something may be done to the optimizer."""
    for index in range(6):
        for i, param in enumerate(params_of(optimizer)):
            param.grad = gradient(param, index, i)
        if act is not None:
            act(optimizer, index)
        step()
    return contents(optimizer)


def in_graph(
    name: str, act: Act | None = None, backend: Any = "eager", dtype: torch.dtype = torch.float64, **options: Any
) -> None:
    """A step in a graph, without a break, leads where one does that is not compiled."""
    expected, actual = (
        maker(name)(parameters(SHAPES, dtype), **{"capturable": True, "lr": 0.1} | copy.deepcopy(options))
        for _ in range(2)
    )
    compiled = torch.compile(actual.step, fullgraph=True, backend=backend)
    same(course(actual, compiled, act), course(expected, expected.step, act), "it is the same text", TOLERANCE)


@cache
def adams_counts(mode: str) -> tuple[Counts, Counts]:
    """Those of torch.optim.Adam, in the same run."""
    return counts_of(Adam, **MODES[mode])


@cache
def adams_recompilations() -> int:
    """Those of torch.optim.Adam, in the same run."""
    return recompiled(Adam(parameters(SHAPES)))


def uncompiled(optimizer: pa.PartialAdaptiveOptimizer) -> list[Tensor]:
    """Where the steps of `recompiled` lead without torch.compile."""
    for index in range(STEPS):
        for i, param in enumerate(params_of(optimizer)):
            param.grad = gradient(param, index, i)
        set_numbers(optimizer, index)
        optimizer.step()
    return contents(optimizer)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_graphs_and_breaks(name: str, mode: str) -> None:
    """A training step is at most 2 graphs, to which `step` adds at most 1 break: no more than torch.optim.Adam's."""
    ours, adams = counts_of(maker(name), **MODES[mode]), adams_counts(mode)
    in_a_graph = bool(MODES[mode].get("capturable"))
    assert [counts.graphs for counts in ours] == [1 + in_a_graph, int(in_a_graph)]
    assert [len(counts.breaks) for counts in ours] == [int(not in_a_graph)] * 2, ours
    for counts, adam in zip(ours, adams, strict=True):
        assert counts.graphs <= adam.graphs
        assert len(counts.breaks) <= len(adam.breaks)


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_differentiable_breaks_once(name: str) -> None:
    """The fifth mode is outside of the graph too: no graph, one break."""
    optimizer = maker(name)(plain(SHAPES), differentiable=True)
    for index, param in enumerate(params_of(optimizer)):
        param.grad = gradient(param, 0, index)
    backend = Counting()
    torch._dynamo.utils.counters.clear()
    torch.compile(optimizer.step, backend=backend)()
    assert (backend.graphs, len(torch._dynamo.utils.counters["graph_break"])) == (0, 1)


@pytest.mark.parametrize(("name", "mode"), OUTSIDE)
def test_nothing_is_compiled_again(name: str, mode: str) -> None:
    """lr, p and betas may change at each of 50 steps, as numbers and with lr as a tensor; the values are right."""
    for lr in (0.1, torch.tensor(0.1)):
        expected, actual = (maker(name)(parameters(SHAPES), lr=copy.copy(lr), **MODES[mode]) for _ in range(2))
        assert recompiled(actual) == 0
        same(contents(actual), uncompiled(expected), "a compiled step is the same step", TOLERANCE)


def _with_tensors(name: str) -> pa.PartialAdaptiveOptimizer:
    optimizer = maker(name)(parameters(SHAPES), capturable=True, lr=torch.tensor(0.1), partial=torch.tensor(0.2))
    if "betas" in optimizer.param_groups[0]:
        optimizer.param_groups[0]["betas"] = torch.tensor(0.9), torch.tensor(0.99)
    return optimizer


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_tensors_are_inputs_of_the_graph(name: str) -> None:
    """In a graph lr, p and betas may change at each of 50 steps where they are tensors, without another graph."""
    actual = _with_tensors(name)
    assert recompiled(actual) == 0
    same(contents(actual), uncompiled(_with_tensors(name)), "it is the same text", TOLERANCE)


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_numbers_become_inputs_of_the_graph(name: str) -> None:
    """Of numbers that move there are two graphs, before they have moved and after: no more than of torch.optim.Adam."""
    expected, actual = (maker(name)(parameters(SHAPES), capturable=True) for _ in range(2))
    assert recompiled(actual) == 1 <= adams_recompilations()
    same(contents(actual), uncompiled(expected), "it is the same text", TOLERANCE)


@pytest.mark.parametrize(("foreach", "backend"), [(False, "eager"), (True, "aot_eager")])
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_in_a_graph(name: str, foreach: bool, backend: str) -> None:
    """Of a fresh optimizer too, AOTAutograd traces through the text of every member, and nothing else changes."""
    in_graph(name, backend=backend, foreach=foreach)


def _to_zero_and_back(optimizer: pa.PartialAdaptiveOptimizer, step: int) -> None:
    optimizer.param_groups[0]["partial"] = (0.25, 0.0, 0.125, 0.375, 0.0, 0.2)[step]
    optimizer.param_groups[0]["weight_decay"] = (0.0, 0.1, 0.2, 0.0, 0.3, 0.1)[step]
    optimizer.param_groups[0]["lr"] = (0.0, 0.1, 0.2, 0.3, 0.2, 0.0)[step]


def _without_gradients(optimizer: pa.PartialAdaptiveOptimizer, step: int) -> None:
    params_of(optimizer)[step % 2].grad = None


def _loaded(optimizer: pa.PartialAdaptiveOptimizer, step: int) -> None:
    if step == 3:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def _another_member(optimizer: pa.PartialAdaptiveOptimizer, step: int) -> None:
    if step == 2:
        param = Parameter(torch.ones(2, 2))
        optimizer.add_param_group({"params": [param], "lr": 0.3, "member": "partial_adagrad"})
        param.grad = torch.ones(2, 2)


ACTS: list[Act] = [_to_zero_and_back, _without_gradients, _loaded, _another_member]


@pytest.mark.parametrize("act", ACTS)
def test_what_changes_between_steps(act: Act) -> None:
    """A graph is never used on what it was not made for."""
    in_graph("padam", act, decoupled_weight_decay=True)


def test_equal_groups_that_part() -> None:
    """Two groups that count as one while their numbers are equal are two in a graph: each has its own lr."""

    def act(optimizer: pa.PartialAdaptiveOptimizer, step: int) -> None:
        if step == 0:
            optimizer.add_param_group({"params": [Parameter(torch.ones(2, 2))]})
        params_of(optimizer)[-1].grad = torch.full((2, 2), 1.0 + step)
        optimizer.param_groups[1]["lr"] = 0.1 if step < 2 else 0.1 / step

    in_graph("padam", act)


def test_numbers_that_stay_in_the_graph() -> None:
    """What cannot be a tensor, in a rule that sees whole ones, is guarded however often it moves."""

    def act(optimizer: pa.PartialAdaptiveOptimizer, step: int) -> None:
        optimizer.param_groups[0]["eps"] = 10.0 ** -(step + 1)
        optimizer.param_groups[0]["precondition_frequency"] = step + 1

    in_graph("partial_shampoo", act)


def test_what_a_rule_calculates_once() -> None:
    """The polynomials of another p are calculated before a graph is traced, where nothing can be calculated."""

    def act(optimizer: pa.PartialAdaptiveOptimizer, step: int) -> None:
        optimizer.param_groups[0]["partial"] = (0.25, 0.125, 0.3125, 0.375, 0.0625, 0.4375)[step]

    in_graph("partial_muon", act, matrix_power="newton_schulz")


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {"state_dtype": torch.bfloat16}),
        (torch.bfloat16, {"rounding": "kahan"}),
        (torch.bfloat16, {"rounding": "stochastic"}),
        (torch.complex128, {}),
        (torch.float64, {"weight_decay": 0.1, "decoupled_weight_decay": True, "cautious_weight_decay": True}),
    ],
)
def test_options_in_a_graph(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """What is staged, rounded and projected without a graph is so in one."""
    in_graph("padam", dtype=dtype, **options)


@pytest.mark.parametrize("name", ["padam", "partial_muon"])
def test_inductor(name: str) -> None:
    """Inductor's kernels compute the same; of a sum with a matrix product it would lose the factor α of the step."""
    in_graph(name, backend="inductor")


def test_fullgraph_says_what_to_do() -> None:
    """Where a step has to run outside of a graph, fullgraph=True is refused in words that help."""
    optimizer = maker("padam")(parameters(SHAPES))
    optimizer.step()
    compiled = torch.compile(optimizer.step, fullgraph=True, backend="eager")
    message = raises(torch._dynamo.exc.Unsupported, compiled, "there is a break")
    assert "PartialAdaptiveOptimizer.step" in message
    if "reason" in inspect.signature(torch.compiler.disable).parameters:
        assert "fullgraph=False, or make the optimizer with capturable=True" in message


CANNOT: list[dict[str, Any]] = [{"fused": True}, {"state_dtype": "8bit"}]


@pytest.mark.parametrize("options", CANNOT)
def test_what_cannot_be_in_a_graph(options: dict[str, Any]) -> None:
    """It runs outside with capturable=True too, with one break, and with the same values."""
    expected, actual = (maker("padam")(parameters(SHAPES, torch.float32), capturable=True, **options) for _ in range(2))
    backend = Counting()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(actual.step, backend=backend)
    same(course(actual, compiled), course(expected, expected.step), "it is the same step")
    assert (backend.graphs, len(torch._dynamo.utils.counters["graph_break"])) == (0, 1)


@pytest.mark.parametrize("mode", MODES)
def test_errors_are_those_of_a_step(mode: str) -> None:
    """What is wrong is said as without torch.compile, and nothing has changed."""
    optimizer = maker("padam")(parameters(SHAPES), **MODES[mode])
    compiled = torch.compile(optimizer.step, backend="eager")
    course(optimizer, compiled)
    optimizer.state[params_of(optimizer)[0]]["exp_avg"] = torch.zeros(7)
    before = contents(optimizer)
    assert "must have the shape (3, 4)" in raises(RuntimeError, compiled, "the state does not fit")
    same(contents(optimizer), before, "an error changes nothing")
    optimizer.param_groups[0]["lr"] = -1.0
    assert "lr must be a finite number ≥ 0, got -1.0" in raises(ValueError, compiled, "lr < 0 is refused")


# -- what stands around a step


Around = Callable[[pa.PartialAdaptiveOptimizer, Callable[[], Tensor]], Callable[[], Any]]


def scheduled(optimizer: pa.PartialAdaptiveOptimizer, loss: Callable[[], Tensor]) -> Callable[[], Any]:
    """A step of a learning rate schedule in the function that is compiled."""
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def train() -> None:
        loss().backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

    return train


def with_closure(optimizer: pa.PartialAdaptiveOptimizer, loss: Callable[[], Tensor]) -> Callable[[], Any]:
    """A closure, evaluated by the step."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return lambda: optimizer.step(closure)


def scaled(optimizer: pa.PartialAdaptiveOptimizer, loss: Callable[[], Tensor]) -> Callable[[], Any]:
    """A GradScaler, by which the loss is multiplied."""
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def train() -> None:
        scaler.scale(loss()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return train


def hooked(optimizer: pa.PartialAdaptiveOptimizer, loss: Callable[[], Tensor]) -> Callable[[], Any]:
    """Hooks, each of which runs once in a step."""
    before, after = torch.zeros(()), torch.zeros(())
    optimizer.register_step_pre_hook(lambda *_: before.add_(1) and None)
    optimizer.register_step_post_hook(lambda *_: after.add_(1) and None)
    calls = 0

    def train() -> None:
        nonlocal calls
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        calls += 1
        assert before.item() == after.item() == calls

    return train


def model_and_loss() -> tuple[Sequential, Callable[[], Tensor]]:
    """A small network, the same on every call."""
    torch.manual_seed(0)
    model = Sequential(Linear(3, 4), Tanh(), Linear(4, 2))
    inputs = torch.randn(5, 3)
    return model, lambda: model(inputs).square().mean()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("around", [scheduled, with_closure, scaled, hooked])
def test_what_stands_around_a_step(around: Around, mode: str) -> None:
    """Schedulers, closures, a GradScaler and hooks in the compiled function do what they do in one that is not."""
    results = []
    for compile_it in (False, True):
        model, loss = model_and_loss()
        train = around(maker("padam")(model.parameters(), **MODES[mode]), loss)
        function = torch.compile(train, backend="eager") if compile_it else train
        for _ in range(3):
            function()
        results.append([param.detach() for param in model.parameters()])
    same(results[1], results[0], "a compiled training step is the same step", TOLERANCE)


@pytest.mark.parametrize(
    ("mode", "compiled_autograd"), [*((mode, False) for mode in MODES), ("default", True), ("capturable", True)]
)
def test_steps_in_the_backward_of_a_compiled_model(mode: str, compiled_autograd: bool) -> None:
    """Optimizers in hooks of the parameters, and compiled autograd, which traces these."""
    results = []
    for compile_it in (False, True):
        model, _ = model_and_loss()
        inputs = torch.ones(5, 3)
        optimizers = {param: maker("padam")([param], **MODES[mode]) for param in model.parameters()}

        def hook(param: Tensor, optimizers: Any = optimizers) -> None:
            optimizers[param].step()
            optimizers[param].zero_grad()

        for param in model.parameters():
            param.register_post_accumulate_grad_hook(hook)
        forward = torch.compile(model, backend="aot_eager") if compile_it else model
        for _ in range(3):
            with _autograd(compile_it and compiled_autograd):
                forward(inputs).square().mean().backward()
        results.append([param.detach() for param in model.parameters()])
    same(results[1], results[0], "a compiled model is trained as one that is not", TOLERANCE)


def _autograd(compiled: bool) -> Any:
    if not compiled:
        return contextlib.nullcontext()
    module: Any = torch._dynamo.compiled_autograd
    enable = module._enable if hasattr(module, "_enable") else module.enable
    return enable(torch.compile(backend="eager"))


def test_a_step_of_ones_own() -> None:
    """A class that overrides `step` has its own step in and outside of graphs, with as many calls of hooks."""

    class Twice(pa.Padam):
        def step(self, closure: Any = None) -> Any:
            super().step()
            return super().step(closure)

    for capturable in (False, True):
        results = []
        for compile_it in (False, True):
            params = parameters(SHAPES)
            optimizer, calls = Twice(params, capturable=capturable), []
            optimizer.register_step_post_hook(lambda *_, calls=calls: calls.append(1))
            course(optimizer, torch.compile(optimizer.step, backend="eager") if compile_it else optimizer.step)
            assert optimizer.state[params[0]]["step"] == 12
            results.append([*contents(optimizer), torch.tensor(len(calls))])
        same(results[1], results[0], "it is the same step", TOLERANCE)


NUMPYS = {
    "lr": [np.float64(0.2), np.float32(0.4), np.float64(0.8)],
    "betas": [[0.8, 0.9], [0.7, 0.95], [0.6, 0.99]],
    "maximize": [np.bool_(True), np.bool_(False), np.bool_(True)],
    "constraint": [pa.Box(-0.5, 0.5), pa.Box(-0.1, 0.1), pa.L2Ball(0.2)],
}


@pytest.mark.parametrize("key", NUMPYS)
def test_whatever_a_group_is_given_is_used(key: str) -> None:
    """NumPy's numbers, which schedulers leave in groups, lists and sets: none becomes a constant of the graph."""
    results = []
    for compile_it in (False, True):
        torch._dynamo.reset()
        (param,) = parameters([(3, 2)])
        optimizer = maker("partial_adam", lr=0.1)([param], capturable=True)
        step = torch.compile(optimizer.step, backend="aot_eager") if compile_it else optimizer.step
        for i in range(8):
            if i >= 2 and not i % 2:
                optimizer.param_groups[0][key] = NUMPYS[key][i // 2 - 1]
            param.grad = gradient(param, i)
            step()
        results.append([param.detach()])
    same(results[1], results[0], f"another {key} was not used", TOLERANCE)


def test_bad_steps_are_skipped() -> None:
    """A verdict is heeded, whether it is asked for from the start or comes up when there is a graph already."""
    (param,) = parameters([(3,)])
    optimizer = maker("padam")([param], capturable=True)
    step = torch.compile(optimizer.step, backend="eager")
    param.grad = torch.ones_like(param)
    step()
    before = param.detach().clone()
    optimizer.found_inf = torch.ones(())
    step()
    del optimizer.found_inf
    same([param.detach()], [before], "a step was taken that the user had called bad")
    optimizer.param_groups[0]["skip_nonfinite"] = True
    param.grad[0] = float("nan")
    step()
    same([param.detach()], [before], "a step was taken with a gradient that is NaN")
    assert optimizer.skipped == 2
    param.grad[0] = 1.0
    step()
    assert not torch.equal(param.detach(), before)


def test_a_training_step_gives_the_loss() -> None:
    """What a compiled training step returns is what it returned, and parameters are where they were without."""
    results = []
    for compile_it in (False, True):
        params = parameters(SHAPES)
        train = whole(params, maker("padam")(params, lr=0.1))
        function = torch.compile(train, backend="aot_eager") if compile_it else train
        losses = [function().detach() for _ in range(3)]
        results.append(losses + [param.detach() for param in params])
    same(results[1], results[0], "it is the same step", TOLERANCE)
