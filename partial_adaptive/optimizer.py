"""The base class of the family: param groups, state and the step, for any estimator and any momentum rule."""

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, StateDict, _default_to_fused_or_foreach
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from partial_adaptive.components import Selectable
from partial_adaptive.estimators import Estimator
from partial_adaptive.execution.flat import Flat, flattens
from partial_adaptive.execution.functional import Functional
from partial_adaptive.execution.fused import BACKENDS, Fused
from partial_adaptive.execution.staging import Staged, batches, stage
from partial_adaptive.execution.tensor_list import TensorList
from partial_adaptive.execution.trace import is_elementwise
from partial_adaptive.hyperparameters import Hyper, complete, validate
from partial_adaptive.momentum import Gradient, Momentum
from partial_adaptive.rule import Rule
from partial_adaptive.state import AGE, STEP, advance, counts, initialize, placed, rest

__all__ = ["PartialAdaptiveOptimizer"]


class PartialAdaptiveOptimizer(Optimizer):
    r"""The partially adaptive optimizer with any second-moment estimator and any momentum rule.

    For a parameter θ with gradient g at its own step t::

        g ← −g                      if maximize
        g ← g + λθ                  weight decay (θ ← (1 − αλ)θ instead if decoupled_weight_decay)
        n ← momentum(g)             the numerator
        s ← estimator(g)            a scale in units of |g|, its ε inside
        θ ← θ − α·n/s^(2p)          p = partial

    Args:
        params: tensors, (name, tensor) pairs or dicts that define param groups, as for every `torch.optim.Optimizer`.
        defaults: the hyperparameters: `lr`, what the estimator and the momentum rule read, and any of `partial`
            (default 1/8), `weight_decay`, `decoupled_weight_decay`, `maximize`, `foreach`, `fused`, `capturable`,
            `differentiable` and `state_dtype`. All can be set per param group and changed during training.
        estimator: gives s.
        momentum: gives n; the gradient itself by default.

    Raises:
        TypeError: for a hyperparameter that is unknown, missing, or of the wrong type.
        ValueError: for one that is out of range.

    Example:
        >>> import torch
        >>> from partial_adaptive import PartialAdaptiveOptimizer
        >>> from partial_adaptive.estimators import AmsgradMax
        >>> from partial_adaptive.momentum import ExpAvg
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = PartialAdaptiveOptimizer([weight], {"lr": 0.1}, estimator=AmsgradMax(), momentum=ExpAvg())
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.data
        tensor([0.9000, 0.9000, 0.9000])

    Chen, Gu: Padam: Closing the Generalization Gap of Adaptive Gradient Methods in Training Deep Neural Networks.
    """

    def __init__(
        self,
        params: ParamsT,
        defaults: Mapping[str, Any],
        *,
        estimator: Selectable[Estimator],
        momentum: Selectable[Momentum] | None = None,
    ) -> None:
        self._estimator = estimator
        self._momentum = momentum if momentum is not None else Gradient()
        self._fused = Fused()
        self._flats: dict[Tensor, Flat] = {}
        self._elementwise: dict[Rule, bool] = {}
        needed = (*self._momentum.hyperparameters, *self._estimator.hyperparameters)
        complete_defaults = complete(defaults, needed, type(self).__name__)
        validate(complete_defaults, type(self).__name__)
        super().__init__(params, complete_defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group; see `torch.optim.Optimizer.add_param_group`. Raises before anything is added."""
        if isinstance(param_group, dict):
            validate(self.defaults | param_group, type(self).__name__)
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step for every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            ValueError, RuntimeError: where a hyperparameter or a gradient is not allowed, before any parameter changes.
        """
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                validate(group, type(self).__name__, wait=False)
            self._check_capture()
            updates = [update for i, group in enumerate(self._merged_groups()) for update in self._updates(i, group)]
            for update in updates:
                update()
        return loss

    def scale_of(self, param: Tensor) -> Tensor | None:
        """The scale s by which `step` would now divide the numerator of a parameter (its power s^(2p), precisely).

        Nothing is changed. None where p = 0 or the parameter has no gradient.

        Args:
            param: one of the optimizer's parameters.

        Returns:
            A tensor of the parameter's shape (complex ones as real pairs), or None.

        Raises:
            ValueError: where the tensor is not one of the optimizer's parameters.
        """
        for group in self.param_groups:
            if any(param is candidate for candidate in group["params"]):
                break
        else:
            raise ValueError(
                f"param must be one of the optimizer's parameters, got a tensor of shape {tuple(param.shape)}"
            )
        rule = self._rule(group)
        if rule.estimator is None or param.grad is None:
            return None
        with torch.no_grad():
            state = {name: value.clone() for name, value in self.state.get(param, {}).items()}
            initialize(state, param, group, rule)
            staged = stage(param, param.grad.to_dense(), [state[name] for name in rule.buffers], group["state_dtype"])
            advance([state], rule)
            state |= zip(rule.buffers, staged.buffers, strict=True)
            hyper = rule.hyper(group, *counts([state], group, rule))
            return rule.fraction(staged.param, staged.grad, hyper, state)[1]

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `torch.amp.GradScaler` may leave unscaling to `step`, by giving it `grad_scale` and `found_inf`."""
        return all(group["fused"] for group in self.param_groups)

    def _merged_groups(self) -> Iterable[dict[str, Any]]:
        """The param groups, those with equal hyperparameters as one: fewer and larger launches."""
        if len(self.param_groups) == 1:
            return self.param_groups
        merged: dict[Hashable, dict[str, Any]] = {}
        for group in self.param_groups:
            entries = (group[name] for name in self.defaults)
            key = tuple(id(v) if isinstance(v, Tensor) else tuple(v) if isinstance(v, list) else v for v in entries)
            if key in merged:
                merged[key]["params"] += group["params"]
            else:
                merged[key] = group | {"params": list(group["params"])}
        return merged.values()

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        partial = group["partial"]
        if isinstance(partial, Tensor) and not (group["capturable"] or group["differentiable"]):
            partial = partial.item()
        unscaled = not isinstance(partial, Tensor) and partial == 0
        estimator = self._estimator.select(group)
        return Rule(self._momentum.select(group), None if unscaled else estimator, estimator.decay)

    def _updates(self, index: int, group: dict[str, Any]) -> list[Callable[[], None]]:
        """What a step has to do for a group, checked and ready: nothing can fail once the first of them has run."""
        rule = self._rule(group)
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        launches = self._fused.recall(index, rule, group, scaled=scale is not None) if group["fused"] else None
        if launches is None:
            params = [param for param in group["params"] if param.grad is not None]
            self._check(group, rule, params)
            buckets = self._buckets(group, rule, params)
            if not group["fused"]:
                foreach = group["foreach"]
                if foreach is None:
                    foreach = _default_to_fused_or_foreach(params, group["differentiable"])[1]
                return [functools.partial(self._update, group, rule, bucket, foreach=foreach) for bucket in buckets]
            launches = self._fused.prepare(index, rule, group, buckets, self.state, scaled=scale is not None)
        return [functools.partial(launch.run, group, scale, found_inf) for launch in launches]

    def _buckets(self, group: Mapping[str, Any], rule: Rule, params: Sequence[Tensor]) -> list[list[Tensor]]:
        """The parameters in lists that can be updated together: they agree on all that the update depends on."""
        required = {STEP, *rule.momentum.scalars, *rule.buffers}
        counters = () if group["capturable"] else (AGE, STEP, *rule.momentum.scalars)
        resting = () if rule.estimator else self._estimator.select(group).buffers
        buckets: dict[Hashable, list[Tensor]] = {}
        for param in params:
            state = self.state[param]
            if not required <= state.keys():
                initialize(state, param, group, rule)
            if resting:
                rest(state, resting)
            if group["fused"]:
                key: Hashable = (param.device, param.dtype, cast(Tensor, param.grad).dtype, state[STEP].dtype)
            else:
                values = [state[name].item() if name in state else None for name in counters]
                key = (type(param), param.device, param.dtype, *values)
            buckets.setdefault(key, []).append(param)
        return list(buckets.values())

    def _check_capture(self) -> None:
        capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
        if capturing and not all(group["capturable"] for group in self.param_groups):
            owner = type(self).__name__
            raise RuntimeError(f"{owner}: a CUDA graph can capture step() only with capturable=True, got False")

    def _check(self, group: Mapping[str, Any], rule: Rule, params: Sequence[Tensor]) -> None:
        owner = type(self).__name__
        for param in params if group["fused"] else ():
            if not _can_fuse(param):
                raise RuntimeError(
                    f"{owner}: fused=True needs plain tensors of numbers on {' or '.join(BACKENDS)}, got "
                    f"{torch.typename(param)} of {param.dtype} on {param.device.type}; use foreach=True"
                )
        if not any(param.grad.is_sparse for param in params if param.grad is not None):
            return
        obstacle = (
            "weight_decay"
            if group["weight_decay"] != 0
            else "differentiable"
            if group["differentiable"]
            else f"momentum {type(rule.momentum).__name__}"
            if rule.momentum.buffers
            else f"estimator {type(rule.estimator).__name__}"
            if rule.estimator and not rule.estimator.sparse
            else None
        )
        if obstacle:
            raise RuntimeError(
                f"{owner} does not support sparse gradients with {obstacle}, which changes coordinates that have none; "
                "use dense gradients (sparse=False), or PartialAdagrad without weight decay"
            )

    def _update(self, group: dict[str, Any], rule: Rule, params: Sequence[Tensor], *, foreach: bool) -> None:
        """Update a bucket, as one list of tensors or one by one."""
        states = [self.state[param] for param in params]
        advance(states, rule)
        if not self._is_divisible(group, rule):
            rows = [self._stage(group, rule, param) for param in params]
            units = [(rows, states)] if foreach else [([row], [state]) for row, state in zip(rows, states, strict=True)]
            for unit, its_states in units:
                self._apply(rule, rule.hyper(group, *counts(its_states, group, rule)), unit, its_states)
        else:
            hyper = rule.hyper(group, *counts(states, group, rule))
            rows = self._joined(group, rule, params) if foreach else [self._stage(group, rule, p) for p in params]
            for batch in batches(rows):
                for unit in [batch] if foreach else [[row] for row in batch]:
                    self._apply(rule, hyper, unit, ())
        for row in rows:
            if row.land is not None:
                row.land()

    def _stage(self, group: Mapping[str, Any], rule: Rule, param: Tensor) -> Staged:
        buffers = [self.state[param][name] for name in rule.buffers]
        return stage(param, cast(Tensor, param.grad), buffers, group["state_dtype"])

    def _is_divisible(self, group: Mapping[str, Any], rule: Rule) -> bool:
        """Whether parameters may be joined and split: no numbers of their own, and no element depends on another."""
        if group["differentiable"] or group["capturable"] or rule.momentum.scalars:
            return False
        if rule not in self._elementwise:
            self._elementwise[rule] = is_elementwise(rule, group)
        return self._elementwise[rule]

    def _joined(self, group: Mapping[str, Any], rule: Rule, params: Sequence[Tensor]) -> list[Staged]:
        """The parameters of a bucket staged for foreach, the small ones as one."""
        small = [param for param in params if flattens(param, group["state_dtype"])]
        if len(small) < 2:
            return [self._stage(group, rule, param) for param in params]
        states = [self.state[param] for param in small]
        flat = self._flats.get(small[0])
        if flat is None or not flat.holds(small, states, rule.buffers):
            flat = self._flats[small[0]] = Flat(small, states, rule.buffers)
        members = set(small)
        return [flat.stage(), *(self._stage(group, rule, param) for param in params if param not in members)]

    def _apply(self, rule: Rule, hyper: Hyper, rows: Sequence[Staged], states: Sequence[dict[str, Tensor]]) -> None:
        """The rule on staged parameters, all at once."""
        lift = Functional.lift if hyper.differentiable else TensorList.lift
        param = lift([row.param for row in rows])
        state = {name: lift([row.buffers[i] for row in rows]) for i, name in enumerate(rule.buffers)}
        for name in rule.momentum.scalars:
            state[name] = TensorList.lift([each[name] for each in states])
        rule.update(param, lift([row.grad for row in rows]), hyper, state)
        if hyper.differentiable:
            rows[0].param.copy_(param.value)
            for name in rule.buffers:
                value = state[name].value
                states[0][name] = torch.view_as_complex(value) if states[0][name].is_complex() else value

    # -- state from elsewhere

    def warm_start(self, source: Optimizer) -> None:
        """Take over the moments and step counts of an optimizer that has been training the same parameters.

        Hyperparameters stay this optimizer's own: that is how one switches from Adam to Padam in mid-training. State
        that the source does not have starts afresh, with its own bias correction.

        Args:
            source: holds state for parameters of this optimizer, under the names of torch.optim.

        Raises:
            ValueError: where the source has no state that this optimizer could use.

        Example:
            >>> import torch
            >>> from partial_adaptive import Padam
            >>> weight = torch.nn.Parameter(torch.ones(3))
            >>> adam = torch.optim.Adam([weight])
            >>> weight.sum().backward()
            >>> adam.step()
            >>> padam = Padam([weight], lr=0.1)
            >>> padam.warm_start(adam)
            >>> padam.state[weight]["step"], padam.param_groups[0]["lr"]
            (tensor(1.), 0.1)
        """
        taken = 0
        for group in self.param_groups:
            rule = self._rule(group)
            for param in group["params"]:
                theirs = source.state.get(param, {})
                names = {STEP, AGE, *rule.momentum.scalars, *rule.buffers} & theirs.keys()
                if not names - {STEP}:
                    continue
                self.state[param] = {name: placed(name, theirs[name], param, group, rule) for name in names}
                taken += 1
        if not taken:
            raise ValueError(
                f"source must hold state that {type(self).__name__} can use for parameters of this optimizer, "
                f"got {type(source).__name__} with {len(source.state)} parameters' state"
            )

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load a checkpoint of this class, or of the torch.optim optimizer that it generalizes.

        Hyperparameters come from the checkpoint, and where it has none (`partial`, in torch's) stay as they are here.
        State keeps its own dtype if `state_dtype` says so.
        """
        saved: StateDict = {}
        own = [dict(group) for group in self.param_groups]
        with self.register_load_state_dict_pre_hook(lambda _, checkpoint: saved.update(checkpoint)):
            super().load_state_dict(state_dict)
        # torch casts state to the parameter's dtype, which would lose what a wider state_dtype has kept.
        for group, before, saved_group in zip(self.param_groups, own, saved["param_groups"], strict=True):
            group.update({name: value for name, value in before.items() if name not in saved_group})
            rule = self._rule(group)
            for param, key in zip(group["params"], saved_group["params"], strict=True):
                if key in saved["state"]:
                    self.state[param] = {
                        name: placed(name, value, param, group, rule) for name, value in saved["state"][key].items()
                    }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._fused = Fused()
        self._flats = {}
        self._elementwise = {}
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_estimator": self._estimator, "_momentum": self._momentum}


def _can_fuse(param: Tensor) -> bool:
    backend = BACKENDS.get(param.device.type)
    wrapped = is_traceable_wrapper_subclass(cast(Any, param)) and not hasattr(param, "to_local")
    return backend is not None and not wrapped and param.dtype.to_real() in backend.TYPES
