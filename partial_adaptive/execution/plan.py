"""What a step will do: which parameters together, by whom, with which numbers. It refuses, and changes nothing.

Of a group's last step a `Plan` is kept: how all tensors looked, and what the backend made of that. At each step the
tensors are collected from where the user has them, and looked at. If they look as they did, the plan holds
(`_recalled`); if not, everything is checked and planned anew (`_checked`, `_prepared`). Addresses are read at every
step (`_unit`). What a step adds to the state is committed once all groups are planned.
"""

import functools
from array import array
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter, contains, is_not, itemgetter
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.optimizer import _default_to_fused_or_foreach

from partial_adaptive.execution.backend import Backend, Prepared, Task, Unit
from partial_adaptive.execution.batched import Batched
from partial_adaptive.execution.checks import Checks
from partial_adaptive.execution.compiled.launch import Compiled
from partial_adaptive.execution.differentiable import Differentiable
from partial_adaptive.execution.distributed import Layouts, layouts_of, local_columns, placed
from partial_adaptive.execution.eager import Foreach, Loop
from partial_adaptive.execution.gathering import Gathering
from partial_adaptive.execution.masked import Masked
from partial_adaptive.execution.nonfinite import Verdict
from partial_adaptive.execution.resting import converted, resting
from partial_adaptive.execution.settings import Group, Reader, Settings, on_device
from partial_adaptive.execution.sharing import Sharing, addresses_of_any
from partial_adaptive.execution.snapshot import Snapshot
from partial_adaptive.execution.staging import is_capturing, is_lazy, is_wrapper, settled
from partial_adaptive.execution.state import AGE, State, additions, entries, moved, scalars_of, without_none
from partial_adaptive.execution.trials import Trials
from partial_adaptive.rules.rule import RecipeOf
from partial_adaptive.rules.second_moments import Null
from partial_adaptive.rules.stage import Needs


@dataclass(frozen=True)
class Step:
    """What is asked of a group at this step.

    Args:
        groups: the optimizer's own.
        group: the group, of which these may be several, or which may be a part of one.
        settings: what its hyperparameters lead to.
        params: its parameters that have gradients.
        grads: these.
        grad_scale: by which gradients come multiplied, from a `torch.amp.GradScaler`.
        found_inf: becomes not 0 where the step is to leave no trace; None where that is settled before it runs.
        guarded: whether the step may turn out to be one that is skipped.
    """

    groups: Sequence[Group]
    group: Group
    settings: Settings
    params: list[Tensor]
    grads: list[Tensor]
    grad_scale: Tensor | None
    found_inf: Tensor | None
    guarded: bool = False

    @property
    def key(self) -> Hashable:
        """All that a plan depends on besides how the tensors look."""
        return self.settings.key, self.grad_scale is not None, self.found_inf is not None


@dataclass(frozen=True)
class Collected:
    """The tensors of a step, as the user has them.

    Args:
        step: what is asked.
        states: the parameters' entries in the optimizer's state.
        slots: the entries of the slots, a list each, by name.
        scalars: the 0-dim entries.
    """

    step: Step
    states: list[State]
    slots: dict[str, list[Tensor]]
    scalars: list[Tensor]

    @property
    def columns(self) -> dict[str, list[Tensor]]:
        """All that has a value per element, by name."""
        return {"param": self.step.params, "grad": self.step.grads, **self.slots}

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return sum(self.slots.values(), self.step.params + self.step.grads) + self.scalars


@dataclass(frozen=True)
class Plan:
    """What may be remembered of a group's last step: how its tensors looked, and what that led to.

    Args:
        key: that of the settings.
        looks: how all tensors looked; None where that says too little to go by.
        layouts: how distributed ones are placed; None without any.
        local_looks: how the local parts of these looked; None where it is not these that are updated.
        sizes: how many entries each parameter had.
        slots: names of the entries of the slots.
        lazy: positions of gradients with lazy bits.
        sharing: who shares memory; None where it cannot be told where the parameters are.
        locate: how the backend reads addresses.
        prepared: the backend's own part.
    """

    key: Hashable
    looks: Snapshot | None
    layouts: Layouts | None
    local_looks: Snapshot | None
    sizes: Sequence[int]
    slots: Sequence[str]
    lazy: frozenset[int]
    sharing: Sharing | None
    locate: Callable[[list[Tensor]], "array[int]"]
    prepared: Prepared


class Planner:
    """Plans the steps of one optimizer.

    Args:
        recipe_of: the stages of a group.
        foreign: the hyperparameters in a group that its member does not have.
    """

    def __init__(self, recipe_of: RecipeOf, foreign: Callable[[Mapping[str, Any]], list[str]]) -> None:
        self.reader = Reader(recipe_of, foreign)
        self._plans: dict[int, Plan] = {}
        self._trials = Trials()
        self._captured: list[Any] = []  # what CUDA graphs read and write, for as long as the optimizer lives
        self._loop, self._foreach, self._batched, self._differentiable = Loop(), Foreach(), Batched(), Differentiable()
        self._compiled = Compiled(self._captured)

    def plan(
        self,
        groups: Sequence[Group],
        state: MutableMapping[Tensor, State],
        grad_scale: Tensor | None = None,
        verdict: Verdict | None = None,
    ) -> list[Task]:
        """What the step has to do, in order. Once the first task has run nothing can fail.

        Args:
            groups: the optimizer's param groups.
            state: the optimizer's state.
            grad_scale: by which gradients come multiplied, from a `torch.amp.GradScaler`.
            verdict: says whether the step is skipped, once all gradients are known.

        Raises:
            ValueError, TypeError: for a hyperparameter that is not allowed, or a rule that cannot be run.
            RuntimeError: for a parameter, a gradient or an entry of the state that does not fit, by name.
        """
        read = self.reader.read(groups)
        commits: list[Task] = []
        tasks: list[Task] = []
        plans: dict[int, Plan] = {}
        units: list[Unit] = []
        mask = None if verdict is None else verdict.mask
        for index, (group, settings) in enumerate(read):
            params, grads = _with_gradients(group["params"])
            if not params:
                continue
            grads = placed(params, grads, differentiable=group["differentiable"])
            if mask is not None:
                group, settings = on_device(group, settings)
            step = Step(groups, group, settings, params, grads, grad_scale, mask, verdict is not None)
            capturing = self._capturing(step)
            plan, unit = self._recalled(self._plans.get(index), step, state)
            run = plan.prepared.ready(unit) if plan and unit else None
            if run is None or plan is None or unit is None:
                plan, unit = self._prepared(self._checked(step, state, commits))
                run = plan.prepared.ready(unit)
                assert run is not None, "what has just been prepared is ready"
            if capturing:
                self._captured += [plan, unit]  # but the plan is not used again: what it has sent is not there yet
            else:
                plans[index] = plan
            units.append(unit)
            tasks.append(functools.partial(_with_grad, run) if group["differentiable"] else run)
        self._plans = plans
        if verdict is not None and verdict.skips(units):
            return []
        return [*commits, *tasks]

    def units(
        self,
        groups: Sequence[Group],
        state: MutableMapping[Tensor, State],
        others: Sequence[Mapping[str, Any]],
        commits: list[Task],
    ) -> list[tuple[int, Prepared, Unit]]:
        """What a graph of `torch.compile` is made of: each group's units, planned anew. Their state is to be committed.

        Args:
            groups: the optimizer's param groups.
            state: the optimizer's state.
            others: for each group the hyperparameters that are to have other values.
            commits: gets what brings new entries into the state.
        """
        units: list[tuple[int, Prepared, Unit]] = []
        for index, group, settings in self.reader.apart(groups, others):
            params, grads = _with_gradients(group["params"])
            if params:
                step = Step(groups, group, settings, params, grads, None, None)
                plan, unit = self._prepared(self._checked(step, state, commits))
                units.append((index, plan.prepared, unit))
        return units

    def _capturing(self, step: Step) -> bool:
        """Whether the step is being recorded into a CUDA graph."""
        if not torch.cuda.is_initialized() or not any(map(is_capturing, {param.device for param in step.params})):
            return False
        if not step.group["capturable"]:
            owner = step.settings.recipe.owner
            raise RuntimeError(f"{owner}: a CUDA graph can capture step() only with capturable=True, got False")
        return True

    # -- what is remembered

    def _recalled(
        self, plan: Plan | None, step: Step, state: Mapping[Tensor, State]
    ) -> tuple[Plan | None, Unit | None]:
        """The plan of the last step and what it is to be used on, if all tensors look as they did."""
        if plan is None or plan.looks is None or plan.key != step.key:
            return None, None
        params = step.params
        try:
            states = cast(list[State], [*map(state.get, params)])
            slots = {name: [*map(itemgetter(name), states)] for name in plan.slots}
            scalars = [*chain.from_iterable(map(itemgetter(name), states) for name in scalars_of(step.settings.rule))]
        except (KeyError, TypeError):  # an entry, or all of them, is missing
            return None, None
        resting = isinstance(step.settings.rule.second_moment, Null)
        if [*map(len, states)] != plan.sizes or (resting and not all(map(contains, states, repeat(AGE)))):
            return None, None  # what nobody reads has come or gone
        collected = Collected(step, states, slots, scalars)
        if not plan.looks.holds(collected.tensors):
            return None, None
        columns = collected.columns
        if plan.layouts is not None and layouts_of(columns) != plan.layouts:
            return None, None
        if plan.local_looks is not None:
            columns = local_columns(columns)
            if not plan.local_looks.holds([*chain.from_iterable(columns.values())]):
                return None, None
        return plan, self._unit(collected, columns, plan.lazy, plan.sharing, plan.locate)

    def _unit(
        self,
        collected: Collected,
        columns: Mapping[str, list[Tensor]],
        lazy: frozenset[int],
        sharing: Sharing | None,
        locate: Callable[[list[Tensor]], "array[int]"],
    ) -> Unit:
        grads = columns["grad"]
        rounds: Sequence[Sequence[int]] = [range(len(grads))]
        places: tuple[array[int], array[int], array[int]] | None = None
        if lazy:
            grads = [settled(grad) if i in lazy else grad for i, grad in enumerate(grads)]
        if sharing is not None:
            kept = [*chain(*(columns[name] for name in collected.slots), collected.scalars)]
            places = locate(columns["param"]), locate(grads), locate(kept)
            sharing.look(*places)
            rounds = sharing.rounds
            if sharing.aliased:
                places = None
                grads = [grad.clone() if i in sharing.aliased else grad for i, grad in enumerate(grads)]
            if sharing.doubled is not None:
                what = "is in the memory of another tensor; it needs its own, a clone()"
                raise self._misplaced(collected, kept[sharing.doubled], what)
            for tensor in [*columns["param"], *grads, *kept] if sharing.nowhere else ():
                if not tensor.is_sparse and tensor.numel() and not tensor.is_meta and not tensor.data_ptr():
                    raise self._misplaced(collected, tensor, "was freed: there is no storage")
        step = collected.step
        return Unit(
            step.settings.rule,
            step.group,
            step.settings.recipe.table,
            step.params,
            collected.states,
            {**columns, "grad": grads},
            rounds,
            places,
            step.grad_scale,
            step.found_inf,
        )

    def _misplaced(self, collected: Collected, tensor: Tensor, what: str) -> RuntimeError:
        """The error for a tensor that is not where it must be."""
        params = collected.step.params
        named = [*zip(params, repeat("memory"), params), *zip(params, repeat("gradient"), collected.step.grads)]
        for param, state in zip(params, collected.states, strict=True):
            named += [(param, f"state[{name!r}]", value) for name, value in state.items()]
        param, name, _ = next((found for found in named if found[2] is tensor), (params[0], "memory", tensor))
        return self._checks(collected.step).refuse(param, f"cannot be updated: its {name} {what}")

    # -- what is made anew

    def _checked(self, step: Step, state: MutableMapping[Tensor, State], commits: list[Task]) -> Collected:
        """The tensors of a step, checked, with the state that is missing; `commits` brings that home."""
        group, rule, params = step.group, step.settings.rule, step.params
        checks = self._checks(step)
        states: list[State] = []
        if len({*map(id, params)}) != len(params):
            raise checks.refuse(next(p for p in params if sum(q is p for q in params) > 1), "is in the group twice")
        for i, param in enumerate(params):
            checks.parameter(param)
            entry = state.get(param, {})
            changed = converted(entry, param, rule) if isinstance(entry, dict) else {}
            entry = without_none({**entry, **changed}) if changed else entry
            checks.state(param, entry)
            added = changed | moved(entry, param, group, rule) | additions(entry, param, group, rule)
            if isinstance(rule.second_moment, Null):
                added |= resting({**entry, **added}, param, step.settings.recipe.rule(group, scaled=True))
            states.append(without_none({**entry, **added}) if added else entry)
            if added:
                commits.append(functools.partial(_commit, state, param, states, i, added))
        names = list(entries(rule, params[0]))
        slots = {name: [entry[name] for entry in states] for name in names}
        scalars = [entry[name] for name in scalars_of(rule) for entry in states]
        return Collected(step, states, slots, scalars)

    def _prepared(self, collected: Collected) -> tuple[Plan, Unit]:
        """A plan, and what it is first used on."""
        rule = collected.step.settings.rule
        inner = self._backend(collected)
        differentiable = inner is self._differentiable
        wrapped = any(map(is_wrapper, chain.from_iterable(collected.columns.values())))
        if wrapped:
            self._check_placements(collected)
        gathers = wrapped and not differentiable and rule.needs is Needs.TENSOR
        backend: Backend = Gathering(inner) if gathers else inner
        here = collected.columns if differentiable or not wrapped else local_columns(collected.columns)
        columns = collected.columns if gathers else here
        lazy = frozenset(i for i, grad in enumerate(columns["grad"]) if grad.layout is torch.strided and is_lazy(grad))
        addressable = not differentiable and not any(map(is_wrapper, (*here["param"], *here["grad"])))
        sharing = Sharing(columns["param"]) if addressable and not gathers else None
        sparse = any(grad.is_sparse for grad in collected.step.grads)
        unit = self._unit(collected, columns, lazy, sharing, addresses_of_any)
        self._trials.run(unit, inner, blank=collected.step.guarded)
        looks = Snapshot(collected.tensors) if addressable and not sparse else None
        layouts = layouts_of(collected.columns) if wrapped else None
        local_looks = Snapshot([*chain.from_iterable(columns.values())]) if looks and wrapped and not gathers else None
        if collected.step.found_inf is not None and inner is not self._compiled:  # which has masks of its own
            backend = Masked(backend)
        prepared = backend.prepare(unit)
        slots = list(collected.slots)
        key = collected.step.key
        sizes = [*map(len, collected.states)]
        return Plan(key, looks, layouts, local_looks, sizes, slots, lazy, sharing, backend.locate, prepared), unit

    def _backend(self, collected: Collected) -> Backend:
        """Who carries out the step."""
        group, rule, params = collected.step.group, collected.step.settings.rule, collected.step.params
        owner = collected.step.settings.recipe.owner
        asked: tuple[Backend, str] | None = None
        if group["differentiable"]:
            asked = self._differentiable, "differentiable=True"
        elif group["fused"]:
            asked = self._compiled, "fused=True"
        if asked:
            backend, option = asked
            for param in params:
                reason = backend.refuses(rule, param)
                if reason:
                    raise RuntimeError(f"{owner}: {option} {reason}{'; use foreach=True' if group['fused'] else ''}")
            return backend
        foreach = group["foreach"]
        if foreach is None:
            foreach = _default_to_fused_or_foreach(params, differentiable=False)[1]
        for together in (self._foreach, self._batched) if foreach else ():
            if not any(together.refuses(rule, param) for param in params):
                return together
        return self._loop

    def _checks(self, step: Step) -> Checks:
        return Checks(step.settings.recipe.owner, step.groups, step.group, step.settings.rule)

    def _check_placements(self, collected: Collected) -> None:
        checks = self._checks(collected.step)
        for param, state in zip(collected.step.params, collected.states, strict=True):
            checks.placement(param, state)


_grad_of = attrgetter("grad")


def _with_gradients(params: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters that have a gradient, and these."""
    grads = [*map(_grad_of, params)]
    if all(map(is_not, grads, repeat(None))):
        return params, grads
    found = [(param, grad) for param, grad in zip(params, grads, strict=True) if grad is not None]
    return [param for param, _ in found], [grad for _, grad in found]


def _commit(state: MutableMapping[Tensor, State], param: Tensor, states: list[State], i: int, added: State) -> None:
    """Bring new entries into the optimizer's state; the dict that the user knows stays the same."""
    if param in state:
        state[param].update(added)
        for name in [name for name, value in added.items() if value is None]:
            del state[param][name]
    else:
        state[param] = states[i]
    states[i] = state[param]


def _with_grad(run: Task) -> None:
    with torch.enable_grad():
        run()
