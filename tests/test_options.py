"""The options that every member has: each against its formula, in every mode, with any second moment."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from family import ELEMENTWISE, has, in_modes, maker
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive.rules.options import AFTER, BEFORE, OWN, Options
from partial_adaptive.rules.stage import Needs, Switch
from partial_adaptive.testing.harness import MODES, gradient, parameters, same, train, values

LR, DECAY = 0.1, 0.3
SHAPES = [(4, 3), (5,), (2, 3, 2), ()]
STEPS = 4

# What an option makes of a gradient before, or of a direction after: from x, θ, g and its own memory.
Formula = Callable[[Tensor, Tensor, Tensor, dict[str, Tensor]], Tensor]


def rows(x: Tensor) -> Tensor:
    """The norm of every row, of a vector that of the whole."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1).reshape(-1, *[1] * (x.ndim - 1)) if x.ndim > 1 else x.norm()


def rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def normalized(x: Tensor, θ: Tensor, g: Tensor, memory: dict[str, Tensor]) -> Tensor:
    return x / x.norm()


def agc(x: Tensor, θ: Tensor, g: Tensor, memory: dict[str, Tensor]) -> Tensor:
    return torch.where(rows(x) > 0.1 * rows(θ).clamp(min=1e-3), x * (0.1 * rows(θ).clamp(min=1e-3) / rows(x)), x)


def clip_rms(x: Tensor, θ: Tensor, g: Tensor, memory: dict[str, Tensor]) -> Tensor:
    return x if rms(x) <= 0.5 else x * 0.5 / rms(x)


def lamb(x: Tensor, θ: Tensor, g: Tensor, memory: dict[str, Tensor]) -> Tensor:
    return x * θ.norm() / x.norm()


def heavy_ball(x: Tensor, θ: Tensor, g: Tensor, memory: dict[str, Tensor]) -> Tensor:
    memory["b"] = 0.9 * memory.get("b", torch.zeros_like(x)) + x
    return memory["b"]


def nesterov(x: Tensor, θ: Tensor, g: Tensor, memory: dict[str, Tensor]) -> Tensor:
    return x + 0.9 * heavy_ball(x, θ, g, memory)


def cautious(x: Tensor, θ: Tensor, g: Tensor, memory: dict[str, Tensor]) -> Tensor:
    mask = ((x > 0) & (g > 0)) | ((x < 0) & (g < 0))
    return x * mask / mask.double().mean().clamp(min=1e-3)


OF_GRADIENT: dict[str, tuple[dict[str, Any], Formula]] = {
    "normalize_gradient": ({"normalize_gradient": True}, normalized),
    "agc": ({"agc": 0.1}, agc),
}
OF_DIRECTION: dict[str, tuple[dict[str, Any], Formula]] = {
    "clip_rms": ({"clip_rms": 0.5}, clip_rms),
    "trust_ratio": ({"trust_ratio": 1.0}, lamb),
    "momentum_after": ({"momentum_after": 0.9}, heavy_ball),
    "nesterov_after": ({"momentum_after": 0.9, "nesterov_after": True}, nesterov),
    "cautious": ({"cautious": True}, cautious),
}
OF_DECAY: dict[str, dict[str, Any]] = {
    "decoupled": {},
    "corrected": {"peak_lr": 0.5},
    "cautious": {"cautious_weight_decay": True},
    "cautious and corrected": {"cautious_weight_decay": True, "peak_lr": 0.5},
}
CASES = {**OF_GRADIENT, **OF_DIRECTION}


def cases(options: Any) -> list[Any]:
    """Every option with every member, in the modes that both have."""
    return [
        pytest.param(option, *case.values, id=f"{option}-{case.id}")
        for option in options
        for case in in_modes([*pa.MEMBERS])
        if not case.values[1].get("fused") or elementwise(option)
    ]


def elementwise(option: str) -> bool:
    """Whether an option looks at single elements: those of decay do, and of the stages what declares it."""
    stages = {name: part.on for part in (*BEFORE, *AFTER) if isinstance(part, Switch) for name in part.on.own}
    return option not in stages or stages[option].needs is Needs.ELEMENT


def plain(name: str, **options: Any) -> tuple[list[Tensor], pa.PartialAdaptiveOptimizer]:
    """Parameters and a member that has nothing to do with decay."""
    params = values(parameters(SHAPES))
    return params, maker(name)(params, **{"lr": LR, "weight_decay": 0.0, **options})


def stepped(optimizer: pa.PartialAdaptiveOptimizer, params: list[Tensor], grads: list[Tensor]) -> None:
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.clone()
    optimizer.step()


def grads_of(params: list[Tensor], step: int) -> list[Tensor]:
    return [gradient(param, step, i).detach() for i, param in enumerate(params)]


@pytest.mark.parametrize(("option", "name", "mode"), cases(OF_GRADIENT))
def test_of_the_gradient(option: str, name: str, mode: dict[str, Any]) -> None:
    """A member with the option takes the step that it takes without, of the gradient as the formula makes it."""
    options, formula = OF_GRADIENT[option]
    params, optimizer = plain(name, **options, **mode)
    twins, reference = plain(name)
    for step in range(STEPS):
        grads = grads_of(params, step)
        stepped(optimizer, params, grads)
        stepped(reference, twins, [formula(g, θ, g, {}) for g, θ in zip(grads, twins, strict=True)])
    same(params, twins, f"{name} with {option}", 1e-11)


def follows(name: str, options: dict[str, Any], becomes: Formula, tolerance: float) -> None:
    """A member with options goes where it goes without, if each step θ − αx becomes θ − α·becomes(x, θ, g, memory)."""
    params, optimizer = plain(name, **options)
    twins, reference = plain(name)
    memories: list[dict[str, Tensor]] = [{} for _ in twins]
    for step in range(STEPS):
        grads = grads_of(params, step)
        stepped(optimizer, params, grads)
        before = [twin.clone() for twin in twins]
        stepped(reference, twins, grads)
        for twin, θ, g, memory in zip(twins, before, grads, memories, strict=True):
            twin.copy_(θ - LR * becomes((θ - twin) / LR, θ, g, memory))
    same(params, twins, f"{name} with {options}", tolerance)


@pytest.mark.parametrize(("option", "name", "mode"), cases(OF_DIRECTION))
def test_of_the_direction(option: str, name: str, mode: dict[str, Any]) -> None:
    """A member with the option moves by what the formula makes of the step that it would take without."""
    options, formula = OF_DIRECTION[option]
    follows(name, {**options, **mode}, formula, 1e-9)


@pytest.mark.parametrize(("kind", "name", "mode"), cases(OF_DECAY))
def test_of_decay(kind: str, name: str, mode: dict[str, Any]) -> None:
    """Decoupled decay is αλθ, αλθ·α/α* with a peak, and only where the step has the sign of θ if it is cautious."""
    options = {"weight_decay": DECAY, "decoupled_weight_decay": True, **OF_DECAY[kind], **mode}

    def decayed(x: Tensor, θ: Tensor, g: Tensor, memory: dict[str, Tensor]) -> Tensor:
        decay = DECAY * θ * (LR / 0.5 if "peak_lr" in options else 1)
        return x + (decay * (x * θ > 0) if "cautious_weight_decay" in options else decay)

    follows(name, options, decayed, 1e-11)


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_lamb_has_decay_inside(name: str) -> None:
    """With a trust ratio decoupled decay is part of what is scaled: (x + λθ)·‖θ‖/‖x + λθ‖."""
    options = {"trust_ratio": 1.0, "weight_decay": DECAY, "decoupled_weight_decay": True}
    follows(name, options, lambda x, θ, g, memory: lamb(x + DECAY * θ, θ, g, memory), 1e-9)


def test_lars() -> None:
    """SGD with a trust ratio and heavy ball after it is LARS: v = μv + η·‖θ‖/‖g + λθ‖·(g + λθ)."""
    params, optimizer = plain("partial_adagrad", partial=0.0, weight_decay=DECAY, trust_ratio=0.01, momentum_after=0.9)
    twins = values(parameters(SHAPES))
    buffers = [torch.zeros_like(twin) for twin in twins]
    for step in range(STEPS):
        grads = grads_of(params, step)
        stepped(optimizer, params, grads)
        for twin, buffer, g in zip(twins, buffers, grads, strict=True):
            x = g + DECAY * twin
            buffer.mul_(0.9).add_(0.01 * twin.norm() / x.norm() * x)
            twin.sub_(LR * buffer)
    same(params, twins, "LARS", 1e-12)


def test_zeros_stay() -> None:
    """Where a gradient, a direction or a parameter is zero nothing becomes NaN or infinite."""
    for options, _ in CASES.values():
        params = [torch.zeros(2, 2), torch.ones(3)]
        optimizer = pa.PartialAdam(params, lr=LR, **options)
        for _ in range(2):
            for param in params:
                param.grad = torch.zeros_like(param)
            optimizer.step()
        assert torch.equal(params[0], torch.zeros(2, 2))
        assert torch.equal(params[1], torch.ones(3))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_off_by_default(name: str) -> None:
    """With every option off the rule is the member's own: no stage, no slot, and `fused` compiles it."""
    optimizer = maker(name)(parameters())
    (group,) = optimizer.param_groups
    assert {option: group[option] for option in OWN} == {option: entry.default for option, entry in OWN.items()}
    stages = {part.on for part in (*BEFORE, *AFTER) if isinstance(part, Switch)}
    assert not stages & {*optimizer.recipe.rule(group, scaled=True).stages}


def test_options_are_typed() -> None:
    """The keywords that type checkers know are those that the stages declare, and those that concern no stage."""
    others = {"peak_lr", "cautious_weight_decay", "rounding", "rounding_seed", "skip_nonfinite"}
    assert Options.__optional_keys__ == OWN.keys() | others
    assert not Options.__required_keys__


def test_unknown_options_are_refused() -> None:
    """A typo among the options is a TypeError that says what was meant."""
    with pytest.raises(TypeError, match=r"unexpected hyperparameter 'cautius' \(did you mean 'cautious'"):
        pa.PartialAdam([torch.ones(1)], cautius=True)


@pytest.mark.parametrize("option", ["peak_lr", "cautious_weight_decay"])
def test_decay_options_need_decoupled_decay(option: str) -> None:
    """What modifies decoupled decay is refused where decay is coupled, instead of doing nothing."""
    with pytest.raises(ValueError, match=f"PartialAdam: {option} must be .* without decoupled_weight_decay"):
        pa.create("partial_adam", [torch.ones(1)], **{option: OF_DECAY["cautious and corrected"][option]})


@pytest.mark.parametrize("option", [option for option in CASES if not elementwise(option)])
def test_whole_tensors_are_not_fused(option: str) -> None:
    """fused=True with an option that looks at whole tensors names the stage, and nothing has moved."""
    param = torch.ones(3)
    param.grad = torch.ones(3)
    optimizer = pa.PartialAdam([param], fused=True, **CASES[option][0])
    with pytest.raises(RuntimeError, match=r"fused=True compiles rules .* must see whole TENSORs"):
        optimizer.step()
    assert torch.equal(param, torch.ones(3))
    assert not optimizer.state


@pytest.mark.parametrize("mode", [mode for mode in MODES if has("padam", mode)], ids=str)
def test_switched_in_mid_training(mode: dict[str, Any]) -> None:
    """An option that a group gets during training holds from the next step on, and goes away again."""
    params, optimizer = plain("padam", **mode)
    for step in range(3):
        optimizer.param_groups[0]["momentum_after"] = 0.9 if step == 1 else 0.0
        before = [param.clone() for param in params]
        stepped(optimizer, params, grads_of(params, step))
        if step == 1:  # its memory begins with this step: b = x
            assert all("direction_buffer" in state for state in optimizer.state.values())
            moved = [then - now for then, now in zip(before, params, strict=True)]
            kept = [LR * state["direction_buffer"] for state in optimizer.state.values()]
            same(moved, kept, "the buffer is not the step", 1e-12)
    train(optimizer, 1)
