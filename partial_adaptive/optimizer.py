"""The base class of the family: what torch.optim calls an optimizer, for any second moment and any numerator."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, StateDict

from partial_adaptive.execution import dynamo, loading, resting, scales
from partial_adaptive.execution.metrics import Metrics, metrics_of
from partial_adaptive.execution.nonfinite import Skips
from partial_adaptive.execution.plan import Planner
from partial_adaptive.execution.settings import rule_of
from partial_adaptive.execution.staging import without_autocast
from partial_adaptive.roles import Roles
from partial_adaptive.rules.hyperparameters import SHARED, complete, validated
from partial_adaptive.rules.numerators import Gradient, Momentum
from partial_adaptive.rules.options import AFTER, BEFORE
from partial_adaptive.rules.projection import Constraint, description
from partial_adaptive.rules.rounding import group_of
from partial_adaptive.rules.rule import Recipe, Rule
from partial_adaptive.rules.second_moments import SecondMoment
from partial_adaptive.rules.stage import Selectable, Stage, Switch, Transform

__all__ = ["Metrics", "PartialAdaptiveOptimizer"]


class PartialAdaptiveOptimizer(Optimizer):
    r"""The partially adaptive optimizer with any second-moment estimator and any momentum rule.

    For a parameter θ with gradient g at its own step t::

        g ← −g                      if maximize
        g ← g + λθ                  weight decay (θ ← (1 − αλ)θ instead if decoupled_weight_decay)
        g ← before(g)               stages of one's own, if there are any
        n ← momentum(g)             the numerator
        s ← estimator(g)            a scale in units of |g|, its ε inside
        x ← after(n/s^(2p))         p = partial; stages of one's own again
        θ ← θ − α·x
        θ ← the nearest point of X  in the metric s^(2p), if there is a constraint X

    Args:
        params: tensors, (name, tensor) pairs or dicts that define param groups, as for every `torch.optim.Optimizer`.
        defaults: the hyperparameters: `lr`, what the estimator and the momentum rule read, and any of `partial`
            (default 1/8), `weight_decay`, `decoupled_weight_decay`, `maximize`, `foreach`, `fused`, `capturable`,
            `differentiable`, `state_dtype`, `constraint` and `Options`. All can be set per param group and changed
            during training.
        estimator: gives s, or any other second moment.
        momentum: gives n; the gradient itself by default.
        before: change the gradient, one after the other.
        after: change the direction, one after the other.

    Raises:
        TypeError: for a hyperparameter that is unknown, missing, or of the wrong type, and for stages that cannot be
            meant so: a class for an instance, a name used twice, a `reads` that nobody keeps.
        ValueError: for one that is out of range.

    Example:
        >>> import torch
        >>> from partial_adaptive import PartialAdaptiveOptimizer
        >>> from partial_adaptive.rules.second_moments import AmsgradMax
        >>> from partial_adaptive.rules.numerators import ExpAvg
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = PartialAdaptiveOptimizer([weight], {"lr": 0.1}, estimator=AmsgradMax(), momentum=ExpAvg())
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.data
        tensor([0.9000, 0.9000, 0.9000])

    Attributes:
        member: the name by which a param group of another optimizer of the family can ask for this one; given where a
            class is defined, `class Mine(PartialAdaptiveOptimizer, member="mine")`. All of its arguments but `params`
            must have defaults then.
        recipe: the stages, from which every param group gets its rule, unless it names another member.

    Chen, Gu: Padam: Closing the Generalization Gap of Adaptive Gradient Methods in Training Deep Neural Networks.
    """

    member: ClassVar[str | None] = None
    _members: ClassVar[dict[str, type[Any]]] = {}

    def __init_subclass__(cls, *, member: str | None = None, **kwargs: Any) -> None:
        """Enter a class among those that a param group may name.

        Args:
            member: by which name; None for none. A class that is defined again takes the place of the earlier one.
            **kwargs: for other base classes.

        Raises:
            ValueError: where another class has the name.
        """
        super().__init_subclass__(**kwargs)
        cls.member = member
        if member is None:
            return
        other = cls._members.get(member, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"member must be a name that is not taken, got {member!r}, which is {other.__qualname__}'s"
            )
        cls._members[member] = cls

    def __init__(
        self,
        params: ParamsT,
        defaults: Mapping[str, Any],
        *,
        estimator: Selectable[SecondMoment],
        momentum: Selectable[Momentum] | None = None,
        before: Sequence[Selectable[Transform]] = (),
        after: Sequence[Selectable[Transform]] = (),
    ) -> None:
        momentum = momentum if momentum is not None else Gradient()
        for argument, stages in (("before", before), ("after", after)):
            if isinstance(stages, Stage | Switch):
                raise TypeError(f"{argument} must be a tuple of stages, got one {type(stages).__name__}: write (…,)")
        name = type(self).__name__
        self.recipe = Recipe(name, (*BEFORE, *before), momentum, estimator, (*after, *AFTER))
        self._start_planning()
        filled = complete(defaults, self.recipe.table, name)
        super().__init__(params, filled | validated(filled, self.recipe.table, name))

    def _start_planning(self) -> None:
        self._roles = Roles(self.recipe, self._members)
        self._planner = Planner(self._roles.recipe_of, self._roles.foreign)
        self._tracer = dynamo.Tracer(self._planner)
        if not hasattr(self, "_skips"):
            self._skips = Skips()

    def recipe_of(self, group: Mapping[str, Any]) -> Recipe:
        """The stages of a param group: the optimizer's own, or those of the member that it names.

        Args:
            group: one of the optimizer's param groups, or what is to become one.

        Raises:
            ValueError: for a member that does not exist.
        """
        return self._roles.recipe_of(group)

    def _defaults_of(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """What a group holds where it says nothing: its member's defaults; steps and state are of one kind for all."""
        example = self._roles.example(group)
        if example is None:
            return self.defaults
        return example.defaults | {name: self.defaults[name] for name in SHARED}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group; see `torch.optim.Optimizer.add_param_group`. Raises before anything is added.

        Args:
            param_group: with `params`, and any hyperparameters. With an entry `member`, the name of a member of the
                family, the group is updated as that member would, with its hyperparameters and its defaults; of this
                optimizer's it takes how steps are run and what is kept: `maximize`, `foreach`, `fused`, `capturable`,
                `differentiable`, `state_dtype`, `rounding`, `rounding_seed` and `skip_nonfinite`.

        Raises:
            ValueError: for a member that does not exist, or a hyperparameter that is out of its range.
            TypeError: for a hyperparameter that the named member does not have, or of the wrong type, and for a member
                with arguments that have no defaults.
        """
        given: Any = param_group
        if not isinstance(given, dict):  # torch says what is wrong
            super().add_param_group(given)
            return
        recipe, defaults = self.recipe_of(param_group), self._defaults_of(param_group)
        if recipe is not self.recipe:
            for name in self._roles.foreign(param_group):
                known = ", ".join(recipe.table)
                raise TypeError(f"{recipe.owner} got an unexpected hyperparameter {name!r}; it takes {known}")
        param_group.update(validated(defaults | param_group, recipe.table, recipe.owner))
        self._whole_rule(defaults | param_group)
        own, self.defaults = self.defaults, defaults
        try:  # torch fills in what is missing
            super().add_param_group(param_group)
        finally:
            self.defaults = own

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step for every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            ValueError, TypeError: where a hyperparameter is not allowed, before anything has changed.
            RuntimeError: where a parameter, its gradient or its state do not fit, by name, before anything has changed.
        """
        with torch.no_grad():
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            if torch.compiler.is_dynamo_compiling():
                dynamo.trace(self._init_group, self.param_groups)
                return loss
            verdict = self._skips.verdict(self.param_groups, getattr(self, "found_inf", None))
            scale = getattr(self, "grad_scale", None)
            with without_autocast({*self._device_types()}):
                for task in self._planner.plan(self.param_groups, self.state, scale, verdict):
                    task()
        return loss

    def _device_types(self) -> list[str]:
        return [group["params"][0].device.type for group in self.param_groups if group["params"]]

    def _patch_step_function(self) -> None:
        """Put around `step` what torch.optim does, and what `torch.compile` needs around that."""
        cls = type(self)
        if not getattr(cls.step, "hooked", False):
            cls.step = dynamo.entered(cls.step)  # type: ignore[method-assign]  # as torch.optim does it
        super()._patch_step_function()

    def _init_group(self, tensors: list[Tensor] | None) -> dynamo.Constants:
        """Prepare a step that is to be part of a graph; Dynamo calls this, see `execution/dynamo.py`."""
        if self._skips.verdict(self.param_groups, getattr(self, "found_inf", None)) is not None:
            return dynamo.NOWHERE
        return self._tracer.prepare(self.param_groups, self.state, tensors)

    def scale_of(self, param: Tensor) -> Tensor | None:
        """The scale s by which `step` would now divide the numerator of a parameter (its power s^(2p), precisely).

        Nothing is changed. None where p = 0 or the parameter has no gradient.

        Args:
            param: one of the optimizer's parameters.

        Returns:
            A tensor of the parameter's shape (complex ones as real pairs), in units of |g|, or None. Of a DTensor it is
            one, placed as that; all processes must ask.

        Raises:
            ValueError: where the tensor is not one of the optimizer's parameters.
        """
        for group in self.param_groups:
            if any(param is candidate for candidate in group["params"]):
                rule = rule_of(self.recipe_of(group), group_of(group, param))
                return scales.scale_of(param, group, self.recipe_of(group).table, self.state.get(param, {}), rule)
        raise ValueError(f"param must be one of the optimizer's parameters, got a tensor of shape {tuple(param.shape)}")

    def metrics(self) -> Metrics:
        """What the next step would do: norms of gradient and update, effective steps, and where ε decides the scale.

        Nothing is changed. Call it between `backward` and `step`, with gradients that are not scaled for mixed
        precision; where parameters are DTensors, in all processes. The rule is run on copies of one parameter after the
        other, several times for the quantiles: that takes as long as 25 to 40 steps with `foreach=False`.

        Returns:
            Numbers of all param groups together, and of each.

        Example:
            >>> import torch
            >>> from partial_adaptive import Padam
            >>> weight = torch.nn.Parameter(torch.ones(4))
            >>> optimizer = Padam([weight], lr=0.1, partial=1 / 2)
            >>> (3 * weight).sum().backward()
            >>> metrics = optimizer.metrics()
            >>> metrics.grad_norm, round(metrics.update_norm, 6), metrics.groups[0].eps_floor
            (6.0, 0.2, 0.0)
        """
        return metrics_of(self.param_groups, self.state, self.recipe_of, getattr(self, "found_inf", None))

    @property
    def skipped(self) -> int:
        """How many steps have been skipped: with `skip_nonfinite`, or as `found_inf` said.

        The count is on the device, which reading it waits for. Pickle and deepcopy keep it; `state_dict`, in torch's
        format, has no place for it.
        """
        return self._skips.count

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `torch.amp.GradScaler` may leave unscaling to `step`, by giving it `grad_scale` and `found_inf`."""
        return all(group["fused"] for group in self.param_groups)

    # -- state from elsewhere

    def warm_start(self, source: Optimizer) -> None:
        """Take over the moments and step counts of an optimizer that has been training the same parameters.

        Hyperparameters stay this optimizer's own: that is how one switches from Adam to Padam in mid-training. State
        that the source does not have starts afresh, with its own bias correction.

        Args:
            source: holds state for parameters of this optimizer, under the names of torch.optim.

        Raises:
            ValueError: where the source has no state that this optimizer could use, or of another shape.

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
        if not isinstance(source, Optimizer):
            raise TypeError(f"source must be an optimizer, got a {type(source).__name__}")
        found = loading.taken(source.state, self.param_groups, self.recipe_of)
        if not found:
            raise ValueError(
                f"source must hold state that {type(self).__name__} can use for parameters of this optimizer, "
                f"got {type(source).__name__} with {len(source.state)} parameters' state"
            )
        self.state.update(found)

    def state_dict(self) -> StateDict:
        """What `torch.optim.Optimizer.state_dict` gives, with the same entries whatever p is and was.

        At p = 0 the second moment's are those that it would start with. Constraints are plain data, which load
        anywhere. Hooks that are registered see it so.
        """

        def plain(_: Optimizer, state_dict: StateDict) -> None:
            resting.in_full(state_dict, self.param_groups, self.recipe_of)
            for group in state_dict["param_groups"]:
                if isinstance(group["constraint"], Constraint):
                    group["constraint"] = description(group["constraint"])

        with self.register_state_dict_post_hook(plain, prepend=True):
            return super().state_dict()

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load a checkpoint of this class, or of the torch.optim optimizer that it generalizes.

        Hyperparameters come from the checkpoint, and where it has none (`partial`, in torch's) stay as they are here.
        So do modes that those of the checkpoint exclude. State keeps its dtype, unless `state_dtype` says otherwise or
        this optimizer's own is wider. Hooks that are registered run as torch runs them, and their work stands. Whatever
        raises, one of them or an interruption, leaves the optimizer as it was.

        Args:
            state_dict: what `state_dict` of an optimizer of the same parameters gave; it stays as it is.

        Raises:
            ValueError: where it does not fit the parameters, before anything has changed.
        """
        loaded: list[loading.Loaded] = []

        def before(_: Optimizer, checkpoint: StateDict) -> None:
            loaded[:] = [loading.read(checkpoint, self.param_groups, self.recipe_of)]

        def after(_: Optimizer) -> None:
            for found in loaded:  # none, for a hook that was left behind as it was being registered
                for group, fitting in zip(self.param_groups, found.groups, strict=True):
                    group.update(fitting)
                self.state.update(found.state)

        # Torch casts state to the parameter's dtype, which would lose what a wider one has kept.
        kept = self.state, self.param_groups
        try:
            with (
                self.register_load_state_dict_pre_hook(before),
                self.register_load_state_dict_post_hook(after, prepend=True),
            ):
                super().load_state_dict(state_dict)
        except BaseException:  # an interruption, too
            self.state, self.param_groups = kept
            raise

    def _whole_rule(self, group: Mapping[str, Any]) -> Rule:
        """A group's rule with its second moment, which p = 0 has no use for now but may have later."""
        return self.recipe_of(group).rule(group, scaled=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not hasattr(self, "_planner"):  # made by pickle or copy; what is loading keeps what CUDA graphs use
            self._start_planning()
        for group in self.param_groups:
            recipe, defaults = self.recipe_of(group), self._defaults_of(group)
            known = {name: defaults[name] for name in recipe.table if name in defaults}  # wrappers add their own
            for name, value in complete(known, recipe.table, recipe.owner).items():
                group.setdefault(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"recipe": self.recipe, "_skips": self._skips}
