"""Bad steps: with `skip_nonfinite` a step with a NaN or infinite gradient has never been, in every mode."""

import copy
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import here, in_modes, maker
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

import partial_adaptive as pa
from partial_adaptive import TENSOR, Hyper, Tensors, Transform
from partial_adaptive.execution import staging
from partial_adaptive.execution.masked import Masked, PreparedMasked
from partial_adaptive.rules.numerators import ExpAvg
from partial_adaptive.rules.second_moments import ExpAvgSq
from partial_adaptive.testing.harness import MODES, contents, gradient, params_of, same, values

SHAPES: list[tuple[int, ...]] = [(3, 4), (5,), (), (0, 3), (3, 4), (2, 3, 2)]
BAD = (math.nan, math.inf, -math.inf)
LOOKED_AT: list[dict[str, Any]] = [*MODES, {"differentiable": True}, {"fused": True, "capturable": True}]
MASKED: list[dict[str, Any]] = [
    {"foreach": False, "capturable": True},
    {"foreach": True, "capturable": True},
    {"differentiable": True, "capturable": True},
]
ALL_MODES = [*LOOKED_AT, *MASKED]
NAMES = list(pa.MEMBERS)


def start(shapes: list[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Parameters without autograd's history, which every mode takes; those of one shape have different values."""
    return [gradient(torch.empty(shape, dtype=dtype), 50, i) for i, shape in enumerate(shapes)]


def give(optimizer: pa.PartialAdaptiveOptimizer, step: int, bad: float | None = None, where: int = 1) -> None:
    """Set the gradients of a step, maybe with a bad number as the last one of a parameter's."""
    for index, param in enumerate(params_of(optimizer)):
        param.grad = gradient(param, step, index)
        if index == where and bad is not None:
            param.grad.view(-1)[-1] = bad


def check_course(optimizer: pa.PartialAdaptiveOptimizer, twin: pa.PartialAdaptiveOptimizer) -> None:
    """Bad steps in between, and before the first, change nothing and leave no trace in what comes after."""
    for step, bad in enumerate(BAD):
        before, known = contents(optimizer), bool(optimizer.state)
        give(optimizer, step, bad)
        grads = values(grad for param in params_of(optimizer) if (grad := param.grad) is not None)
        optimizer.step()
        if known:
            same(contents(optimizer), before, "a bad step changed something")
        else:
            same(values(params_of(optimizer)), before, "a bad first step moved parameters")
        after = [param.grad for param in params_of(optimizer)]
        torch.testing.assert_close(after, grads, rtol=0, atol=0, equal_nan=True)
        give(optimizer, step)
        give(twin, step)
        optimizer.step()
        twin.step()
    same(contents(optimizer), contents(twin), "a course with bad steps in it is another one")
    assert optimizer.skipped == len(BAD)
    assert twin.skipped == 0


def pair(
    name: str, mode: dict[str, Any], dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[pa.PartialAdaptiveOptimizer, pa.PartialAdaptiveOptimizer]:
    """An optimizer of two groups that skips bad steps, and its twin, which does not."""

    def groups() -> list[dict[str, Any]]:
        params = start(dtype=dtype)
        return [{"params": params[:3]}, {"params": params[3:], "lr": 0.05}]

    make = maker(name, **options)
    return make(groups(), skip_nonfinite=True, **mode), make(groups(), **mode)


@pytest.mark.parametrize("options", [{}, {"partial": 0.0, "weight_decay": 0.1}], ids=str)
@pytest.mark.parametrize(("name", "mode"), in_modes(NAMES, ALL_MODES))
def test_a_bad_step_has_never_been(name: str, mode: dict[str, Any], options: dict[str, Any]) -> None:
    """Parameters, state, counts and all that follows are bit for bit those of a course without the bad steps."""
    check_course(*pair(name, mode, **options))


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.complex64, {}),
        (torch.bfloat16, {}),
        (torch.bfloat16, {"rounding": "stochastic"}),
        (torch.float16, {"rounding": "kahan"}),
        (torch.float32, {"state_dtype": "8bit"}),
        (torch.float32, {"momentum_after": 0.9, "constraint": pa.Box(-1, 1)}),
    ],
    ids=str,
)
def test_kinds_of_parameters(dtype: torch.dtype, options: dict[str, Any], mode: dict[str, Any]) -> None:
    """Complex numbers, 16 bits with their noise and compensation, codes and stages of one's own are put back, too."""
    if mode.get("differentiable") and options.keys() & {"rounding", "state_dtype"}:
        pytest.skip("differentiable refuses these by name")
    if mode.get("fused") and "state_dtype" in options:
        pytest.skip("fused refuses codes by name")
    check_course(*pair("padam", mode, dtype, **options))


@pytest.mark.parametrize("mode", [*MODES, *MASKED[:2]], ids=str)
@pytest.mark.parametrize("bad", BAD)
def test_sparse_gradients(bad: float, mode: dict[str, Any]) -> None:
    """The numbers of a sparse gradient are looked at; the step after a bad one is as if that had never been."""

    def sparse(value: float) -> Tensor:
        rows = torch.tensor([[1.0, -2.0], [3.0, 0.5], [value, 1.0]])
        return torch.sparse_coo_tensor(torch.tensor([[3, 1, 3]]), rows, (4, 2), check_invariants=True)

    make = maker("partial_adagrad")
    (ours,), (theirs,) = start([(4, 2)], torch.float32), start([(4, 2)], torch.float32)
    optimizer, twin = make([ours], skip_nonfinite=True, **mode), make([theirs], **mode)
    for value in (1.0, bad, 2.0):
        ours.grad = sparse(value)
        optimizer.step()
        if math.isfinite(value):
            theirs.grad = sparse(value)
            twin.step()
    same(contents(optimizer), contents(twin), "a bad sparse gradient left a trace")
    assert optimizer.skipped == 1


def test_sums_of_sparse_float16() -> None:
    """Entries of one place are summed before they are looked at where the sum can leave float16, as torch.amp does."""
    param = Parameter(torch.zeros(4, 1, dtype=torch.float16))
    optimizer = pa.PartialAdagrad([param], skip_nonfinite=True)
    rows = torch.full((2, 1), 6e4, dtype=torch.float16)
    param.grad = torch.sparse_coo_tensor(torch.tensor([[1, 1]]), rows, (4, 1), check_invariants=True)
    optimizer.step()
    assert optimizer.skipped == 1
    assert not param.any()


class Refusing(TorchDispatchMode):
    """Raises an error where a value is fetched from a tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was fetched"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "mode"), in_modes(NAMES, MASKED))
def test_nothing_is_fetched_where_the_step_is_masked(name: str, mode: dict[str, Any]) -> None:
    """With `capturable` no step waits for a number, whether it is a good or a bad one; reading the count does."""
    optimizer, _ = pair(name, mode)
    give(optimizer, 0)
    optimizer.step()
    for step, bad in enumerate((None, math.nan, None)):
        give(optimizer, step, bad)
        with Refusing():
            optimizer.step()
    with Refusing(), pytest.raises(AssertionError, match="a value was fetched"):
        _ = optimizer.skipped
    assert optimizer.skipped == 1


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_another_device_is_not_waited_for(name: str, foreach: bool) -> None:
    """On a device the mode is that of `capturable`, counts of steps included; "meta" has no value to be waited for."""
    params = [Parameter(torch.empty(shape, device="meta")) for shape in SHAPES]
    optimizer = maker(name)(params, foreach=foreach, skip_nonfinite=True)
    for _ in range(2):
        for param in params:
            param.grad = torch.empty_like(param)
        optimizer.step()
    assert {state["step"].device.type for state in optimizer.state.values()} == {"meta"}
    assert not optimizer.param_groups[0]["capturable"]
    with pytest.raises(RuntimeError, match="meta"):
        _ = optimizer.skipped


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
def test_one_bad_gradient_skips_the_step_of_all_groups(mode: dict[str, Any]) -> None:
    """The step of all groups is skipped for a gradient of a group that has the option on, and for no other."""
    first, second = start([(3,)]), start([(2, 2)])
    optimizer = pa.Padam([{"params": first, "skip_nonfinite": True}, {"params": second, "lr": 0.01}], **mode)
    before = values([*first, *second])
    give(optimizer, 0, math.nan, where=0)
    optimizer.step()
    same(values([*first, *second]), before, "a group moved in a step that another one has to skip")
    give(optimizer, 0, math.nan, where=1)
    optimizer.step()
    assert first[0].isfinite().all()
    assert not torch.equal(first[0], before[0])
    assert second[0].isnan().any(), "a group without the option is looked at"
    assert optimizer.skipped == 1


@pytest.mark.parametrize("member", [None, "partial_muon"])
def test_members_of_one_optimizer(member: str | None) -> None:
    """A group with another member takes the option from the optimizer, as it takes the modes."""
    matrices, rest = start([(3, 4)]), start([(4,)])
    optimizer = pa.Padam(
        [{"params": matrices, **({"member": member} if member else {})}, {"params": rest}], skip_nonfinite=True
    )
    before = values([*matrices, *rest])
    give(optimizer, 0, math.inf, where=0)
    optimizer.step()
    same(values([*matrices, *rest]), before, "the option did not reach the group")


@pytest.mark.parametrize(("name", "mode"), in_modes(["padam", "partial_soap"], ALL_MODES))
def test_found_inf_from_outside(name: str, mode: dict[str, Any]) -> None:
    """What a `GradScaler` sets, and whoever knows of other processes' gradients can, skips a step in every mode."""
    params, twins = start(), start()
    optimizer, twin = maker(name)(params, **mode), maker(name)(twins, **mode)
    for step, found in enumerate((None, 1.0, 0.0, None, 2.0, 0.0)):
        give(optimizer, step)
        told = None if found is None else torch.tensor(found)
        optimizer.found_inf = told  # type: ignore[attr-defined]  # as a GradScaler does
        optimizer.step()
        if not found:
            give(twin, step)
            twin.step()
    same(contents(optimizer), contents(twin), "a step was skipped, or not, that should not have been")
    assert optimizer.skipped == 2


@pytest.mark.parametrize("wrong", [1.0, True, torch.zeros(2)], ids=str)
def test_found_inf_must_be_a_tensor(wrong: Any) -> None:
    """What cannot be meant is refused before anything has changed."""
    params = start()
    optimizer = pa.Padam(params)
    give(optimizer, 0)
    optimizer.found_inf = wrong  # type: ignore[attr-defined]  # as a GradScaler does
    with pytest.raises(TypeError, match="found_inf must be a tensor of one element, or None, got"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("entry", ["capturable", "skip_nonfinite"])
def test_a_group_that_lacks_an_entry(entry: str) -> None:
    """It is refused by name, also where a verdict is asked for before the groups are read."""
    params = start()
    optimizer = pa.Padam(params)
    give(optimizer, 0)
    optimizer.found_inf = torch.zeros(())
    del optimizer.param_groups[0][entry]
    with pytest.raises(RuntimeError, match=f"Padam: param group 0 must have '{entry}'"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("mode", ALL_MODES[:3], ids=str)
def test_grad_scaler(mode: dict[str, Any]) -> None:
    """With a `GradScaler` its scale goes down after a bad step, a good one is unscaled, and the counts are right."""
    params, twins = start(dtype=torch.float32), start(dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=100)
    optimizer, twin = pa.Padam(params, skip_nonfinite=True, **mode), pa.Padam(twins, **mode)
    for step, bad in enumerate((math.inf, None, None)):
        give(optimizer, step, bad)
        for param in params:
            param.grad = scaler.scale(param.grad)
        scaler.step(optimizer)
        scaler.update()
        if bad is None:
            give(twin, step)
            twin.step()
    same(contents(optimizer), contents(twin), "a scaled course with a bad step is another one", 1e-6)
    assert scaler.get_scale() == 4.0
    # Without `fused` the scaler leaves the step out itself, and nobody else knows of it.
    assert optimizer.skipped == bool(mode.get("fused"))


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
def test_closure(mode: dict[str, Any]) -> None:
    """It is the gradients of the closure that count, and its loss is returned."""
    params = start()
    optimizer = pa.Padam(params, skip_nonfinite=True, **mode)
    before = values(params)

    def closure(bad: float | None) -> float:
        give(optimizer, 0, bad)
        return 3.0

    give(optimizer, 0)
    assert optimizer.step(lambda: closure(math.nan)) == 3.0
    same(values(params), before, "the gradients of before the closure were looked at")
    optimizer.step(lambda: closure(None))
    assert optimizer.skipped == 1
    assert not torch.equal(params[0], before[0])


def test_what_keeps_the_count() -> None:
    """Copies and pickles have the count; torch's format of checkpoints has no place for it, and loading leaves it."""
    params = start()
    optimizer = pa.Padam(params, skip_nonfinite=True)
    give(optimizer, 0, math.nan)
    optimizer.step()
    assert copy.deepcopy(optimizer).skipped == pickle.loads(pickle.dumps(optimizer)).skipped == 1
    assert optimizer.state_dict().keys() == {"state", "param_groups"}
    fresh = pa.Padam(start())
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.skipped == 0
    assert fresh.param_groups[0]["skip_nonfinite"] is True
    optimizer.load_state_dict(fresh.state_dict())
    assert optimizer.skipped == 1


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
def test_the_option_may_change_between_steps(mode: dict[str, Any]) -> None:
    """It holds from the step on in which it is set, also where plans of earlier steps are remembered."""
    params = start()
    optimizer = pa.Padam(params, **mode)
    for step, on in enumerate((False, True, True, False)):
        optimizer.param_groups[0]["skip_nonfinite"] = on
        give(optimizer, step)
        optimizer.step()
        if on:
            before = contents(optimizer)
            give(optimizer, step, math.nan)
            optimizer.step()
            same(contents(optimizer), before, "the option came too late")
    give(optimizer, 9, math.nan)
    optimizer.step()
    assert params[1].isnan().any(), "the option outlived itself"
    assert optimizer.skipped == 2


@pytest.mark.parametrize("mode", MASKED, ids=str)
@pytest.mark.parametrize("name", ["padam", "partial_adam_mini", "partial_soap"])
def test_little_is_kept_at_a_time(name: str, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step is masked a few parameters are copied and updated after the other, with the same result."""
    monkeypatch.setitem(staging.LIMITS, "cpu", 100)
    portions: list[int] = []
    prepare = Masked.prepare

    def counted(masked: Masked, unit: Any) -> PreparedMasked:
        prepared = prepare(masked, unit)
        portions.append(len(prepared.parts))
        return prepared

    monkeypatch.setattr(Masked, "prepare", counted)
    check_course(*pair(name, mode))
    assert portions[0] == 2, "three parameters of 96, 40 and 8 bytes"


@pytest.mark.parametrize("mode", [{"foreach": True}, *MASKED[:2]], ids=str)
def test_parameters_in_shared_memory(mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters that are views of one tensor are put back as well, together or one after the other."""
    for limit in (staging.LIMITS["cpu"], 8):
        monkeypatch.setitem(staging.LIMITS, "cpu", limit)
        optimizer, twin = (
            pa.Padam([base[:4], base[2:]], skip_nonfinite=skips, **mode)
            for base, skips in ((start([(6,)])[0], True), (start([(6,)])[0], False))
        )
        check_course(optimizer, twin)


class Picky(Transform):
    """Raises an error for what is not finite, as some of torch's decompositions do."""

    needs = TENSOR

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors, *slots: Any) -> Tensor:
        if not x.is_meta and not torch.equal(x, x):
            raise ValueError("not a number")
        return x.clone()


@pytest.mark.parametrize("mode", [*LOOKED_AT[:2], *MASKED], ids=str)
def test_rules_do_not_see_bad_gradients(mode: dict[str, Any]) -> None:
    """A rule that raises an error for NaN gets none to see, not even where it is tried before the first step."""
    (param,) = start([(3,)])
    optimizer = pa.PartialAdaptiveOptimizer(
        [param], {"lr": 0.1, "skip_nonfinite": True, **mode}, estimator=ExpAvgSq(), momentum=ExpAvg(), after=(Picky(),)
    )
    for step, bad in enumerate((math.nan, None, math.nan, None)):
        give(optimizer, step, bad, where=0)
        optimizer.step()
    assert optimizer.state[param]["step"] == 2
    assert optimizer.skipped == 2


def test_derivatives_of_a_masked_step() -> None:
    """Through a skipped step autograd passes what it gets, and no NaN."""
    leaf = torch.ones(3, dtype=torch.float64, requires_grad=True)
    weight = leaf.clone()
    optimizer = pa.Padam([weight], differentiable=True, capturable=True, skip_nonfinite=True)
    weight.grad = torch.tensor([1.0, math.nan, 2.0], dtype=torch.float64)
    optimizer.step()
    (weight * torch.arange(3.0)).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [0.0, 1.0, 2.0]


def test_a_skipped_step_on_the_cpu_makes_no_state() -> None:
    """Where the verdict is known before, a fresh optimizer stays as it is; where it is masked, its state is zeros."""
    for mode, known in (({}, False), ({"capturable": True}, True)):
        optimizer = pa.Padam(start(), skip_nonfinite=True, **mode)
        give(optimizer, 0, math.nan)
        optimizer.step()
        assert bool(optimizer.state) == known
        assert not any(value.any() for state in optimizer.state.values() for value in state.values())


def test_a_scheduler_counts_a_skipped_step() -> None:
    """A skipped step is a step to torch's schedulers."""
    optimizer = pa.Padam(start(), lr=1.0, skip_nonfinite=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    give(optimizer, 0, math.nan)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1, 1), mesh_dim_names=("replicas", "shards"))
    dist.destroy_process_group()


@pytest.mark.parametrize(("name", "mode"), in_modes(NAMES, [*MODES, *MASKED[:2]]))
def test_distributed_tensors(name: str, mode: dict[str, Any], mesh: DeviceMesh) -> None:
    """DTensors on one or two dimensions beside plain tensors are put back as these are."""

    def distributed() -> list[Tensor]:
        plain = start([(4, 3), (5,), (2, 2), (3,)])
        places = [(mesh, [Replicate(), Shard(0)]), (mesh["shards"], [Shard(0)]), (mesh, [Shard(0), Replicate()])]
        spread = [distribute_tensor(tensor, *place) for tensor, place in zip(plain[:3], places, strict=True)]
        return [*spread, plain[3]]

    make = maker(name)
    optimizer, twin = make(distributed(), skip_nonfinite=True, **mode), make(distributed(), **mode)

    def step(which: pa.PartialAdaptiveOptimizer, number: int, bad: float | None) -> None:
        for i, param in enumerate(params_of(which)):
            full = gradient(param.full_tensor() if isinstance(param, DTensor) else param, number, i)
            if i == 1 and bad is not None:
                full[-1] = bad
            param.grad = full
            if isinstance(param, DTensor):
                param.grad = distribute_tensor(full, param.device_mesh, param.placements)
        which.step()

    for number, bad in enumerate(BAD):
        before = [here(tensor) for tensor in contents(optimizer)]
        step(optimizer, number, bad)
        if number:
            same([here(tensor) for tensor in contents(optimizer)], before, f"{name} moved in a bad step")
        step(optimizer, number, None)
        step(twin, number, None)
    same([*map(here, contents(optimizer))], [*map(here, contents(twin))], f"{name} has kept a trace of bad steps")
    assert optimizer.skipped == len(BAD)


def test_sums_that_are_still_to_be_taken(mesh: DeviceMesh) -> None:
    """Of a gradient in partial sums it is the sum that is looked at."""
    param = Parameter(distribute_tensor(torch.ones(4), mesh["shards"], [Shard(0)]))
    optimizer = pa.Padam([param], skip_nonfinite=True)
    for value in (math.inf, 1.0):
        param.grad = DTensor.from_local(torch.full((4,), value), mesh["shards"], [Partial()], run_check=False)
        optimizer.step()
    assert optimizer.skipped == 1
    assert optimizer.state[param]["step"] == 1
