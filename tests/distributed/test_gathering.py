"""Rules that need whole tensors, on distributed ones: gathered, updated alike in all processes, brought home."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import ELEMENTWISE, METRIC, WHOLE, in_modes, maker, shaped
from processes import World, mesh
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from training import EXACT, ON_CPU, STEPS, Mode, Net, assert_as_expected, expected, train, whole

import partial_adaptive as pa
from partial_adaptive import TENSOR, Estimator, HalfSpace, Hyper, L1Ball, L2Ball, Simplex, Slot, equivalent_lr
from partial_adaptive.execution import gathering, staging
from partial_adaptive.execution.backend import Unit
from partial_adaptive.execution.eager import Loop
from partial_adaptive.testing import Make
from partial_adaptive.testing.harness import gradient, parameters, same, values

LAYOUT: list[tuple[tuple[int, ...], Placement | None]] = [
    ((4, 3), Shard(0)),
    ((5, 3), Shard(0)),  # uneven
    ((1, 3), Shard(0)),  # of which the second process has nothing
    ((3, 4), Shard(1)),
    ((4, 3), Shard(0)),  # in a batch with the first
    ((2, 2), Replicate()),
    ((5,), Shard(0)),
    ((3,), None),  # plain, beside the others
]
EAGER: list[Mode] = [{"foreach": False}, {"foreach": True}]


class Course:
    """The same parameters twice, in one optimizer distributed and in another plain, and steps of both.

    Args:
        make: makes an optimizer.
        mode: of the one whose parameters are distributed.
    """

    def __init__(self, make: Make, mode: Mode, dtype: torch.dtype = torch.float64) -> None:
        self.plain = parameters([shape for shape, _ in LAYOUT], dtype)
        self.params: list[Any] = [Parameter(self.place(i, param.detach())) for i, param in enumerate(self.plain)]
        self.reference = make(self.plain, **(mode if mode.get("capturable") else {"foreach": False}))
        self.optimizer = make(self.params, **mode)

    def place(self, i: int, tensor: Tensor, placement: Placement | None = None) -> Tensor:
        """A tensor as the i-th parameter is distributed, or otherwise."""
        own = LAYOUT[i][1]
        if own is None:
            return tensor.clone()
        if placement is not None and placement.is_partial():
            part = tensor / 2  # exactly
            return DTensor.from_local(part, mesh(2), [placement], run_check=False)
        return distribute_tensor(tensor, mesh(2), [placement or own])

    def backward(self, step: int, placement: Placement | None = None) -> None:
        """Give all of them gradients, but in the second step some."""
        for i, (param, twin) in enumerate(zip(self.params, self.plain, strict=True)):
            twin.grad = None if step == 1 and i % 3 == 1 else gradient(twin, step, i)
            param.grad = None if twin.grad is None else self.place(i, twin.grad, placement)

    def run(self, steps: int = STEPS, start: int = 0) -> "Course":
        """Take steps."""
        for step in range(start, start + steps):
            self.backward(step)
            self.optimizer.step()
            self.reference.step()
        return self

    def check(self, otherwise: str, tolerance: float = EXACT) -> None:
        """Raise AssertionError where they are not in one place."""
        same([*whole(self.params)], values(self.plain), otherwise, tolerance)


# -- the members, and what makes the others need whole tensors

OPTIONS: list[Mode] = [
    {"normalize_gradient": True},
    {"agc": 0.01},
    {"clip_rms": 0.5},
    {"trust_ratio": 1.0},
    {"cautious": True},
]  # each makes a rule need whole tensors


def members(names: Sequence[str], mode: Mode, options: Mode) -> None:
    for name in names:
        Course(maker(name, **options), mode).run().check(f"{name} with {options} goes elsewhere")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("mode", EAGER, ids=str)
def test_options(mode: Mode, options: Mode, two: World) -> None:
    """Every member goes where it goes unsharded, with each option that needs whole tensors."""
    two.run(members, list(pa.MEMBERS), mode, options)


@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"partial": 0.3}, {"partial": 0}, {"capturable": True}], ids=str
)
@pytest.mark.parametrize("mode", EAGER, ids=str)
def test_members(mode: Mode, options: Mode, two: World) -> None:
    """So do members that need them, where some parameters have no gradients at a step."""
    two.run(members, WHOLE, mode, options)


def test_options_need_whole_tensors() -> None:
    """So that what is tested above is gathering."""
    for options in OPTIONS:
        optimizer = pa.Padam(parameters(), **options)
        assert optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).needs is TENSOR, options


def sets(mode: Mode) -> None:
    constraints = (L2Ball(0.5), L1Ball(0.5), Simplex(), HalfSpace(1.0, 0.3))
    for name in METRIC:
        for constraint in constraints:
            course = Course(maker(name, constraint=constraint), mode).run()
            course.check(f"{name} in {constraint} goes elsewhere")


@pytest.mark.parametrize("mode", EAGER, ids=str)
def test_feasible_sets(mode: Mode, two: World) -> None:
    """Sets of whole tensors are those of the whole parameter, not of its parts."""
    two.run(sets, mode)


class ByTheNorm(Estimator):
    """One scale for the whole tensor."""

    needs = TENSOR

    def scale(self, grad: Tensor, hyper: Hyper) -> Tensor:
        return grad.mul(0) + grad.norm() + hyper.eps


class Rows(Estimator):
    """State with a shape of its own."""

    needs = TENSOR
    slots = {"rows": Slot(shape=lambda shape: shape[:1])}

    def scale(self, grad: Tensor, hyper: Hyper, rows: Tensor) -> Tensor:
        rows.add_(grad.reshape(grad.shape[0], -1).square().sum(1))
        return rows.sqrt().reshape(-1, *[1] * (grad.ndim - 1)) + hyper.eps


def an_authors_own(mode: Mode) -> None:
    for estimator in (ByTheNorm(), Rows()):

        def make(params: Any, it: Estimator = estimator, **options: Any) -> pa.PartialAdaptiveOptimizer:
            return pa.PartialAdaptiveOptimizer(params, {"lr": 0.1, **options}, estimator=it)

        Course(make, mode).run().check(f"{type(estimator).__name__} goes elsewhere")


@pytest.mark.parametrize("mode", EAGER, ids=str)
def test_an_estimator_of_ones_own(mode: Mode, two: World) -> None:
    """It sees whole tensors, and its state may have any shape."""
    two.run(an_authors_own, mode)


# -- state


def kept(name: str) -> list[tuple[str, Tensor]]:
    """The state that has a shape of its own."""
    course = Course(maker(name), {}).run()
    found = []
    names = shaped(course.optimizer)
    for i, param in enumerate(course.params):
        for key, value in course.optimizer.state[param].items():
            if value.ndim and key not in names:
                assert getattr(value, "placements", None) == getattr(param, "placements", None), key
            else:
                assert type(value) is Tensor
                found.append((f"{i} {key}", value))
    return found


@pytest.mark.parametrize("name", WHOLE)
def test_state(name: str, two: World) -> None:
    """State of the parameter's shape is sharded as it is; all else is plain, bit for bit the same in both processes."""
    first, second = two.run(kept, name)
    assert len(first) == len(second) > 0
    for (key, here), (other, there) in zip(first, second, strict=True):
        assert key == other
        assert torch.equal(here, there), key


def resumed(name: str, full: bool) -> None:
    """Saved after a step, and loaded into another optimizer, by torch's own functions for distributed state."""
    options = StateDictOptions(full_state_dict=full, cpu_offload=full, broadcast_from_rank0=full)
    net, nets = Net(), []
    for interrupted in (False, True):
        net = Net()
        for layer in (net.even, net.uneven, net.single):
            fully_shard(layer, mesh=mesh(2))
        fully_shard(net, mesh=mesh(2))
        optimizer = maker(name)(net.parameters())
        train(net, optimizer)
        if interrupted:
            optimizer.zero_grad()  # torch makes state to load into only where there are no gradients
            saved = get_optimizer_state_dict(net, optimizer, options=StateDictOptions(full_state_dict=full))
            optimizer = maker(name)(net.parameters())
            set_optimizer_state_dict(net, optimizer, saved if not full or dist.get_rank() == 0 else {}, options=options)
        train(net, optimizer)
        nets.append([*whole(net.parameters())])
    same(nets[1], nets[0], f"{name} does not go on as it would have")


@ON_CPU
@pytest.mark.parametrize("full", [False, True], ids=["sharded", "full"])
@pytest.mark.parametrize("name", WHOLE)
def test_state_dict_utilities(name: str, full: bool, two: World) -> None:
    """Torch's functions for state of FSDP2 give and take it, sharded and in full; training goes on bit for bit."""
    two.run(resumed, name, full)


# -- how it is done


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is whole at one time than so many bytes, or one parameter; equal shapes come together, in order."""
    params = [torch.zeros(shape) for shape in [(4, 4), (8, 8), (4, 4), (4, 4), (2,), (4, 4)]]
    optimizer = pa.PartialMuon(params[:1])
    (group,) = optimizer.param_groups
    rule = optimizer.recipe.rule(group, scaled=True)
    unit = Unit(rule, group, optimizer.recipe.table, params, [{}] * len(params), {"param": params}, [])
    monkeypatch.setitem(staging.LIMITS, "cpu", 128)  # two of 4 × 4
    assert gathering.Gathering(Loop()).prepare(unit).batches == [[0, 2], [3, 5], [1], [4]]


def gathers(name: str, mode: Mode) -> int:
    """How many tensors a step gathers of one matrix."""
    (plain,) = parameters([(4, 3)])
    param: Any = Parameter(distribute_tensor(plain.detach(), mesh(2), [Shard(0)]))
    optimizer = maker(name)([param], **mode)
    count = 0
    for step in range(2):
        param.grad = distribute_tensor(gradient(plain, step), mesh(2), [Shard(0)])
        with CommDebugMode() as communication:
            optimizer.step()
        count = communication.get_total_counts()
    slots = optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).slots.values()
    assert count == (0 if name in ELEMENTWISE else 2 + sum(slot.follows for slot in slots)), name
    return count


class UnderWay(TorchDispatchMode):
    """The most collectives that were under way at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        waits = "wait_tensor" in name
        starts = "_c10d_functional.all_" in name or "_c10d_functional.reduce_" in name
        self.now += starts - waits
        self.most = max(self.most, self.now)
        self.waits += waits
        return func(*args, **(kwargs or {}))


def under_way() -> None:
    course = Course(maker("partial_muon"), {}).run()
    course.backward(3)
    with UnderWay() as watched:
        course.optimizer.step()
    assert watched.waits > 2, "nothing was gathered"
    assert watched.most == 1, "several of gloo's collectives at one time, of which torch 2.14 frees some twice"


def test_one_collective_at_a_time(two: World) -> None:
    """On the CPU, where torch's own waiting for one of several has ended processes."""
    two.run(under_way)


@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS)))
def test_communication(name: str, mode: Mode, two: World) -> None:
    """None for single elements; else the parameter, its gradient and the state of its shape, once each."""
    two.run(gathers, name, mode)


def planning_alone(mode: Mode) -> None:
    for name in ELEMENTWISE if mode.get("fused") else pa.MEMBERS:
        course = Course(maker(name), mode).run(1)
        for step, placement in ((2, None), (3, Partial())):
            course.backward(step, placement)
            for param in course.params if dist.get_rank() else []:
                if param.ndim == 2:
                    grad = param.grad
                    here = grad.to_local().t().contiguous().t()
                    other = {"shape": grad.shape, "stride": grad.stride(), "run_check": False}
                    param.grad = DTensor.from_local(here, grad.device_mesh, grad.placements, **other)
            course.optimizer.step()
            course.reference.step()
        course.check(f"{name} goes elsewhere")


@pytest.mark.parametrize("mode", [*EAGER, {"fused": True}], ids=str)
def test_planning_alone(mode: Mode, two: World) -> None:
    """A process that plans a step anew, as gradients lie in another order there, does not leave the other waiting."""
    two.run(planning_alone, mode)


# -- a look at the next step


def looked_at() -> None:
    for name in pa.MEMBERS:
        course = Course(maker(name), {}).run()
        for placement in (None, Replicate(), Partial()):
            course.backward(3, placement)
            for param, twin in zip(course.params, course.plain, strict=True):
                ours, theirs = course.optimizer.scale_of(param), course.reference.scale_of(twin)
                assert (ours is None) == (theirs is None)
                if ours is not None and theirs is not None:
                    same([*whole([ours])], [theirs], f"{name} divides by something else", EXACT)
                    assert getattr(ours, "placements", None) == getattr(param, "placements", None)
            (ours_lr,), (theirs_lr,) = (equivalent_lr(it, 0.25) for it in (course.optimizer, course.reference))
            assert abs(ours_lr / theirs_lr - 1) < EXACT, f"{name}: {ours_lr}, {theirs_lr} unsharded"


def test_a_look_at_the_next_step(two: World) -> None:
    """`scale_of` is placed as its parameter, and `equivalent_lr` that of the whole, wherever the gradient lies."""
    two.run(looked_at)


# -- 16 bits


def in_16_bits(mode: Mode, rounding: str, names: Sequence[str]) -> None:
    for name in names:

        def make(params: Any, it: str = name, **options: Any) -> pa.PartialAdaptiveOptimizer:
            return maker(it, rounding=rounding)(params, **options)

        Course(make, mode, torch.bfloat16).run().check(f"{name} is rounded otherwise", 0.0)


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
@pytest.mark.parametrize("mode", EAGER, ids=str)
def test_rounding(mode: Mode, rounding: str, two: World) -> None:
    """What is gathered is rounded bit for bit as it is unsharded, and so is all else that is not rounded at random."""
    two.run(in_16_bits, mode, rounding, list(pa.MEMBERS) if rounding == "kahan" else WHOLE)


def at_random(mode: Mode) -> None:
    count, lr = 2**14, 2.0**-10  # an eighth of the spacing of bfloat16 below 1
    for name in ELEMENTWISE:
        ends = []
        for placement in (Shard(0), Replicate()):
            start = torch.ones(count, dtype=torch.bfloat16)
            param: Any = Parameter(distribute_tensor(start, mesh(2), [placement]))
            param.grad = distribute_tensor(torch.ones_like(start), mesh(2), [placement])
            maker(name, rounding="stochastic")([param], lr=lr, **mode).step()
            ends.append(param)
        moved = (1 - ends[0].full_tensor().double()).mean().item()
        exact = Parameter(torch.ones(1, dtype=torch.float64))
        exact.grad = torch.ones_like(exact)
        maker(name)([exact], lr=lr).step()
        right = 1 - exact.item()
        assert abs(moved - right) < 5 * 2.0**-9 / (2 * count**0.5), f"{name} moves by {moved}, not {right}"
        mine = ends[1].to_local().detach()
        other = mine.clone()
        dist.broadcast(other, src=0)
        assert torch.equal(mine, other), f"{name}: replicas are rounded otherwise"


@pytest.mark.parametrize("mode", [*EAGER, {"fused": True}], ids=str)
def test_rounding_at_random(mode: Mode, two: World) -> None:
    """Of shards it has no bias, by a bound of five standard deviations; of replicas it is the same."""
    two.run(at_random, mode)


# -- FSDP2's other ways


def other_ways(names: Sequence[str], mode: Mode) -> None:
    offload = CPUOffloadPolicy(pin_memory=False)
    ways: list[dict[str, Any]] = [{"reshard_after_forward": False}, {"offload_policy": offload}]
    for name in names:
        for way in ways:
            net = Net()
            for layer in (net.even, net.uneven, net.single):
                fully_shard(layer, mesh=mesh(2), **way)
            fully_shard(net, mesh=mesh(2), **way)
            train(net, maker(name)(net.parameters(), **mode))
            assert_as_expected(net.parameters(), expected(name))


@ON_CPU
@pytest.mark.parametrize("mode", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_other_ways_of_fsdp2(mode: Mode, two: World) -> None:
    """Parameters that are kept whole after the forward pass, and ones that are offloaded to the CPU."""
    two.run(other_ways, ELEMENTWISE if mode.get("fused") else list(pa.MEMBERS), mode)


def tensor_lr(mode: Mode) -> None:
    for name in ELEMENTWISE if mode.get("fused") else pa.MEMBERS:
        course = Course(maker(name), mode)
        for optimizer in (course.optimizer, course.reference):
            (group,) = optimizer.param_groups
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
        course.run(1)
        for optimizer in (course.optimizer, course.reference):
            optimizer.param_groups[0]["lr"].mul_(0.5)
        course.run(2, start=1).check(f"{name} goes elsewhere")


@pytest.mark.parametrize("mode", [{"foreach": False}, {"foreach": True, "capturable": True}, {"fused": True}], ids=str)
def test_lr_as_a_tensor(mode: Mode, two: World) -> None:
    """A learning rate that is a tensor, and that a schedule changes in place."""
    two.run(tensor_lr, mode)
