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
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_choices import (
    EXPONENTS,
    GRADIENTS,
    LANES,
    LAYOUTS,
    MODES,
    OWN,
    SHAPES,
    STEPS,
    WHICH,
    laid_out,
    resized,
)
from fuzz_world import World
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test
from reference import TRANSCRIPTIONS
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive import MEMBERS, create

SEED = int(os.environ.get("FUZZ_SEED", "1"))
SHRINK = os.environ.get("FUZZ_SHRINK", "1") != "0"


class Life(World):
    """What may happen to the optimizers between two steps."""

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
        print(f"{member}: FUZZ_SEED={number} after {dict(machine.done)}")  # noqa: T201  # shown by -rP
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
    print(f"{member}: {dict(done)}")  # noqa: T201  # shown by -rP
    assert done["sharp"] > 0.25 * done["coordinates"], f"too few comparisons could have failed: {done}"


def test_reference_is_of_the_family() -> None:
    """Each elementwise member has a transcription, and the values of its hyperparameters here."""
    assert set(TRANSCRIPTIONS) == set(OWN) == {name for name, member in MEMBERS.items() if member.elementwise}
