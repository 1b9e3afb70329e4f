"""Random lives of optimizers, followed step by step by NumPy float64.

A Hypothesis state machine for each member drives several optimizers in different modes (loop, foreach, fused,
capturable) with the same operations: hyperparameters, modes and options that change, parameters that come, go, freeze,
grow and move in memory, state that is rebound, cleared or replaced, checkpoints and copies, gradients of every size,
memory layout and kind. After each step every parameter, every state tensor and every count of every optimizer must lie
within the error bound that `reference.py` keeps along with its own, independent values; gradients must be unchanged.

What is compared, in float64 as in float32, is the whole range: ±1e30, ±1e-30, subnormals, infinities, NaN. The
reference knows the library's dtype, so where float32 overflows it does too; `reference.py` says what is right for
numbers that aren't finite. Coordinates that can't show anything any more (NaN, ∞, 1e12) live on for a few steps and
are then written over in place, in all optimizers alike; and where the bounds of a parameter have grown above 1e-9 (in
float32: 1e-3) of its values, they are collapsed: all optimizers get the reference's values, again in place. Otherwise
the reference never looks at the library's values, so errors can't hide in small steps. Each test also asserts that
enough comparisons could fail (usually two thirds, no less than a quarter): that the bound of a coordinate was below a
hundredth of the step that it had taken, although rates, gradients and moments are often 0, tiny, or not finite.

`make test` runs a short version, always the same. The long one of 10,000 steps a member, or one with other seeds:

    FUZZ_STEPS=10000 .venv/bin/python -m pytest tests/test_fuzz.py --numprocesses auto
    FUZZ_STEPS=10000 FUZZ_SEED=7 .venv/bin/python -m pytest tests/test_fuzz.py -k yogi

It prints what it has done with `-rP`. A failure is shrunk by Hypothesis, which takes minutes; FUZZ_SHRINK=0 reports it
as it was found. The last seed that a failing test has printed, a number above a million, goes to that life directly.
"""

import copy
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from reference import FLOAT32, FLOAT64, TRANSCRIPTIONS, Array, Ball, Transcription
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive import MEMBERS, Box, create

STEPS = int(os.environ.get("FUZZ_STEPS", "0"))  # 0: the short version
SEED = int(os.environ.get("FUZZ_SEED", "1"))
SHRINK = os.environ.get("FUZZ_SHRINK", "1") != "0"

FORMS = {torch.float32: FLOAT32, torch.float64: FLOAT64}
LOOSEST = {torch.float32: 1e-3, torch.float64: 1e-9}
PATIENCE = 4  # steps for which a coordinate that shows nothing lives on

Mode = dict[str, Any]
MODES: dict[str, Mode] = {
    "loop": {"foreach": False, "fused": False, "capturable": False},
    "foreach": {"foreach": True, "fused": False, "capturable": False},
    "fused": {"foreach": None, "fused": True, "capturable": False},
    "capturable foreach": {"foreach": True, "fused": False, "capturable": True},
    "capturable loop": {"foreach": False, "fused": False, "capturable": True},
    "capturable fused": {"foreach": False, "fused": True, "capturable": True},
    "default": {"foreach": None, "fused": None, "capturable": False},
}
LANES = ("loop", "foreach", "fused", "capturable foreach")

# Values of every hyperparameter, the first ones the usual. Every exponent that is a short binary fraction, and every
# option, is another program to compile in the modes that compile: the short version makes do with fewer.
EXPONENTS = (0.0, 1 / 8, 0.3) if not STEPS else (0.0, 1 / 8, 0.3, 1 / 2, 1 / 16, 3 / 16, 0.0, 0.07, 0.4999, 1 / 4)
COMMON: dict[str, tuple[Any, ...]] = {
    "lr": (0.1, 1.0, 0.01, 0.0, 0.037),
    "eps": (1e-8, 1e-3, 1e-30, 1e-5, 0.0),
    "weight_decay": (0.0, 0.1, 0.01),
    "decoupled_weight_decay": (False, True),
    "maximize": (False, True) if STEPS else (False,),
    "constraint": (None, Box(-1.5, 1)),
}
BETAS = {"betas": ((0.9, 0.999), (0.5, 0.9), (0.0, 0.99), (0.9, 0.0), (0.99, 0.5))}
CORRECTION = {"bias_correction": ("consistent", "adam", "none")}
OWN: dict[str, dict[str, tuple[Any, ...]]] = {
    "padam": {**BETAS, **CORRECTION, "amsgrad": (True, False)},
    "partial_adam": {**BETAS, **CORRECTION},
    "partial_nadam": {**BETAS, **CORRECTION, "momentum_decay": (4e-3, 0.0, 0.1)},
    "partial_rmsprop": {"alpha": (0.99, 0.5, 0.0, 1.0), "momentum": (0.0, 0.9, 1.1), "centered": (False, True)},
    "partial_adagrad": {
        "lr_decay": (0.0, 0.1),
        "initial_accumulator_value": (0.0, 0.1, 1e-6),
        "mean": (False, True),
    },
    "partial_adamax": {**BETAS, **CORRECTION},
    "partial_adadelta": {"rho": (0.9, 0.5, 0.0, 1.0, 0.99)},
    "partial_adabelief": {**BETAS, **CORRECTION},
    "partial_yogi": {**BETAS, **CORRECTION, "initial_accumulator_value": (1e-6, 0.0, 0.1)},
    "partial_sign": {**BETAS, **CORRECTION},
}

SHAPES = ((3,), (2, 3), (), (1,), (3, 4), (2, 1, 3), (7,), (0,))
KINDS = ("normal", "absent", "zero", "broken", "mixed", "constant", "small", "large", "subnormal", "tiny")
LAYOUTS = ("plain", "kept", "transposed", "strided", "offset", "negative")

# What a step draws: for the parameters in turn a kind of gradient and a layout; a seed; and how often to step.
GRADIENTS = st.fixed_dictionaries(
    {
        "kinds": st.lists(st.sampled_from(("normal",) * 8 + KINDS), min_size=1, max_size=5),
        "layouts": st.lists(st.sampled_from(("plain",) * 4 + LAYOUTS), min_size=1, max_size=3),
        "noise": st.integers(0, 999),
        "count": st.integers(1, 3),
    }
)
WHICH = st.integers(0, 11)  # a group, a parameter, a value: whatever there are of them, taken in turn


def gradient(kind: str, shape: tuple[int, ...], noise: np.random.Generator, dtype: torch.dtype) -> Array | None:
    """A gradient of one kind, or None."""
    normal = noise.standard_normal(shape)
    subnormal = FORMS[dtype].smallest * noise.integers(-99, 99, shape)
    kinds: dict[str, Callable[[], Any]] = {
        "absent": lambda: None,
        "normal": lambda: normal,
        "zero": lambda: 0 * normal,
        "constant": lambda: np.full(shape, 0.37),
        "large": lambda: 1e30 * normal,
        "small": lambda: 1e-30 * normal,
        "tiny": lambda: 1e-4 * normal,
        "subnormal": lambda: subnormal,
        "broken": lambda: np.where(noise.random(shape) < 0.3, noise.choice([np.nan, np.inf, -np.inf], shape), normal),
        "mixed": lambda: noise.choice(
            [0.0, -0.0, 1.0, -1.0, 1e30, -1e30, 1e-30, -1e-30, np.nan, np.inf, -np.inf, FORMS[dtype].smallest], shape
        ),
    }
    made = kinds[kind]()
    return None if made is None else np.asarray(made, dtype=FORMS[dtype].dtype)


def laid_out(values: Tensor, layout: str, before: Tensor | None = None) -> Tensor:
    """A tensor of these values that lies differently in memory.

    Args:
        values: what it holds.
        layout: one of `LAYOUTS`, or "expanded".
        before: for "kept", a tensor to overwrite in place where it fits.
    """
    if layout == "kept" and before is not None and before.shape == values.shape and not before.is_neg():
        return before.copy_(values) if 0 not in before.stride() else values.clone()
    if layout == "transposed" and values.ndim > 1:
        return values.transpose(0, -1).clone(memory_format=torch.contiguous_format).transpose(0, -1)
    if layout == "strided" and values.ndim > 0:
        return torch.stack([values, torch.full_like(values, 77)], -1)[..., 0]
    if layout == "offset":
        return torch.cat([torch.full((3,), 77, dtype=values.dtype), values.reshape(-1)])[3:].view(values.shape)
    if layout == "negative":
        return torch._neg_view(values.neg())
    if layout == "expanded" and values.numel():
        return values.reshape(-1)[0].clone().expand(values.shape)
    return values.clone(memory_format=torch.contiguous_format)


def bits(tensor: Tensor) -> bytes:
    """The contents of a tensor, NaNs included."""
    return tensor.detach().resolve_neg().contiguous().numpy().tobytes()


def resized(values: Array, shape: tuple[int, ...]) -> Array:
    """Cut, or filled up with zeros."""
    flat = np.zeros(int(np.prod(shape)), dtype=values.dtype)
    count = min(flat.size, values.size)
    flat[:count] = values.reshape(-1)[:count]
    return flat.reshape(shape)


class Life(RuleBasedStateMachine):
    """Several optimizers of one member, and the reference that all of them must follow; a subclass says which."""

    member: str
    done: Counter[str]  # what all runs of a subclass have done together

    def __init__(self) -> None:
        super().__init__()
        self.default_dtype = torch.get_default_dtype()
        self.pools = COMMON | {"partial": EXPONENTS} | OWN[self.member]
        self.lanes: list[tuple[str, Any]] = []  # names of the first modes, and the optimizers
        self.groups: list[list[Transcription]] = []  # the reference's parameters, in the order of the optimizers'
        self.hypers: list[dict[str, Any]] = []
        self.blind: dict[Transcription, Array] = {}  # for how many steps coordinates have shown nothing
        self.attic: list[Any] = []  # memory that is out of use stays readable: a stale address must fail, not crash
        self.rng = np.random.default_rng(0)

    def teardown(self) -> None:
        torch.set_default_dtype(self.default_dtype)

    @initialize(
        double=st.booleans(),
        shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4),
        split=st.booleans(),
        options=st.lists(st.tuples(WHICH, WHICH), min_size=2, max_size=6),
        exponent=WHICH,
        steps=GRADIENTS,
    )
    def birth(
        self,
        double: bool,
        shapes: list[tuple[int, ...]],
        split: bool,
        options: list[tuple[int, int]],
        exponent: int,
        steps: dict[str, Any],
    ) -> None:
        """Make the optimizers, with one group or two."""
        self.dtype = torch.float64 if double else torch.float32
        torch.set_default_dtype(self.dtype)  # that of step counts and of NAdam's product
        self.rng = np.random.default_rng(steps["noise"])
        hyper = {name: values[0] for name, values in self.pools.items()}
        for name, value in options:
            hyper |= self.choice(name, value)
        hyper["partial"] = EXPONENTS[exponent % len(EXPONENTS)]
        cut = max(1, len(shapes) // 2) if split else len(shapes)
        self.groups = [[self.new(shape) for shape in part] for part in (shapes[:cut], shapes[cut:]) if part]
        self.hypers = [dict(hyper) for _ in self.groups]
        for lane in LANES:
            params = [{"params": [self.parameter(ref) for ref in group]} for group in self.groups]
            self.lanes.append((lane, create(self.member, params, **hyper, **MODES[lane])))
        self.steps(steps)

    # -- operations, each followed by steps

    @rule(steps=GRADIENTS)
    def go_on(self, steps: dict[str, Any]) -> None:
        """Change nothing."""
        self.steps(steps)

    @rule(group=WHICH, exponent=WHICH, steps=GRADIENTS)
    def change_exponent(self, group: int, exponent: int, steps: dict[str, Any]) -> None:
        """Another p: 0, a binary fraction, any other."""
        self.change(group, {"partial": EXPONENTS[exponent % len(EXPONENTS)]})
        self.steps(steps)

    @rule(group=WHICH, name=WHICH, value=WHICH, everywhere=st.booleans(), steps=GRADIENTS)
    def change_hyperparameter(self, group: int, name: int, value: int, everywhere: bool, steps: dict[str, Any]) -> None:
        """Another value of any hyperparameter, in one group or in all."""
        for i in range(len(self.groups)) if everywhere else (group,):
            self.change(i, self.choice(name, value))
        self.steps(steps)

    @rule(group=WHICH, lr=st.floats(1e-6, 1), eps=st.floats(-12, 0), p=st.floats(0.01, 0.49), steps=GRADIENTS)
    def change_numbers(self, group: int, lr: float, eps: float, p: float, steps: dict[str, Any]) -> None:
        """Numbers that nobody has chosen, as a schedule gives them."""
        self.change(group, {"lr": lr, "eps": 10**eps, "partial": p})
        self.steps(steps)

    @rule(group=WHICH, name=st.sampled_from(("lr", "partial")), value=WHICH, fill=st.booleans(), steps=GRADIENTS)
    def change_to_tensor(self, group: int, name: str, value: int, fill: bool, steps: dict[str, Any]) -> None:
        """A learning rate or a p > 0 in a 0-dim tensor, which may be filled in place later."""
        values = [number for number in self.pools[name] if name == "lr" or number > 0]
        number = values[value % len(values)]
        i = group % len(self.groups)
        if fill and all(isinstance(optimizer.param_groups[i][name], Tensor) for _, optimizer in self.lanes):
            self.hypers[i][name] = number
            for _, optimizer in self.lanes:
                optimizer.param_groups[i][name].fill_(number)
        else:
            self.change(i, {name: torch.tensor(number, dtype=torch.float64)})
        self.steps(steps)

    @rule(lane=WHICH, mode=st.sampled_from(tuple(MODES)), steps=GRADIENTS)
    def switch_mode(self, lane: int, mode: str, steps: dict[str, Any]) -> None:
        """Another mode for one of the optimizers, in mid-training."""
        for group in self.lanes[lane % len(self.lanes)][1].param_groups:
            group.update(MODES[mode])
        self.steps(steps)

    @rule(shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=2), exponent=WHICH, steps=GRADIENTS)
    def add_group(self, shapes: list[tuple[int, ...]], exponent: int, steps: dict[str, Any]) -> None:
        """A new group through torch's method."""
        if len(self.groups) < 3:
            refs = [self.new(shape) for shape in shapes]
            own = {"partial": EXPONENTS[exponent % len(EXPONENTS)]}
            for _, optimizer in self.lanes:
                mode = {name: optimizer.param_groups[0][name] for name in MODES["loop"]}
                optimizer.add_param_group({"params": [self.parameter(ref) for ref in refs], **own, **mode})
            defaults = self.lanes[0][1].defaults
            self.groups.append(refs)
            self.hypers.append({name: defaults[name] for name in self.pools} | own)
        self.steps(steps)

    @rule(group=WHICH, shape=st.sampled_from(SHAPES), steps=GRADIENTS)
    def append_parameter(self, group: int, shape: tuple[int, ...], steps: dict[str, Any]) -> None:
        """A parameter written into a group's list."""
        if sum(map(len, self.groups)) < 6:
            ref, i = self.new(shape), group % len(self.groups)
            self.groups[i].append(ref)
            for _, optimizer in self.lanes:
                optimizer.param_groups[i]["params"].append(self.parameter(ref))
        self.steps(steps)

    @rule(which=WHICH, steps=GRADIENTS)
    def remove_parameter(self, which: int, steps: dict[str, Any]) -> None:
        """A parameter and its state taken out; its group may be empty then."""
        if sum(map(len, self.groups)) > 1:
            i, j = self.place(which)
            self.blind.pop(self.groups[i].pop(j), None)
            for _, optimizer in self.lanes:
                param = optimizer.param_groups[i]["params"].pop(j)
                self.attic.append((param, optimizer.state.pop(param, None)))
        self.steps(steps)

    @rule(which=WHICH, turn=WHICH, steps=GRADIENTS)
    def reorder(self, which: int, turn: int, steps: dict[str, Any]) -> None:
        """The parameters of a group in another order."""
        i, _ = self.place(which)
        for params in (self.groups[i], *(optimizer.param_groups[i]["params"] for _, optimizer in self.lanes)):
            params[:] = params[turn % len(params) :] + params[: turn % len(params)]
        self.steps(steps)

    @rule(which=WHICH, group=WHICH, steps=GRADIENTS)
    def regroup(self, which: int, group: int, steps: dict[str, Any]) -> None:
        """A parameter moved to another group, with its state."""
        i, j = self.place(which)
        k = group % len(self.groups)
        self.groups[k].append(self.groups[i].pop(j))
        for _, optimizer in self.lanes:
            groups = optimizer.param_groups
            groups[k]["params"].append(groups[i]["params"].pop(j))
        self.steps(steps)

    @rule(which=WHICH, shape=st.sampled_from(SHAPES), keep=st.booleans(), new=st.booleans(), steps=GRADIENTS)
    def resize(self, which: int, shape: tuple[int, ...], keep: bool, new: bool, steps: dict[str, Any]) -> None:
        """A parameter that grows or shrinks: a new object or the same; its state is resized or dropped."""
        i, j = self.place(which)
        ref = self.groups[i][j]
        self.blind.pop(ref, None)
        ref.theta = self.resized(ref.theta, shape)
        if keep:
            ref.state = {k: v if k == "mu_product" else self.resized(v, shape) for k, v in ref.state.items()}
        else:
            self.forget(ref)
        for _, optimizer in self.lanes:
            params = optimizer.param_groups[i]["params"]
            param, state = params[j], optimizer.state.pop(params[j], {})
            self.attic.append((param, param.data, dict(state)))
            values = torch.from_numpy(resized(param.detach().numpy(), shape))
            if new:
                params[j] = Parameter(values)
            else:
                param.grad = None
                param.data = values
            if keep and state:
                for name, value in state.items():
                    if name in ref.state and name != "mu_product":
                        state[name] = torch.from_numpy(resized(value.numpy(), shape))
                optimizer.state[params[j]] = state
        self.steps(steps)

    @rule(which=WHICH, layout=st.sampled_from(LAYOUTS), keep=st.booleans(), steps=GRADIENTS)
    def rebind_data(self, which: int, layout: str, keep: bool, steps: dict[str, Any]) -> None:
        """The same parameter elsewhere in memory, maybe with other strides; what it has left may be filled with 77."""
        i, j = self.place(which)
        for _, optimizer in self.lanes:
            param = optimizer.param_groups[i]["params"][j]
            self.move(param, layout if layout != "negative" else "plain", keep=keep)
        self.steps(steps)

    @rule(which=WHICH, layout=st.sampled_from(LAYOUTS), entry=WHICH, data=st.booleans(), steps=GRADIENTS)
    def rebind_state(self, which: int, layout: str, entry: int, data: bool, steps: dict[str, Any]) -> None:
        """A tensor of the state elsewhere in memory: through its .data, or another tensor in its place."""
        i, j = self.place(which)
        for _, optimizer in self.lanes:
            state = optimizer.state.get(optimizer.param_groups[i]["params"][j])
            if state:
                name = sorted(state)[entry % len(state)]
                self.attic.append(state[name])
                if data:
                    self.move(state[name], layout if layout != "negative" else "plain", keep=False)
                else:
                    state[name] = laid_out(state[name], layout if layout != "negative" else "plain")
        self.steps(steps)

    @rule(which=WHICH, way=st.sampled_from(("clear", "pop", "replace", "empty")), steps=GRADIENTS)
    def drop_state(self, which: int, way: str, steps: dict[str, Any]) -> None:
        """State cleared or taken out; all of it replaced by a copy; all of it gone."""
        i, j = self.place(which)
        for _, optimizer in self.lanes:
            param = optimizer.param_groups[i]["params"][j]
            self.attic.append([dict(state) for state in optimizer.state.values()])
            if way == "clear":
                optimizer.state[param].clear()
            elif way == "pop":
                optimizer.state.pop(param, None)
            elif way == "replace":
                optimizer.state = defaultdict(dict, {param: dict(state) for param, state in optimizer.state.items()})
            else:
                optimizer.state = defaultdict(dict)
        if way != "replace":
            for ref in [self.groups[i][j]] if way != "empty" else [ref for group in self.groups for ref in group]:
                self.forget(ref)
        self.steps(steps)

    @rule(lane=WHICH, into_same=st.booleans(), steps=GRADIENTS)
    def save_and_load(self, lane: int, into_same: bool, steps: dict[str, Any]) -> None:
        """A checkpoint on disk, read with weights_only into a fresh optimizer: of new parameters or of the same.

        All optimizers load; the fresh ones are made with another mode and other hyperparameters.
        """
        for k, (name, optimizer) in enumerate(self.lanes):
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            groups = [
                {"params": [p if into_same else Parameter(p.detach().clone()) for p in group["params"]]}
                for group in optimizer.param_groups
            ]
            other = MODES[LANES[(k + lane) % len(LANES)]]
            fresh = create(self.member, groups, lr=0.5, partial=0.2, **other)
            fresh.load_state_dict(torch.load(file, weights_only=True))
            self.lanes[k] = (name, fresh)
        self.steps(steps)

    @rule(steps=GRADIENTS)
    def deep_copy(self, steps: dict[str, Any]) -> None:
        """A copy of optimizer and parameters goes on; the original is left alone, and spoiled."""
        for k, (name, optimizer) in enumerate(self.lanes):
            self.lanes[k] = (name, copy.deepcopy(optimizer))
            with torch.no_grad():
                for param in (param for group in optimizer.param_groups for param in group["params"]):
                    param.fill_(77)
                    for value in optimizer.state.get(param, {}).values():
                        value.fill_(77)
        self.steps(steps)

    @rule(steps=GRADIENTS)
    def look_inside(self, steps: dict[str, Any]) -> None:
        """`scale_of` and `state_dict` leave everything as it is."""
        for _, optimizer in self.lanes:
            optimizer.state_dict()
            for group in optimizer.param_groups:
                for param in group["params"]:
                    optimizer.scale_of(param)
        self.steps(steps)

    # -- parts of the operations

    def new(self, shape: tuple[int, ...]) -> Transcription:
        """The reference of a new parameter."""
        form = FORMS[self.dtype]
        return TRANSCRIPTIONS[self.member](self.rng.standard_normal(shape).astype(form.dtype), form)

    def parameter(self, ref: Transcription) -> Parameter:
        """A new parameter with the reference's values."""
        return Parameter(torch.tensor(ref.theta.value, dtype=self.dtype))

    def choice(self, name: int, value: int) -> dict[str, Any]:
        """A value for one hyperparameter, p excepted."""
        names = [name for name in self.pools if name != "partial"]
        chosen = names[name % len(names)]
        return {chosen: self.pools[chosen][value % len(self.pools[chosen])]}

    def change(self, group: int, values: dict[str, Any]) -> None:
        """Write hyperparameters into a group of all optimizers."""
        i = group % len(self.groups)
        self.hypers[i].update({k: v.item() if isinstance(v, Tensor) else v for k, v in values.items()})
        for _, optimizer in self.lanes:
            optimizer.param_groups[i].update(copy.deepcopy(values))

    def place(self, which: int) -> tuple[int, int]:
        """A parameter's group and its index there."""
        places = [(i, j) for i, group in enumerate(self.groups) for j in range(len(group))]
        return places[which % len(places)]

    def resized(self, ball: Ball, shape: tuple[int, ...]) -> Ball:
        return Ball(resized(ball.value, shape), resized(ball.radius, shape), ball.form)

    def forget(self, ref: Transcription) -> None:
        """Start a parameter's state afresh."""
        ref.state, ref.t, ref.age = {}, 0, 0

    def move(self, tensor: Tensor, layout: str, *, keep: bool) -> None:
        """Rebind .data, and spoil the memory that it had unless it is to keep its values."""
        before = tensor.data
        tensor.data = laid_out(before, layout)
        self.attic.append(before)
        if not keep:
            before.fill_(77)

    # -- steps

    def steps(self, steps: dict[str, Any]) -> None:
        """Step as often as has been drawn, with gradients of the drawn kinds, and compare after each step."""
        for turn in range(steps["count"]):
            noise = np.random.default_rng([steps["noise"], turn])
            number = 0
            before = {}
            for group, hyper, *lanes in zip(
                self.groups, self.hypers, *(optimizer.param_groups for _, optimizer in self.lanes), strict=True
            ):
                for ref, *params in zip(group, *(lane["params"] for lane in lanes), strict=True):
                    kind = steps["kinds"][number % len(steps["kinds"])]
                    layout = steps["layouts"][number % len(steps["layouts"])]
                    number += 1
                    g = gradient(kind, ref.theta.value.shape, noise, self.dtype)
                    for param in params:
                        layout = "expanded" if kind == "constant" else layout
                        param.grad = None if g is None else laid_out(torch.from_numpy(g), layout, param.grad)
                    before[ref] = ref.theta
                    if g is not None:
                        ref.step(g, hyper)
            for _, optimizer in self.lanes:
                self.step(optimizer)
            self.done["steps"] += 1
            self.done[f"steps in {self.dtype}"] += 1
            for lane, optimizer in self.lanes:
                self.compare(lane, optimizer)
            self.judge(before)

    def step(self, optimizer: Any) -> None:
        """Take a step, which must leave gradients as they are."""
        params = [param for group in optimizer.param_groups for param in group["params"] if param.grad is not None]
        grads = [(param.grad, bits(param.grad)) for param in params]
        optimizer.step()
        for param, (grad, contents) in zip(params, grads, strict=True):
            assert param.grad is grad, "step() has replaced a gradient"
            assert bits(grad) == contents, "step() has changed a gradient"

    def compare(self, lane: str, optimizer: Any) -> None:
        """Raise AssertionError where an optimizer isn't where the reference is."""
        for i, (group, hyper, entries) in enumerate(zip(self.groups, self.hypers, optimizer.param_groups, strict=True)):
            for name, value in hyper.items():
                stored = entries[name]
                assert value == (stored if not isinstance(stored, list) else tuple(stored)), (lane, name, value, stored)
            for j, (ref, param) in enumerate(zip(group, entries["params"], strict=True)):
                mode = {name: entries[name] for name in MODES["loop"]}
                where = f"{self.member} {self.dtype}, optimizer {lane!r}, now {mode}, group {i}, parameter {j}"
                where += f", t={ref.t}, age={ref.age}, {hyper}"
                admit(ref.theta, param, f"{where}: the parameter")
                state = optimizer.state.get(param, {})
                for name, right in ref.state.items():
                    assert name in state, f"{where}: no {name} in the state, which has {sorted(state)}"
                    admit(right, state[name], f"{where}: {name}")
                step = float(state.get("step", 0))
                assert step == ref.t, f"{where}: the count of steps is {step}, in a state of {sorted(state)}"
                assert ref.age or not any(name in state for name in ref.second), f"{where}: {sorted(state)} at age 0"
                if ref.second and ref.age and hyper["partial"] > 0 and ref.t:
                    age = float(state.get("estimator_step", step))
                    assert age == ref.age, f"{where}: the second moment's count is {age}"

    def judge(self, before: dict[Transcription, Ball]) -> None:
        """Count which comparisons could have failed; write over what is no use any more; collapse bounds."""
        for i, j, ref in [(i, j, ref) for i, group in enumerate(self.groups) for j, ref in enumerate(group)]:
            theta = ref.theta
            with np.errstate(invalid="ignore"):
                moved = np.abs(theta.value - before[ref].value)
                loose = np.isfinite(theta.radius) & (theta.radius > LOOSEST[self.dtype] * np.abs(theta.value))
            if before[ref] is not theta:
                self.done["coordinates"] += theta.value.size
                self.done["sharp"] += int((theta.radius <= 0.01 * moved).sum())
                self.done["unsettled"] += int(np.isinf(theta.radius).sum())
            blind = ~(np.abs(theta.value) < 1e6) | np.isinf(theta.radius)
            for name, ball in ref.state.items():
                if name != "mu_product":
                    blind = blind | ~(np.abs(ball.value) < 1e12) | np.isinf(ball.radius)
            since = self.blind[ref] = np.where(blind, self.blind.get(ref, 0) + np.int64(1), 0)
            revived = since > PATIENCE
            if revived.any() or loose.any():
                self.done["revived"] += int(revived.sum())
                self.done["collapsed"] += int(loose.any())
                self.write(i, j, revived)

    def write(self, i: int, j: int, revived: Array) -> None:
        """Give all optimizers the reference's values, in place, and fresh ones where coordinates are to be revived."""
        ref = self.groups[i][j]
        hyper = self.hypers[i]
        fresh = self.rng.standard_normal(ref.theta.value.shape)
        unknown = np.isinf(ref.theta.radius) | ~np.isfinite(ref.theta.value)
        for name, ball in ref.state.items():
            if name != "mu_product":
                unknown = unknown | np.isinf(ball.radius)
        # What isn't known can't be written: it stays as it is, in the reference and in each optimizer.
        known = revived | ~unknown
        targets = {"": ref.theta, **ref.state}
        for name, ball in targets.items():
            first = fresh if name == "" else np.float64(0 if name == "mu_product" else ref.initial(name, hyper))
            whole = name == "mu_product"
            value = ball.value if whole else np.where(revived, first, ball.value)
            mask = np.bool_(True) if whole else known
            exact = Ball.exact(np.where(mask, value, 0), ball.form).rounded()
            new = Ball(np.where(mask, exact.value, ball.value), np.where(mask, 0, ball.radius), ball.form)
            for _, optimizer in self.lanes:
                param = optimizer.param_groups[i]["params"][j]
                tensor = param if name == "" else optimizer.state[param][name]
                with torch.no_grad():
                    ours = tensor.detach().numpy().astype(np.float64)
                    tensor.copy_(torch.from_numpy(np.where(mask, exact.value, ours)))
            if name == "":
                ref.theta = new
            else:
                ref.state[name] = new


def admit(right: Ball, tensor: Tensor, what: str) -> None:
    """Raise AssertionError where a tensor isn't within the bounds."""
    ours = tensor.detach().numpy().astype(np.float64)
    assert ours.shape == right.value.shape, f"{what} has the shape {ours.shape}, right is {right.value.shape}"
    good = right.admits(ours)
    if not good.all():
        at = tuple(int(k) for k in np.argwhere(~good)[0])
        raise AssertionError(
            f"{what} is {ours[at]!r} at {at}, right is {right.value[at]!r} ± {right.radius[at]:.1e}; "
            f"all of it: {ours.tolist()}, right: {right.value.tolist()}"
        )


def lives(member: str) -> Iterator[tuple[type[Life], settings]]:
    """The state machine of a member with the settings of each run: one, or new ones until enough steps are done."""
    machine = type(f"Life_{member}", (Life,), {"member": member, "done": Counter()})
    phases = [phase for phase in Phase if phase is not Phase.explain and (SHRINK or phase is not Phase.shrink)]
    common: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": phases}
    if not STEPS:
        yield machine, settings(**common, derandomize=True, max_examples=10, stateful_step_count=16)
        return
    number = SEED if SEED >= 1_000_000 else SEED * 1_000_000 + 1000 * list(TRANSCRIPTIONS).index(member)
    while machine.done["steps"] < STEPS:
        print(f"{member}: FUZZ_SEED={number} after {dict(machine.done)}")  # noqa: T201
        yield (
            seed(number)(machine),
            settings(**common, derandomize=False, database=None, max_examples=4, stateful_step_count=150),
        )
        number += 1


@pytest.mark.parametrize("member", TRANSCRIPTIONS)
def test_life_follows_the_reference(member: str) -> None:
    """Whatever happens to an optimizer between two steps, it computes what its formula says, in every mode."""
    for machine, how in lives(member):
        run_state_machine_as_test(machine, settings=how)
        done = machine.done
    print(f"{member}: {dict(done)}")  # noqa: T201
    assert done["sharp"] > 0.25 * done["coordinates"], f"too few comparisons could have failed: {done}"


def test_reference_is_of_the_family() -> None:
    """Each elementwise member has a transcription, and the values of its hyperparameters here."""
    assert set(TRANSCRIPTIONS) == set(OWN) == {name for name, member in MEMBERS.items() if member.elementwise}
