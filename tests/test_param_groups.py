"""param_groups: decay and exponent by the role of a parameter."""

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from family import maker
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import partial_adaptive as pa
from partial_adaptive import Padam, param_groups
from partial_adaptive.param_groups import NORMS, ROLES, vector


class Scaled(nn.Module):
    """A layer with a parameter of its own beside those of its children."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.inner = nn.Linear(3, 3)


def model() -> nn.Sequential:
    layers = OrderedDict(
        conv=nn.Conv2d(3, 4, 3),
        batch=nn.BatchNorm2d(4),
        group=nn.GroupNorm(2, 4),
        layer=nn.LayerNorm(4),
        rms=nn.RMSNorm(4),
        embed=nn.Embedding(5, 4),
        attention=nn.MultiheadAttention(4, 2),
        lstm=nn.LSTM(4, 3),
        scaled=Scaled(),
        head=nn.Linear(4, 2),
    )
    return nn.Sequential(layers)


def settings(groups: list[dict[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """(weight_decay, partial) by the name of the parameter."""
    return {name: (g["weight_decay"], g.get("partial")) for g in groups for name, _ in g["params"]}


def decaying(model: nn.Module, **options: Any) -> set[str]:
    """The names of the parameters that decay."""
    return {name for name, (decay, _) in settings(param_groups(model, weight_decay=0.1, **options)).items() if decay}


class Gain(nn.Module):
    """A parametrization with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, tensor: Tensor) -> Tensor:
        return self.gain * tensor


def module_class(name: str, *bases: type[nn.Module], **shapes: tuple[int, ...]) -> nn.Module:
    """A module of a class of this name, with parameters of these shapes."""

    class Made(*(bases or (nn.Module,))):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            for key, shape in shapes.items():
                self.register_parameter(key, nn.Parameter(torch.ones(shape)))

    Made.__name__ = name
    return Made()


def test_norms_and_biases_do_not_decay() -> None:
    """By the type of the module, not by the shape: a weight of a norm does not decay, an embedding's does."""
    decay = {name: decay for name, (decay, _) in settings(param_groups(model(), weight_decay=0.1)).items()}
    norms = {f"{norm}.weight" for norm in ("batch", "group", "layer", "rms")}
    biases = {name for name in decay if "bias" in name}  # attention has in_proj_bias, the LSTM bias_ih_l0
    assert {name for name, value in decay.items() if value == 0} == norms | biases
    assert decay["scaled.scale"] == decay["embed.weight"] == 0.1


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(3),
        nn.SyncBatchNorm(3),
        nn.LazyBatchNorm2d(),
        nn.InstanceNorm2d(3, affine=True),
        nn.LazyInstanceNorm1d(affine=True),
        nn.GroupNorm(1, 3),
        nn.LayerNorm((2, 3)),
        nn.RMSNorm(3),
        module_class("Statistics", nn.BatchNorm1d, weight=(3,), bias=(3,)),
        module_class("Halves", nn.GroupNorm, weight=(3,), bias=(3,)),
        module_class("Root", nn.RMSNorm, weight=(3,)),
        module_class("RMSNorm", scale=(3,)),
        module_class("LlamaRMSNorm", weight=(3,)),
        module_class("FusedLayerNorm", weight=(3,), shift=(3,)),
        module_class("T5LayerNormalization", gamma=(3,)),
        module_class("LayerNorm2d", nn.LayerNorm, weight=(3,), bias=(3,)),
        module_class("LayerNorm2d", weight=(1, 3, 1, 1)),
        module_class("BatchNormAct2d", weight=(3,), slope=(1,)),
        module_class("batchnorm", weight=(3,)),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_kinds_of_norms(norm: nn.Module) -> None:
    """All of torch's, those not yet initialised too, and those of other libraries, by the name of their class."""
    assert list(norm.parameters())
    assert decaying(nn.Sequential(norm)) == set()


@pytest.mark.parametrize(
    ("layer", "decays"),
    [
        (module_class("LayerNormLinear", layer_norm_weight=(3,), weight=(4, 3), bias=(4,)), {"weight"}),
        (module_class("NormalPosterior", mean=(3,)), {"mean"}),
        (module_class("NormedLinear", weight=(1, 3)), {"weight"}),
        (module_class("ConvNorm", weight=(4, 3, 1, 1)), {"weight"}),
        (nn.Linear(3, 1), {"weight"}),
        (nn.LazyLinear(3), {"weight"}),
        (nn.PReLU(), {"weight"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_norm_decays(layer: nn.Module, decays: set[str]) -> None:
    """Matrices of modules that contain a norm, words that only begin like one, and vectors of other layers."""
    assert decaying(layer) == decays


def parametrized(tensor: str, parametrization: Callable[[], nn.Module], layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, tensor, parametrization())


@pytest.mark.parametrize(
    ("make", "decays"),
    [
        (lambda: parametrized("bias", nn.Identity, nn.Linear(3, 3)), {"0.weight"}),
        (lambda: parametrized("bias", Gain, nn.Linear(3, 3)), {"0.weight"}),
        (lambda: parametrized("weight", nn.Identity, nn.LayerNorm(3)), set()),
        (lambda: parametrized("weight", Gain, nn.BatchNorm1d(3)), set()),
        (lambda: parametrized("weight", nn.Identity, module_class("LlamaRMSNorm", weight=(3,))), set()),
        (
            lambda: parametrized("weight", Gain, nn.Linear(3, 3)),
            {"0.parametrizations.weight.original", "0.parametrizations.weight.0.gain"},
        ),
        (
            lambda: parametrized("weight", Gain, parametrized("bias", Gain, nn.Linear(3, 3))),
            {"0.parametrizations.weight.original", "0.parametrizations.weight.0.gain"},
        ),
        (
            lambda: parametrizations.weight_norm(nn.Linear(3, 3)),
            {"0.parametrizations.weight.original0", "0.parametrizations.weight.original1"},
        ),
        (lambda: parametrizations.weight_norm(nn.LayerNorm(3)), set()),
        (lambda: parametrizations.weight_norm(nn.Linear(3, 3), "bias"), {"0.weight"}),
        (lambda: parametrizations.spectral_norm(nn.Linear(3, 3)), {"0.parametrizations.weight.original"}),
        (lambda: parametrizations.orthogonal(nn.Linear(3, 3)), {"0.parametrizations.weight.original"}),
        (lambda: weight_norm(nn.Linear(3, 3)), {"0.weight_g", "0.weight_v"}),
        (lambda: weight_norm(nn.Linear(3, 3), "bias"), {"0.weight"}),
        (lambda: weight_norm(nn.LayerNorm(3)), set()),
        (lambda: spectral_norm(nn.Linear(3, 3)), {"0.weight_orig"}),
        (lambda: prune.identity(nn.Linear(3, 3), "bias"), {"0.weight"}),
    ],
)
def test_parametrizations(make: Callable[[], nn.Module], decays: set[str]) -> None:
    """What a parametrization keeps counts as the tensor that is made of it, in new style and old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old weight_norm is deprecated
        net = nn.Sequential(make())
    assert decaying(net) == decays
    assert set(settings(param_groups(net, weight_decay=0.1))) == {name for name, _ in net.named_parameters()}


def test_parametrized_model_itself() -> None:
    """A layer without a parent, whose names have no prefix, and an exponent by the type and the name of the owner."""
    layer = parametrized("bias", nn.Identity, nn.Linear(3, 3))
    assert settings(param_groups(layer, weight_decay=0.1, partial={nn.Linear: 0.25})) == {
        "weight": (0.1, 0.25),
        "parametrizations.bias.original": (0.0, 0.25),
    }
    named = settings(param_groups(layer, weight_decay=0.1, partial={"bias": 0.5}))
    assert named["parametrizations.bias.original"] == (0.0, 0.5)
    assert named["weight"] == (0.1, None)


def test_parametrizations_by_type_and_name() -> None:
    """Types select a parametrization's own parameters, too, and patterns its full names."""
    net = nn.Sequential(parametrized("weight", Gain, nn.Linear(3, 3)))
    original, gain = "0.parametrizations.weight.original", "0.parametrizations.weight.0.gain"
    assert decaying(net, no_decay=(Gain,)) == {original}
    assert decaying(net, no_decay=("*.gain",)) == {original}
    assert decaying(net, no_decay=("0.weight",)) == set()
    assert decaying(net) == {original, gain}


def test_parametrization_in_a_parametrization() -> None:
    """The tensor that the model uses decides."""
    net = parametrized("bias", lambda: parametrized("gain", Gain, Gain()), nn.Linear(3, 3))
    assert decaying(net) == {"weight"}


def test_sorting_leaves_the_model_alone() -> None:
    """Parametrizations are not evaluated: spectral norm would take an iteration, dropout a random number."""
    net = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(4, 4)), parametrized("weight", nn.Dropout, nn.Linear(4, 4))
    )
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    param_groups(net, weight_decay=0.1, no_decay=(*NORMS, vector))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_every_parameter_once() -> None:
    """Nothing is lost, and tied weights are one parameter."""
    tied = model()
    tied.extra = nn.Linear(4, 2)
    tied.extra.weight = tied.head.weight
    groups = param_groups(tied, weight_decay=0.1, partial={nn.Conv2d: 0.25, nn.Linear: 0.0})
    params = [param for group in groups for _, param in group["params"]]
    assert len(params) == len(set(params))
    assert set(params) == set(tied.parameters())
    assert all(group["params"] for group in groups)


def test_tied_parameters_are_what_they_are_first() -> None:
    """A bias of one module that is a tensor of another, too, is sorted by its first place, as its name is."""
    bias = nn.Parameter(torch.zeros(3))
    first = module_class("Head", shift=(3,))
    first.shift = bias
    second = nn.Linear(3, 3)
    second.bias = bias
    assert decaying(nn.Sequential(first, second)) == {"0.shift", "1.weight"}
    assert decaying(nn.Sequential(second, first)) == {"0.weight"}


def by_role(net: nn.Module) -> dict[str, set[str]]:
    """The names of the parameters of each role."""
    found: dict[str, set[str]] = {}
    for role in ROLES:
        others = {name: {"role": "another"} for name in ROLES if name != role}
        for group in param_groups(net, weight_decay=0.1, overrides={role: {"role": role}, **others}):
            if group["role"] == role:
                found.setdefault(role, set()).update(name for name, _ in group["params"])
    return found


def test_roles() -> None:
    """Every parameter has one role, by what it is and not by its shape."""
    net = model()
    found = by_role(net)
    assert sorted(name for names in found.values() for name in names) == sorted(dict(net.named_parameters()))
    assert found["embeddings"] == {"embed.weight"}
    assert found["norms"] == {f"{norm}.weight" for norm in ("batch", "group", "layer", "rms")}
    assert found["heads"] == {"head.weight"}
    assert found["others"] == {"scaled.scale"}
    assert {"conv.weight", "attention.in_proj_weight", "lstm.weight_hh_l0", "scaled.inner.weight"} <= found["matrices"]
    assert {"head.bias", "batch.bias", "attention.in_proj_bias", "lstm.bias_hh_l0"} <= found["biases"]


@pytest.mark.parametrize(
    ("net", "heads"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), {"2.weight"}),
        (nn.Sequential(OrderedDict(lm_head=nn.Linear(2, 3), body=nn.Linear(3, 2))), {"lm_head.weight", "body.weight"}),
        (
            nn.Sequential(OrderedDict(heads=nn.Sequential(nn.Linear(2, 3)), end=nn.LayerNorm(3))),
            {"heads.0.weight"},
        ),
        (nn.Sequential(OrderedDict(multihead=nn.Linear(2, 3), out=nn.Linear(3, 2))), {"out.weight"}),
        (
            nn.Sequential(nn.Linear(2, 3), parametrizations.weight_norm(nn.Linear(3, 2))),
            {"1.parametrizations.weight.original0", "1.parametrizations.weight.original1"},
        ),
        (nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), {"0.weight"}),
        (nn.Sequential(nn.LayerNorm(3)), set()),
    ],
    ids=["last", "by name", "by the module's name", "not a part of a word", "parametrized", "before a norm", "none"],
)
def test_heads(net: nn.Module, heads: set[str]) -> None:
    """The last matrix is a head, with all that it is made of, and so is what is called one."""
    assert by_role(net).get("heads", set()) == heads


def test_a_tied_head_is_an_embedding() -> None:
    """Where the output uses the embedding's matrix no other matrix becomes the head in its place."""
    embedding, hidden, output = nn.Embedding(5, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 5, bias=False)
    output.weight = embedding.weight
    assert by_role(nn.Sequential(embedding, hidden, output)) == {"embeddings": {"0.weight"}, "matrices": {"1.weight"}}


def test_overrides() -> None:
    """Roles, types and patterns name entries of the groups; the first that matches decides, and wins over the rest."""
    overrides = {
        "head.*": {"partial": 0.0, "weight_decay": 0.01},
        nn.Conv2d: {"lr_factor": 0.5},
        "matrices": {"member": "partial_muon", "lr_factor": 2.0},
    }
    groups = param_groups(model(), weight_decay=0.1, partial=0.25, lr=0.1, overrides=overrides)
    found = {name: {k: v for k, v in group.items() if k != "params"} for group in groups for name, _ in group["params"]}
    assert found["head.weight"] == found["head.bias"] == {"lr": 0.1, "partial": 0.0, "weight_decay": 0.01}
    assert found["conv.weight"] == {"lr": 0.05, "partial": 0.25, "weight_decay": 0.1}
    assert found["conv.bias"] == {"lr": 0.05, "partial": 0.25, "weight_decay": 0.0}
    muon = {"lr": 0.2, "partial": 0.25, "weight_decay": 0.1, "member": "partial_muon"}
    assert found["scaled.inner.weight"] == found["attention.in_proj_weight"] == muon
    assert found["embed.weight"] == {"lr": 0.1, "partial": 0.25, "weight_decay": 0.1}
    optimizer = Padam(groups)
    assert {optimizer.recipe_of(group).owner for group in optimizer.param_groups} == {"Padam", "PartialMuon"}


def test_verbose_prints_what_went_where(capsys: pytest.CaptureFixture[str]) -> None:
    """Every group with its member, numbers, size and names; the same for the groups of an optimizer."""
    net = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.LazyLinear(2), nn.Linear(2, 3))
    overrides = {"matrices": {"member": "partial_muon"}}
    groups = param_groups(net, weight_decay=0.1, lr=0.5, overrides=overrides, verbose=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed == pa.describe_groups(groups).splitlines()
    assert printed[0].split() == ["group", "member", "lr", "partial", "weight_decay", "tensors", "numbers", "names"]
    assert printed[1].split() == ["0", "-", "0.5", "-", "0.1", "2", "12", "0.weight,", "3.weight"]
    assert printed[2].split() == ["1", "partial_muon", "0.5", "-", "0.1", "2", "4", "1.weight,", "2.weight"]
    optimizer = Padam(groups[:1])
    assert pa.describe_groups(optimizer.param_groups).splitlines()[1].split()[:4] == ["0", "-", "0.5", "0.125"]
    many = {"params": [(f"layers.{i}.weight", torch.ones(1)) for i in range(100)]}
    assert pa.describe_groups([many]).endswith("layers.3.weight and 96 more")
    assert pa.describe_groups([{"params": [torch.ones(2)]}]).endswith("number 0")


def test_frozen_parameters_are_sorted_as_others() -> None:
    """They may be thawed later, and the optimizer passes over them until they have gradients."""
    net = model()
    expected = settings(param_groups(net, weight_decay=0.1))
    net.requires_grad_(False)
    assert settings(param_groups(net, weight_decay=0.1)) == expected


def test_exponent_by_layer_type() -> None:
    """The first type that matches decides, subclasses included, `nn.Module` stands for all others."""
    by_type = {nn.Conv2d: 0.25, nn.modules.batchnorm._NormBase: 0.5, nn.Module: 0.0}
    found = settings(param_groups(model(), weight_decay=0.1, partial=by_type))
    assert found["conv.weight"] == (0.1, 0.25)
    assert found["conv.bias"] == (0.0, 0.25)
    assert found["batch.weight"] == (0.0, 0.5)
    assert found["head.weight"] == (0.1, 0.0)


def test_exponent_by_name() -> None:
    """Patterns go with types, the first that matches decides, and None is the optimizer's own."""
    by_kind = {"*.bias": 0.5, "scaled.*": None, nn.Linear: 0.25, nn.Module: 0.0}
    found = {name: p for name, (_, p) in settings(param_groups(model(), weight_decay=0.1, partial=by_kind)).items()}
    assert found["head.bias"] == found["scaled.inner.bias"] == 0.5
    assert found["scaled.scale"] is found["scaled.inner.weight"] is None
    assert found["head.weight"] == 0.25
    assert found["conv.weight"] == 0.0


def test_one_exponent_for_all() -> None:
    """A number is for every group; without one the optimizer's own holds."""
    assert {p for _, p in settings(param_groups(model(), weight_decay=0.1, partial=0.3)).values()} == {0.3}
    optimizer = Padam(param_groups(model(), weight_decay=0.1), partial=0.4)
    assert {group["partial"] for group in optimizer.param_groups} == {0.4}


def test_no_decay_by_type() -> None:
    """Types of one's own can be spared from decay, whose children are not."""
    found = settings(param_groups(model(), weight_decay=0.1, no_decay=(Scaled,)))
    assert found["scaled.scale"][0] == 0.0
    assert found["scaled.inner.weight"][0] == 0.1
    assert found["layer.weight"][0] == 0.1


def test_no_decay_by_name_and_function() -> None:
    """Patterns and functions go with types, in the place of the default or beside it; biases never decay."""
    everything = decaying(model())
    assert decaying(model(), no_decay=(*NORMS, "embed.*", "scaled.sc*")) == everything - {
        "embed.weight",
        "scaled.scale",
    }
    assert decaying(model(), no_decay=(*NORMS, vector)) == everything - {"scaled.scale"}
    assert decaying(nn.LazyLinear(3), no_decay=(vector,)) == {"weight"}
    norms = {f"{norm}.weight" for norm in ("batch", "group", "layer", "rms")}
    assert decaying(model(), no_decay=()) == everything | norms
    assert decaying(model(), no_decay=[lambda module, param: isinstance(module, nn.LSTM) and param.shape[1] == 3]) == (
        everything | norms
    ) - {"lstm.weight_hh_l0"}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model": iter([])}, TypeError, ("model must be a torch.nn.Module", "list_iterator")),
        ({"model": nn.Linear}, TypeError, ("model must be a torch.nn.Module", "Linear")),
        *(({"weight_decay": x}, ValueError, ("weight_decay", "≥ 0", repr(x))) for x in (-0.1, math.nan, math.inf)),
        *(({"weight_decay": x}, TypeError, ("weight_decay", "≥ 0", repr(x))) for x in (None, "0.1")),
        *(({"partial": x}, ValueError, ("partial", "[0, 1]", repr(x))) for x in (-0.1, 1.01, math.nan)),
        ({"partial": torch.tensor(1.7)}, ValueError, ("partial", "[0, 1]", "tensor(1.7000)")),
        ({"partial": "0.1"}, TypeError, ("partial", "[0, 1]", "'0.1'")),
        ({"partial": {nn.Conv2d: 1.7}}, ValueError, ("partial", "[0, 1]", "1.7")),
        ({"partial": {int: 0.1}}, TypeError, ("partial", "types of modules", "<class 'int'>")),
        ({"partial": {nn.Linear(1, 1): 0.1}}, TypeError, ("partial", "types of modules", "Linear(")),
        ({"partial": {"Linear": 0.1}}, ValueError, ("partial", "match the name of a parameter", "'Linear'")),
        ({"no_decay": ("*.pos_embed",)}, ValueError, ("no_decay", "match the name of a parameter", "'*.pos_embed'")),
        ({"no_decay": "*.weight"}, TypeError, ("no_decay", "a tuple of", "'*.weight'")),
        ({"no_decay": nn.LayerNorm}, TypeError, ("no_decay", "a tuple of", "LayerNorm")),
        ({"no_decay": (nn.LayerNorm, dict)}, TypeError, ("no_decay", "types of modules", "<class 'dict'>")),
        ({"no_decay": (nn.LayerNorm(3),)}, TypeError, ("no_decay", "types of modules", "LayerNorm((3,)")),
        ({"no_decay": (0.1,)}, TypeError, ("no_decay", "types of modules", "0.1")),
        ({"lr": -0.1}, ValueError, ("lr", "≥ 0", "-0.1")),
        ({"lr": "0.1"}, TypeError, ("lr", "≥ 0", "'0.1'")),
        ({"overrides": {"matrices": 0.1}}, TypeError, ("overrides", "entries of param groups", "0.1")),
        ({"overrides": ["matrices"]}, TypeError, ("overrides", "entries of param groups", "['matrices']")),
        ({"overrides": {int: {}}}, TypeError, ("overrides", "entries of param groups", "<class 'int'>")),
        ({"overrides": {"matrix": {}}}, ValueError, ("overrides", "be one of matrices, ", "'matrix'")),
        ({"overrides": {"heads": {"params": []}}}, ValueError, ("overrides['heads']", "'params'", "[]")),
        ({"overrides": {"heads": {"lr_factor": 2.0}}}, ValueError, ("lr", "lr_factor", "None")),
        ({"lr": 0.1, "overrides": {"heads": {"lr_factor": -2.0}}}, ValueError, ("lr_factor", "≥ 0", "-2.0")),
        ({"lr": 0.1, "overrides": {"heads": {"lr_factor": 2.0, "lr": 1.0}}}, ValueError, ("lr or lr_factor", "1.0")),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else next(iter(value)),
)
def test_bad_input(options: dict[str, Any], error: type[Exception], words: tuple[str, ...]) -> None:
    """The error names the argument, what is allowed and the value."""
    with pytest.raises(error) as info:
        param_groups(**{"model": model(), "weight_decay": 0.1, **options})
    for word in words:
        assert word in str(info.value)


def test_ends_of_the_ranges() -> None:
    """They are in them, and numbers of other libraries are numbers."""
    numbers = {nn.Linear: 0, nn.Conv2d: 0.5, nn.Module: torch.tensor(0.25)}
    assert len(param_groups(model(), weight_decay=0, partial=numbers)) == 3
    numpy = pytest.importorskip("numpy")
    assert param_groups(model(), weight_decay=numpy.float32(0.1), partial=numpy.float64(0.25))


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_for_every_member(name: str) -> None:
    """The groups, named as they are, are what every member takes, and training goes by them."""
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    optimizer = maker(name)(param_groups(net, weight_decay=0.1, partial={nn.LayerNorm: 0.0}))
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
    own = optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).second_moment.slots
    assert not any(optimizer.state[net[1].weight][name].numel() for name in own), "at p = 0 nothing is kept"
    assert all("param_names" in group for group in optimizer.state_dict()["param_groups"])
