"""Constraints as a user has them: in groups, configurations and checkpoints, and what is refused of them by name."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.nn import Parameter

from partial_adaptive import (
    ELEMENT,
    TENSOR,
    Box,
    Constraint,
    HalfSpace,
    L1Ball,
    L2Ball,
    NonNegative,
    Padam,
    PartialAdagrad,
    Simplex,
)
from partial_adaptive.testing.harness import contents, gradient, parameters, same, train, values

SHAPE = (3, 4)
SETS: dict[str, Constraint] = {
    "Box": Box(-0.5, 0.5),
    "Box of one side": Box(-math.inf, 0.3),
    "NonNegative": NonNegative(),
    "L2Ball": L2Ball(1.0),
    "L2Ball of rows": L2Ball(0.5, rows=True),
    "L1Ball": L1Ball(2.0),
    "L1Ball of rows": L1Ball(0.7, rows=True),
    "Simplex": Simplex(3.0),
    "Simplex of rows": Simplex(rows=True),
    "HalfSpace": HalfSpace(torch.linspace(-1, 2, 12).reshape(SHAPE), 0.1),
    "HalfSpace of rows": HalfSpace(torch.linspace(-1, 2, 4), 0.1, rows=True),
    "HalfSpace of a number": HalfSpace(-1.0, -2.0),
}
MODES: list[dict[str, Any]] = [
    *({"foreach": False}, {"foreach": True}, {"fused": True}, {"differentiable": True}),
    {"capturable": True, "foreach": True},
]
UNFUSED = [mode for mode in MODES if not mode.get("fused")]
COUPLED = [name for name, constraint in SETS.items() if constraint.needs is TENSOR]
IN_MODES = [
    pytest.param(name, mode, id=f"{name}-{mode}")
    for name, constraint in SETS.items()
    for mode in (UNFUSED if constraint.needs is TENSOR else MODES)
]


@dataclass(frozen=True)
class AtLeast(Constraint):
    """A user's set of single elements."""

    size: float

    needs = ELEMENT

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        return x.clamp(min=self.size)


@dataclass(frozen=True)
class ZeroSum(Constraint):
    """A user's set of whole tensors, with an argument that is left out and one that is not of the constructor."""

    scale: float = 1.0
    half: float = field(init=False, default=0.5)

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        inverse = weights.reciprocal()
        return x - inverse * (x.sum() / inverse.sum())


@dataclass(frozen=True, slots=True)
class Slotted(Constraint):
    """A user's set without a __dict__ of its own."""

    size: float

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        return x.clamp(min=self.size)


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Parameters that every mode takes."""
    return values(parameters(shapes or [SHAPE], dtype))


def alike(one: Any, other: Any) -> bool:
    """Whether two constraints are of one class and hold the same, as far as they print it."""
    return type(one) is type(other) and repr(one) == repr(other)


def name_of(constraint: Constraint) -> str:
    return type(constraint).__name__


def on_disk(checkpoint: Any) -> Any:
    """What torch.load makes of what torch.save has written, with weights alone."""
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# -- as plain data, in checkpoints and copies


@pytest.mark.parametrize("constraint", [*SETS.values(), AtLeast(0.1), ZeroSum(2.0), Slotted(0.1)], ids=name_of)
def test_checkpoints(constraint: Constraint) -> None:
    """A set is plain data in a checkpoint that loads with weights alone, and training goes on in it, bit for bit."""
    (ours,) = leaves()
    optimizer = Padam([ours], constraint=constraint)
    train(optimizer, 3)
    checkpoint = optimizer.state_dict()
    stored = checkpoint["param_groups"][0]["constraint"]
    assert type(stored) is dict
    assert {type(value) for value in stored.values()} <= {str, float, bool, Tensor}
    assert optimizer.param_groups[0]["constraint"] is constraint, "state_dict has changed the optimizer"
    twin = ours.clone()
    resumed = Padam([twin])
    resumed.load_state_dict(on_disk(checkpoint))
    assert alike(resumed.param_groups[0]["constraint"], constraint)
    train(optimizer, 3, start=3)
    train(resumed, 3, start=3)
    same(contents(resumed), contents(optimizer), "training does not go on in the set")


@pytest.mark.parametrize("constraint", [*SETS.values(), AtLeast(0.1)], ids=name_of)
def test_configurations(constraint: Constraint) -> None:
    """The constructor, a group, `add_param_group` and a group in mid-training take a set as plain data."""
    plain = Padam(leaves(), constraint=constraint).state_dict()["param_groups"][0]["constraint"]
    assert plain["set"] == ("test_constraints.AtLeast" if type(constraint) is AtLeast else type(constraint).__name__)
    optimizer = Padam([{"params": leaves()}, {"params": leaves(), "constraint": dict(plain)}], constraint=plain)
    optimizer.add_param_group({"params": leaves(), "constraint": plain})
    optimizer.add_param_group({"params": leaves(), "constraint": None})
    optimizer.param_groups[3]["constraint"] = plain
    train(optimizer, 1)
    assert all(alike(group["constraint"], constraint) for group in optimizer.param_groups)


REFUSED: dict[str, tuple[Any, str]] = {
    "an unknown set": (
        {"set": "Bix", "low": 0, "high": 1},
        r"names the set 'Bix' \(did you mean 'Box'\?\).*NonNegative",
    ),
    "a set that is not imported": ({"set": "elsewhere.Mine"}, "'elsewhere.Mine', which is not known here"),
    "no name": ({"set": None}, "the set None"),
    "names": ({"set": ["Box", "L2Ball"]}, r"constraint.*\['Box', 'L2Ball'\]"),
    "a wrong argument": ({"set": "Box", "lo": 0, "high": 1}, "arguments that do not fit.*'lo'"),
    "an argument too few": ({"set": "L2Ball"}, "arguments that do not fit.*'radius'"),
    "a value that is not allowed": ({"set": "L2Ball", "radius": -1}, "L2Ball: radius must be .*, got -1"),
    "a dict of something else": (
        {"low": 0, "high": 1},
        "constraint must be None, a Constraint or its description.*'low'",
    ),
    "a class": (NonNegative, "constraint must be None, a Constraint or its description.*NonNegative'>"),
    "a pair": ((0, 1), r"constraint must be None, a Constraint or its description.*\(0, 1\)"),
    "text": ("Box", "constraint must be None, a Constraint or its description.*'Box'"),
    "a set that can be changed": (
        dataclass(type("Loose", (Constraint,), {"project": AtLeast.project}))(),
        "constraint must .* frozen dataclass",
    ),
    "a set that holds a list": (AtLeast([0.1]), r"constraint must .* frozen dataclass.*\[0\.1\]"),
}
DOORS: dict[str, Callable[[Padam, Any], Any]] = {
    "constructor": lambda optimizer, value: Padam(leaves(), constraint=value),
    "group": lambda optimizer, value: optimizer.add_param_group({"params": leaves(), "constraint": value}),
    "mid-training": lambda optimizer, value: (optimizer.param_groups[1].update(constraint=value), train(optimizer, 1)),
    "checkpoint": lambda optimizer, value: optimizer.load_state_dict(with_constraint(optimizer.state_dict(), value)),
}


def with_constraint(checkpoint: Any, value: Any) -> Any:
    checkpoint["param_groups"][1]["constraint"] = value
    return checkpoint


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_constraint(kind: str, door: str) -> None:
    """What names no set is an error that names it and says what there is, before anything has changed."""
    value, message = REFUSED[kind]
    optimizer = Padam([{"params": leaves()}, {"params": leaves()}])
    train(optimizer, 2)
    before = contents(optimizer)
    with pytest.raises((ValueError, TypeError), match=message):
        DOORS[door](optimizer, value)
    same(contents(optimizer), before, "what was refused has changed something")
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"])
def test_copies_of_the_optimizer(copied: Callable[[Any], Any], name: str) -> None:
    """A copy, and what comes out of pickle, goes on in the same set."""
    optimizer = Padam(leaves(), constraint=SETS[name])
    train(optimizer, 2)
    twin = copied(optimizer)
    assert alike(twin.param_groups[0]["constraint"], SETS[name])
    train(optimizer, 2, start=2)
    train(twin, 2, start=2)
    same(contents(twin), contents(optimizer), "a copy goes elsewhere")


def test_checkpoints_without_a_constraint() -> None:
    """Of the first edition or torch.optim they leave the constraint that is here; a pickle of that edition has none."""
    fixture = torch.load(Path(__file__).parent / "fixtures" / "first_edition.pt", weights_only=True)["padam-default"]
    torchs = parameters([tuple(param.shape) for param in fixture["params"]])
    adam = torch.optim.Adam(torchs, amsgrad=True)
    train(adam, 2)
    for checkpoint in (fixture["checkpoint"], adam.state_dict()):
        params = [param.clone() for param in fixture["params"]]
        optimizer = Padam(params, constraint=Box(-0.5, 0.5))
        optimizer.load_state_dict(copy.deepcopy(checkpoint))
        assert optimizer.param_groups[0]["constraint"] == Box(-0.5, 0.5)
        train(optimizer, 1, start=4)
        assert max(param.abs().max().item() for param in params) == 0.5
    warm = Padam(torchs, constraint=L2Ball(1.0))
    warm.warm_start(adam)
    assert warm.param_groups[0]["constraint"] == L2Ball(1.0)
    for entries in (warm.defaults, warm.param_groups[0]):
        del entries["constraint"]  # as in a pickle of the first edition
    assert pickle.loads(pickle.dumps(warm)).param_groups[0]["constraint"] is None


def test_checkpoints_bring_their_constraint() -> None:
    """As every hyperparameter it comes from the checkpoint, None too; hooks see it as plain data."""
    seen: list[Any] = []
    sources = [Padam(leaves(), constraint=constraint) for constraint in (Simplex(3.0), None)]
    sources[0].register_state_dict_post_hook(lambda _, it: seen.append(it["param_groups"][0]["constraint"]))
    optimizer = Padam(leaves(), constraint=Box(0, 1))
    for source in sources:
        optimizer.load_state_dict(source.state_dict())
        assert optimizer.param_groups[0]["constraint"] == source.param_groups[0]["constraint"]
    assert seen == [{"set": "Simplex", "total": 3.0, "rows": False}]


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("name", [*SETS, "none"])
def test_distributed_checkpoints(name: str, flat: bool) -> None:
    """torch.distributed.checkpoint takes sets along, and its state-making step moves nothing."""

    def setup() -> tuple[nn.Module, Padam]:
        model = nn.Linear(4, 3).double()
        model.weight.data.copy_(SETS.get(name, Box(-1, 1)).project(parameters([SHAPE])[0].detach(), torch.ones(SHAPE)))
        groups = [{"params": [model.weight], "constraint": SETS.get(name)}, {"params": [model.bias]}]
        return model, Padam(groups, lr=0.05)

    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = setup()
    train(optimizer, 3)
    checkpoint = get_optimizer_state_dict(model, optimizer, options=options)
    twin, resumed = setup()
    twin.load_state_dict(model.state_dict())
    set_optimizer_state_dict(twin, resumed, on_disk(checkpoint), options=options)
    same(values(twin.parameters()), values(model.parameters()), "making state has moved a parameter")
    assert alike(resumed.param_groups[0]["constraint"], SETS.get(name))
    train(optimizer, 3, start=3)
    train(resumed, 3, start=3)
    same(contents(resumed), contents(optimizer), "training resumed from a distributed checkpoint differs")


# -- in training


@pytest.mark.parametrize("p", [0.0, 1 / 8, 1 / 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "mode"), IN_MODES)
def test_what_is_in_the_set_rests(name: str, mode: dict[str, Any], dtype: torch.dtype, p: float) -> None:
    """Zero gradients and lr 0 leave a feasible parameter as it is to the bit, at first and after fifty real steps."""
    (param,) = leaves(dtype=dtype)
    param.copy_(SETS[name].project(param, torch.ones_like(param)))
    optimizer = Padam([param], lr=0.0, partial=p, constraint=SETS[name], **mode)
    for steps in (0, 50):
        optimizer.param_groups[0]["lr"] = 0.1
        train(optimizer, steps)
        optimizer.param_groups[0]["lr"] = 0.0
        before = param.detach().clone()
        for _ in range(2):
            train(optimizer, 1, factor=0.0)
            assert torch.equal(param, before)
            assert torch.equal(param.signbit(), before.signbit())


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_groups(mode: dict[str, Any]) -> None:
    """Every group has its set, or none, or one that comes later and goes again; others do not notice."""
    first, second, third = leaves((3, 4), (3, 4), (3, 4))
    coupled = Box(-2, 2) if mode.get("fused") else L2Ball(1.0)
    groups = [{"params": [first], "constraint": Box(-0.5, 0.5)}, {"params": [second]}, {"params": [third]}]
    optimizer = Padam(groups, lr=0.3, partial=0.0, **mode)
    twins = leaves((3, 4), (3, 4), (3, 4))
    reference = Padam([{"params": [twin]} for twin in twins], lr=0.3, partial=0.0, **mode)
    for step, later in enumerate((None, {"set": "NonNegative"}, coupled, Box(-1, 1), Box(-1.0, 1.0), None)):
        optimizer.param_groups[2]["constraint"] = later
        train(optimizer, 1, start=step)
        train(reference, 1, start=step)
        chosen = (Box(-0.5, 0.5), None, NonNegative() if isinstance(later, dict) else later)
        for twin, constraint in zip(twins, chosen, strict=True):
            if constraint is not None:
                twin.data.copy_(constraint.project(twin.detach(), torch.ones(SHAPE)))
        same(values([first, second, third]), values(twins), f"a group is not in {chosen}", 1e-6)


@pytest.mark.parametrize(("name", "mode"), IN_MODES)
def test_what_happens_to_parameters(name: str, mode: dict[str, Any]) -> None:
    """Without a gradient none is projected; what moves to a group without a set is where it would be without."""
    here, there = leaves((3, 4), (3, 4))
    (twin,) = values([there])
    optimizer = Padam([{"params": [here, there], "constraint": SETS[name]}, {"params": []}], **mode)
    reference = Padam([twin])
    here.grad = gradient(here, 0)
    optimizer.step()
    assert torch.equal(there, twin)
    assert there not in optimizer.state
    assert torch.equal(here, SETS[name].project(here, torch.ones_like(here)))
    optimizer.param_groups[1]["params"].append(optimizer.param_groups[0]["params"].pop())
    here.grad, inside = None, here.detach().clone()
    for step in range(3):
        there.grad, twin.grad = gradient(there, step), gradient(twin, step)
        optimizer.step()
        reference.step()
    assert torch.equal(here, inside)
    same([there.detach()], [twin], "a parameter that has left the set is still in it", 1e-6)


@pytest.mark.parametrize(("name", "mode"), IN_MODES)
def test_other_shapes_and_dtypes(name: str, mode: dict[str, Any]) -> None:
    """A parameter that is resized, once its state is gone, or made bfloat16 is in the set, to its own rounding."""
    (param,) = leaves()
    optimizer = Padam([param], constraint=SETS[name], **mode)
    train(optimizer, 2)
    param.data, param.grad = param.data.bfloat16(), None
    train(optimizer, 2)
    wide = param.double()
    projected = SETS[name].project(wide, torch.ones_like(wide))
    torch.testing.assert_close(wide, projected, rtol=0, atol=4 * torch.finfo(torch.bfloat16).eps)
    if name in ("HalfSpace", "HalfSpace of rows"):
        return
    optimizer.state.clear()
    param.data, param.grad = torch.randn(5, 2, dtype=torch.float64) * 3, None
    train(optimizer, 2)
    torch.testing.assert_close(param, SETS[name].project(param, torch.ones_like(param)), rtol=1e-15, atol=0)


@pytest.mark.parametrize(("name", "mode"), IN_MODES)
def test_closures_and_scalers(name: str, mode: dict[str, Any]) -> None:
    """A closure's gradients count; a step that a GradScaler skips does not project, the next one does."""
    param, reference = Parameter(leaves()[0]), Parameter(leaves()[0])
    if mode.get("differentiable"):
        param, reference = param.detach(), reference.detach()
    optimizers = [Padam([it], constraint=SETS[name], **mode) for it in (param, reference)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))
    for factor in (math.inf, 1.0, 2.0):
        before = param.detach().clone()
        scale = scaler.get_scale()
        param.grad = gradient(param, 0) * factor * scale
        scaler.step(optimizers[0])
        scaler.update()
        if math.isinf(factor):
            assert torch.equal(param, before)
            continue

        def closure(factor: float = factor) -> float:
            reference.grad = gradient(reference, 0) * factor
            return factor

        assert optimizers[1].step(closure) == factor
        same(values([param]), values([reference]), "a scaled step ends elsewhere", 1e-12)


# -- what is refused by name

SHAPES: dict[str, tuple[Constraint, tuple[int, ...], str]] = {
    "rows of a vector": (L2Ball(1.0, rows=True), (4,), r"L2Ball\(radius=1.0, rows=True\): rows=True takes two dim"),
    "a normal of another shape": (
        HalfSpace(torch.ones(3), 1.0),
        (4,),
        r"normal must have the shape \(4,\), got \(3,\)",
    ),
    "nothing that adds up": (Simplex(), (0, 3), "cannot be in Simplex.*: without elements nothing adds up to 1"),
}


@pytest.mark.parametrize("mode", UNFUSED, ids=str)
@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_that_do_not_fit(kind: str, mode: dict[str, Any]) -> None:
    """A parameter that cannot be in its set is a RuntimeError with its name, before any group has moved."""
    constraint, shape, message = SHAPES[kind]
    first, second, third = leaves((5,), (3, 4), shape)
    groups = [
        {"params": [("first", first)]},
        {"params": [("second", second)], "constraint": Box(-0.1, 0.1)},
        {"params": [("third", third)], "constraint": constraint},
    ]
    optimizer = Padam(groups, **mode)
    before = contents(optimizer)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=rf"Padam: parameter 'third', of shape .*{message}"):
            train(optimizer, 1)
        same(contents(optimizer), before, "a refused step has changed something")
        assert not optimizer.state
    optimizer.param_groups[2]["constraint"] = None
    train(optimizer, 1)


@pytest.mark.parametrize("name", COUPLED)
def test_fused(name: str) -> None:
    """fused=True compiles no set that couples elements, says so by its name, and changes nothing."""
    optimizer = Padam([{"params": leaves()}, {"params": leaves(), "constraint": SETS[name]}], fused=True)
    before = contents(optimizer)
    with pytest.raises(RuntimeError, match=f"Padam: fused=True .*{name.split()[0]} must see whole TENSORs; use fore"):
        train(optimizer, 1)
    same(contents(optimizer), before, "a refused step has changed something")
    assert not optimizer.state


@pytest.mark.parametrize("mode", MODES[:3], ids=str)
@pytest.mark.parametrize("name", SETS)
def test_sparse_gradients(name: str, mode: dict[str, Any]) -> None:
    """A set of single elements is kept as with dense gradients; one that couples them is refused by its name."""
    start = SETS[name].project(leaves()[0], torch.ones(SHAPE))
    sparse, dense = start.clone(), start.clone()
    optimizers = [PartialAdagrad([it], lr=0.5, constraint=SETS[name], **mode) for it in (sparse, dense)]
    for row in (1, 2, 1):
        indices, numbers = torch.tensor([[row, row]]), torch.full((2, 4), 0.5 * (-1) ** row, dtype=torch.float64)
        sparse.grad = torch.sparse_coo_tensor(indices, numbers, SHAPE, check_invariants=True)
        dense.grad = sparse.grad.to_dense()
        if name in COUPLED:
            with pytest.raises(RuntimeError, match=rf"(sparse gradients with|fused=True .*) {name.split()[0]}"):
                optimizers[0].step()
            assert torch.equal(sparse, start)
            assert not optimizers[0].state
            continue
        for optimizer in optimizers:
            optimizer.step()
        same([sparse], [dense], "sparse gradients end elsewhere", 1e-12)
