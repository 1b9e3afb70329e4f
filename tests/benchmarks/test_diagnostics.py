"""Distance from the start, effective steps and the floor of epsilon."""

from typing import Any

import pytest
import torch
from torch import nn

import partial_adaptive
from benchmarks.training import diagnostics, optimizers

MEMBER = {
    "adam": "partial_adam",
    "amsgrad": "padam",
    "adamw": "partial_adam",
    "nadam": "partial_nadam",
    "rmsprop": "partial_rmsprop",
    "adagrad": "partial_adagrad",
    "adamax": "partial_adamax",
    "adadelta": "partial_adadelta",
}
UNKNOWN = ["radam", "muon", "torch.optim:LBFGS"]  # to the family


def _trained(name: str, **hyper: Any) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    """Two parameters after a few steps with gradients of very different size, one of them nearly zero throughout."""
    torch.manual_seed(0)
    params = [nn.Parameter(torch.ones(40)), nn.Parameter(torch.ones(3, 5))]
    optimizer = optimizers.build(name, params, hyper)
    for _ in range(5):
        for p in params:
            p.grad = torch.randn_like(p) * 10.0 ** torch.arange(p.numel()).reshape(p.shape).remainder(5)
            p.grad.flatten()[0] = 0
        optimizer.step()
    return params, optimizer


def test_distance_is_over_all_parameters() -> None:
    """The Euclidean norm of the difference of all parameters as one vector."""
    assert diagnostics.distance([torch.ones(3), torch.zeros(2)], [torch.zeros(3), torch.ones(2)]) == pytest.approx(
        5**0.5
    )


@pytest.mark.parametrize(
    ("name", "hyper"), [("sgd", {}), ("sgd_nesterov", {"momentum": 0.9}), ("padam", {"partial": 0.0})]
)
def test_unscaled_steps_are_the_learning_rate(name: str, hyper: dict[str, Any]) -> None:
    """Where nothing divides the step every quantile is exactly the learning rate, and there is no floor."""
    sizes = diagnostics.step_sizes(_trained(name, lr=0.1, **hyper)[1])
    assert sizes == (dict.fromkeys(diagnostics.QUANTILES, 0.1), None)


def test_rates_of_groups_count_by_their_coordinates() -> None:
    """Where groups have rates of their own, a quantile is that of the coordinates that move by it."""
    groups = [{"params": [torch.ones(10)], "lr": 1.0}, {"params": [torch.ones(30)], "lr": 0.1}]
    steps, _ = diagnostics.step_sizes(optimizers.build("sgd", groups, {}))
    assert steps == {"q01": 0.1, "q25": 0.1, "q50": 0.1, "q75": 0.1, "q99": 1.0}


def test_quantiles_and_floor_of_padam() -> None:
    """The quantiles are those of lr / s^(2p) over all coordinates; those without gradient are at the floor."""
    params, optimizer = _trained("padam", lr=0.1, partial=0.125)
    assert isinstance(optimizer, partial_adaptive.PartialAdaptiveOptimizer)
    scales = torch.cat([s.flatten() for p in params if (s := optimizer.scale_of(p)) is not None])
    steps, share = diagnostics.step_sizes(optimizer)
    expected = torch.quantile(0.1 / scales**0.25, torch.tensor(list(diagnostics.QUANTILES.values())))
    torch.testing.assert_close(torch.tensor(list(steps.values())), expected)
    assert share == pytest.approx(2 / 55)


@pytest.mark.parametrize("name", partial_adaptive.MEMBERS)
def test_every_member_can_be_looked_at(name: str) -> None:
    """Whatever a member's ε is, and whether it has a scale at all, an epoch's record can be written."""
    hyper = optimizers.resolve(name, "default", {}, batch_size=1, examples=1, epochs=1)
    steps, share = diagnostics.step_sizes(_trained(name, **hyper)[1])
    assert steps["q01"] <= steps["q99"]
    assert share is None or 0 <= share <= 1


@pytest.mark.parametrize("name", MEMBER)
def test_baselines_are_read_as_their_member(name: str) -> None:
    """Torch's optimizer has the quantiles of the member that it equals at p = 1/2, and its state is not changed."""
    eps = 1e-6 if name == "adadelta" else 1e-8
    _, ours = _trained(name, lr=0.01, eps=eps)
    before = [x.clone() for entry in ours.state.values() for x in entry.values()]
    steps, share = diagnostics.step_sizes(ours)
    theirs = diagnostics.step_sizes(_trained(MEMBER[name], lr=0.01, partial=0.5, eps=eps)[1])
    assert steps == pytest.approx(theirs[0], rel=1e-5)
    assert share == theirs[1]
    after = [x for entry in ours.state.values() for x in entry.values()]
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("name", UNKNOWN)
def test_of_other_optimizers_nothing_is_claimed(name: str) -> None:
    """What divides the step of an optimizer that the family does not know is not made up, and no error either."""
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("torch has Muon from 2.9 on")
    assert diagnostics.step_sizes(optimizers.build(name, [torch.ones(3, 2)], {"lr": 0.1})) == ({}, None)


def test_every_baseline_is_accounted_for() -> None:
    """A new baseline is read as a member, has its learning rate for a step, or is known to be unknown."""
    baselines = {name for name, entry in optimizers.REGISTRY.items() if not entry.family}
    assert baselines == {*MEMBER, "sgd", "sgd_nesterov", *UNKNOWN} - {"torch.optim:LBFGS"}


def test_large_models_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the sample's size every k-th coordinate is taken, and the quantiles stay close."""
    _, optimizer = _trained("padam", lr=0.1)
    full, _ = diagnostics.step_sizes(optimizer)
    monkeypatch.setattr(diagnostics, "SAMPLE", 20)
    sampled, _ = diagnostics.step_sizes(optimizer)
    assert sampled["q50"] == pytest.approx(full["q50"], rel=0.5)
    assert sampled != full
