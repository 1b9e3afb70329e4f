"""What a life of the fuzz is lived in: several optimizers of one member, the reference, and steps that compare them."""

import copy
from collections import Counter
from typing import Any

import numpy as np
import torch
from fuzz_choices import COMMON, EXPONENTS, FORMS, MODES, OWN, admit, bits, gradient, laid_out, resized
from hypothesis.stateful import RuleBasedStateMachine
from reference import TRANSCRIPTIONS, Array, Ball, Transcription
from torch import Tensor
from torch.nn import Parameter

LOOSEST = {torch.float32: 1e-3, torch.float64: 1e-9}
PATIENCE = 4  # steps for which a coordinate that shows nothing lives on


class World(RuleBasedStateMachine):
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
                held = [name for name in ref.second if name in state and state[name].numel() and param.numel()]
                assert ref.age or not held, f"{where}: {held} at age 0"
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
