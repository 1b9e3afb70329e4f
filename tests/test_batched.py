"""Equal shapes stacked: rules that need whole tensors, with foreach, beside the loop that runs the same text."""

from typing import Any

import pytest
import torch
from family import WHOLE, maker
from third_party import Normalised
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive import ELEMENT, TENSOR, Estimator, Hyper
from partial_adaptive.execution import batched
from partial_adaptive.rules.numerators import ExpAvg, NesterovExpAvg
from partial_adaptive.rules.second_moments import ExpAvgSq
from partial_adaptive.testing import Make, factory
from partial_adaptive.testing.harness import contents, gradient, same, values

SHAPES = [(6, 4), (7, 3), (6, 4), (5,), (6, 4), (), (5,), (0, 3), (4, 3, 2, 2), (), (4, 3, 2, 2), (0, 3)]
# Of float32 the rounding; the arithmetic of 16 bits is float32, which may round to the next number.
DTYPES = [(torch.float64, 1e-14), (torch.float32, 2e-6), (torch.bfloat16, 2e-2), (torch.complex64, 2e-6)]
OPTIONS: list[dict[str, Any]] = [
    {"partial": 1 / 2},
    {"partial": 0.0},
    {"weight_decay": 0.1, "maximize": True},
    {"capturable": True},
    {"lr": torch.tensor(0.1, dtype=torch.float64)},
]


@pytest.fixture(autouse=True)
def stacks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tensors each stack had."""
    found: list[int] = []
    run = batched.PreparedBatches._together

    def counting(self: Any, unit: Any, positions: Any, hyper: Any) -> None:
        found.append(len(positions))
        run(self, unit, positions, hyper)

    monkeypatch.setattr(batched.PreparedBatches, "_together", counting)
    return found


def trained(make: Make, shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """Parameters after five steps, one of which not all take, and their optimizer."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    optimizer = make(params, **options)
    for t in range(5):
        for i, param in enumerate(params):
            param.grad = None if (t, i) == (1, 2) else gradient(param, t, i)
        optimizer.step()
    return params, optimizer


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_equals_the_loop(
    name: str, dtype: torch.dtype, tolerance: float, options: dict[str, Any], stacks: list[int]
) -> None:
    """Every member that needs whole tensors: the parameters and the state of the loop, within rounding, and stacked."""
    make = maker(name, lr=0.05)
    loop, one = trained(make, SHAPES, dtype, **{**options, "foreach": False})
    assert not stacks
    together, other = trained(make, SHAPES, dtype, **{**options, "foreach": True})
    group = other.param_groups[0]
    rule = other.recipe.rule(group, scaled=group["partial"] != 0)
    assert sum(stacks) >= 5 * 8 or rule.needs is ELEMENT
    same(values(together), values(loop), "the stack differs from the loop", tolerance)
    same(contents(other), contents(one), "the state of the stack differs", tolerance)


@pytest.mark.parametrize("name", ["padam", "partial_nadam", "partial_adafactor", "partial_muon"])
@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize(
    "option",
    [
        {"normalize_gradient": True},
        {"agc": 0.01},
        {"clip_rms": 0.1},
        {"trust_ratio": 1.0, "weight_decay": 0.1, "decoupled_weight_decay": True, "cautious_weight_decay": True},
        {"momentum_after": 0.9, "cautious": True, "clip_rms": 0.1},
    ],
    ids=str,
)
def test_options_that_see_whole_tensors(option: dict[str, Any], capturable: bool, name: str, stacks: list[int]) -> None:
    """An option that makes a rule need whole tensors is stacked with it, for elementwise members, too."""
    runs = []
    for foreach in (False, True):
        runs.append(trained(maker(name, lr=0.05), SHAPES, foreach=foreach, capturable=capturable, **option))
        assert bool(stacks) == foreach
    same(values(runs[1][0]), values(runs[0][0]), "the stack differs from the loop", 1e-13)
    same(contents(runs[1][1]), contents(runs[0][1]), "the state of the stack differs", 1e-13)


@pytest.mark.parametrize("capturable", [False, True])
def test_numbers_of_their_own(capturable: bool, stacks: list[int]) -> None:
    """NAdam's numbers: a parameter that has missed a step is stacked with no other, or with capturable has its own."""
    make = factory(pa.rules.blocks.BlockMean(), NesterovExpAvg(), blocks="row", capturable=capturable)
    runs = [trained(make, [(6, 4)] * 4, foreach=foreach) for foreach in (False, True)]
    assert stacks == [2, 4, 3, *([4, 4, 4] if capturable else [3, 3, 3])]  # the first two are copies, as a trial
    same(values(runs[1][0]), values(runs[0][0]), "the numbers were mixed up", 1e-14)
    same(contents(runs[1][1]), contents(runs[0][1]), "the numbers are not kept", 1e-14)


def test_dtypes_apart(stacks: list[int]) -> None:
    """Of one shape, but in float32 and in float64: a stack for each, and the bits of each that the loop gives."""
    runs = []
    for foreach in (False, True):
        params = [torch.ones(6, 4, dtype=dtype) for dtype in (torch.float32, torch.float64) * 2]
        optimizer = maker("partial_adam_mini", foreach=foreach, lr=0.05)(params)
        for t in range(3):
            for i, param in enumerate(params):
                param.grad = gradient(param, t, i)
            optimizer.step()
        runs.append(values(params))
    assert {*stacks} == {2}
    same(*runs, "the arithmetic was in another dtype", 0.0)


def test_third_parties_declare_it(stacks: list[int]) -> None:
    """A stage that says nothing is run tensor by tensor; one that declares it is stacked, with the same result."""

    class Declared(Normalised):
        batched = True

    results = []
    for stage in (Normalised(), Declared()):
        make = factory(ExpAvgSq(), ExpAvg(), before=(stage,), foreach=True)
        results.append(values(trained(make, [(6, 4)] * 3)[0]))
        assert bool(stacks) == stage.batched
    same(*results, "declaring it has changed the result", 1e-14)


def test_what_cannot_be_batched_fails_before_anything_moves() -> None:
    """A stage that declares it and asks for a value is found on copies, and nothing has moved."""

    class Asking(Estimator):
        needs = TENSOR
        batched = True

        def scale(self, grad: Tensor, hyper: Hyper) -> Tensor:
            return grad.abs().add(1.0) if grad.sum().item() > 0 else grad.abs().add(2.0)

    params = [torch.ones(3, 2, dtype=torch.float64) for _ in range(2)]
    optimizer = factory(Asking(), foreach=True)(params)
    for param in params:
        param.grad = torch.ones_like(param)
    before = values(params)
    with pytest.raises(RuntimeError, match="vmap"):
        optimizer.step()
    same(values(params), before, "a step that failed has moved something")


@pytest.mark.parametrize("name", WHOLE)
def test_shared_memory(name: str, stacks: list[int]) -> None:
    """Two parameters in one memory are updated one after the other, as the loop does it, and never in one stack."""
    runs = []
    for foreach in (False, True):
        base = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(6, 4)
        params = [base.clone(), base, base.view(6, 4), base.clone()]
        optimizer = maker(name, foreach=foreach, lr=0.05)(params)
        for t in range(3):
            for i, param in enumerate(params):
                param.grad = gradient(param, t, i)
            optimizer.step()
        runs.append(values(params))
    assert stacks[1:] == [3, 3, 3]  # after the copies of a trial
    same(*runs, "shared memory was overwritten", 1e-14)


@pytest.mark.parametrize(("shape", "together"), [((90, 90), 16), ((128, 128), 8), ((129, 128), 1)], ids=str)
def test_stacks_are_bounded(shape: tuple[int, int], together: int, stacks: list[int]) -> None:
    """A stack has no more than 512 KB on the CPU, and where fewer than 8 would fit there is none."""
    params = [torch.zeros(shape) for _ in range(20)]
    optimizer = pa.PartialSM3(params, lr=0.1, foreach=True)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    del stacks[:1]  # that of the copies
    assert max(stacks, default=1) == together
    assert together == 1 or sum(stacks) + (20 % together == 1) == 20


@pytest.mark.parametrize("name", WHOLE)
def test_the_gradient_and_the_version(name: str) -> None:
    """Gradients stay bit for bit, and autograd is told that the parameters have changed."""
    params = [torch.ones(6, 4) for _ in range(3)]
    for i, param in enumerate(params):
        param.grad = gradient(param, 0, i)
    before = [param.grad.clone() for param in params if param.grad is not None]
    versions = [param._version for param in params]
    maker(name, foreach=True)(params).step()
    assert all(torch.equal(b, p.grad) for b, p in zip(before, params, strict=True) if p.grad is not None)
    assert all(p._version > v for p, v in zip(params, versions, strict=True))
