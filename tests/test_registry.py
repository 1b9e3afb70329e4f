"""The family as data, and its signatures: torch's own keywords in torch's own order, plus what is ours."""

import inspect
import re
from typing import Unpack, get_type_hints

import pytest
import torch
from family import maker

import partial_adaptive as pa
from partial_adaptive.rules.hyperparameters import COMMON
from partial_adaptive.rules.options import Options
from partial_adaptive.rules.second_moments import Estimator
from partial_adaptive.testing.harness import parameters, train

NOT_TORCH = {"partial", "bias_correction", "decoupled_weight_decay", "state_dtype", "mean", "fused", "foreach"}
NOT_TORCH |= {"beyond_half", "constraint"}
NAMES = list(pa.MEMBERS)
COUNTERPARTS = [member for member in pa.MEMBERS.values() if member.counterpart]


def arguments(optimizer: type) -> dict[str, inspect.Parameter]:
    """What an optimizer takes by name, besides the options that all of the family take."""
    found = inspect.signature(optimizer).parameters.items()
    return {name: argument for name, argument in found if argument.kind is not inspect.Parameter.VAR_KEYWORD}


def test_members_are_the_public_classes() -> None:
    """Every public optimizer is registered once, under its own class."""
    classes = [member.cls for member in pa.MEMBERS.values()]
    public = [getattr(pa, name) for name in pa.__all__]
    family = [
        it
        for it in public
        if isinstance(it, type)
        and issubclass(it, pa.PartialAdaptiveOptimizer)
        and it is not pa.PartialAdaptiveOptimizer
    ]
    assert sorted(classes, key=repr) == sorted(family, key=repr)
    assert all(pa.MEMBERS[name].name == name for name in NAMES)


def test_public_names_exist() -> None:
    """`__all__` holds what can be imported, sorted by the linter."""
    assert all(hasattr(pa, name) for name in pa.__all__)
    assert isinstance(pa.__version__, str)


def test_the_registry_is_read_only() -> None:
    """Data that documentation, tests and benchmark share cannot be changed by accident."""
    with pytest.raises(TypeError):
        pa.MEMBERS["mine"] = pa.MEMBERS["padam"]


@pytest.mark.parametrize("member", COUNTERPARTS, ids=lambda member: member.name)
def test_signature_has_torch_keywords(member: pa.Member) -> None:
    """Every keyword of the counterpart but `fused` is there: a call written for torch.optim runs unchanged."""
    theirs, ours = arguments(member.counterpart).keys(), arguments(member.cls).keys()
    amsgrad = {"amsgrad"} if member.name == "partial_adam" else set()
    assert theirs - ours - {"fused"} == amsgrad
    assert ours - theirs <= NOT_TORCH | {"maximize", "capturable", "differentiable"}


@pytest.mark.parametrize("member", COUNTERPARTS, ids=lambda member: member.name)
def test_positional_order_is_torch(member: pa.Member) -> None:
    """What torch takes by position is taken by the same position, as far as ours are positional at all."""
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    theirs = [name for name, argument in arguments(member.counterpart).items() if argument.kind is positional]
    ours = [name for name, argument in arguments(member.cls).items() if argument.kind is positional]
    shared = min(len(theirs), len(ours))
    assert ours[:shared] == theirs[:shared]
    assert "lr" in ours[:shared]


def test_authors_positional_call() -> None:
    """Padam(params, lr, betas, eps, weight_decay, amsgrad, partial), as in the authors' file, runs unchanged."""
    optimizer = pa.Padam(parameters(), 0.1, (0.9, 0.999), 1e-8, 5e-4, True, 1 / 4)
    group = optimizer.param_groups[0]
    assert (group["weight_decay"], group["amsgrad"], group["partial"]) == (5e-4, True, 1 / 4)
    train(optimizer)


def test_padam_defaults() -> None:
    """The defaults of the paper's optimizer are part of the interface."""
    defaults = {name: argument.default for name, argument in arguments(pa.Padam).items()}
    expected = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": True, "partial": 1 / 8}
    assert expected.items() <= defaults.items()
    assert defaults["bias_correction"] == "consistent"


@pytest.mark.parametrize("name", NAMES)
def test_explicit_signature(name: str) -> None:
    """No `*args`, of `**kwargs` only the typed `Options`; all are typed, common ones alike; `partial` is 1/8."""
    signature = inspect.signature(pa.MEMBERS[name].cls).parameters.values()
    assert inspect.Parameter.VAR_POSITIONAL not in {argument.kind for argument in signature}
    assert [a.annotation for a in signature if a.kind is inspect.Parameter.VAR_KEYWORD] == [Unpack[Options]]
    hints = get_type_hints(pa.MEMBERS[name].cls.__init__)
    assert hints.keys() - {"return", "options"} == arguments(pa.MEMBERS[name].cls).keys()
    assert arguments(pa.MEMBERS[name].cls)["partial"].default == 1 / 8
    adam = get_type_hints(pa.PartialAdam.__init__)
    assert {k: hints[k] for k in COMMON if k in hints} == {k: adam[k] for k in COMMON if k in hints}


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_the_param_group(name: str) -> None:
    """Every argument but params is an entry of the param group; without a metric there is no constraint."""
    optimizer = maker(name)(parameters())
    (second_moment, *_) = optimizer.recipe.second_moment.alternatives
    inapplicable = set() if isinstance(second_moment, Estimator) else {"constraint"}
    given = arguments(pa.MEMBERS[name].cls).keys() | Options.__optional_keys__
    assert given - {"params"} == optimizer.defaults.keys() - inapplicable
    train(optimizer)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_is_complete(name: str) -> None:
    """Each has a formula, an example that runs, a reference, and a line for every argument with its default."""
    cls = pa.MEMBERS[name].cls
    documentation = inspect.getdoc(cls) or ""
    for argument in (*arguments(cls), "**options"):
        assert f"\n    {argument}: " in documentation, f"{argument} is not documented"
    for part in ("θ ←", "Args:", "Raises:", "Example:", ">>> "):
        assert part in documentation
    assert re.search(r"\b(19|20)\d\d\b", pa.MEMBERS[name].reference) or name == "padam"
    assert pa.MEMBERS[name].description


@pytest.mark.parametrize("name", NAMES)
def test_step_is_never_overridden(name: str) -> None:
    """There is one step. (torch puts a wrapper of it into each class, which knows what it wraps.)"""
    step = vars(pa.MEMBERS[name].cls).get("step")
    assert step is None or inspect.unwrap(step).__qualname__ == "PartialAdaptiveOptimizer.step"


@pytest.mark.parametrize("base_first", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_hooks_fire_once_in_any_order_of_instantiation(name: str, base_first: bool) -> None:
    """Torch patches `step` when a class is first instantiated; whichever comes first, hooks fire once."""
    (member,) = (pa.MEMBERS[name].cls,)
    base = type("Base", (member,), {})
    derived = type("Derived", (base,), {})
    order = (base, derived) if base_first else (derived, base)
    optimizers = {cls: cls(parameters(), **pa.MEMBERS[name].options) for cls in order}
    for optimizer in optimizers.values():
        fired: list[str] = []
        optimizer.register_step_pre_hook(lambda *_, fired=fired: fired.append("pre"))
        optimizer.register_step_post_hook(lambda *_, fired=fired: fired.append("post"))
        train(optimizer, 1)
        assert fired == ["pre", "post"]


def test_create_passes_on() -> None:
    """`create` makes the class with what it is given."""
    optimizer = pa.create("partial_rmsprop", parameters(), alpha=0.5, lr=torch.tensor(0.2))
    assert type(optimizer) is pa.PartialRMSprop
    assert optimizer.param_groups[0]["alpha"] == 0.5
