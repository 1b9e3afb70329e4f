"""The test of the tests: for each check an optimizer that is broken just there, and which the check must refuse."""

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, StateDict

from partial_adaptive import TENSOR, Hyper, Padam, PartialAdam, PartialAdaptiveOptimizer
from partial_adaptive.rules.numerators import ExpAvg
from partial_adaptive.rules.second_moments import ExpAvgSq, Quotient
from partial_adaptive.testing import Make, factory

MUTANTS: dict[str, Make] = {}


def mutant(check: str) -> Callable[[Any], Any]:
    """Enter an estimator, a momentum rule, an optimizer or a factory as broken in the way that `check` must see."""

    def enter(broken: Any) -> Any:
        if isinstance(broken, type) and issubclass(broken, ExpAvgSq):
            MUTANTS[check] = lambda params, **options: factory(broken(), ExpAvg())(params, **options)
        elif isinstance(broken, type) and issubclass(broken, ExpAvg):
            MUTANTS[check] = lambda params, **options: factory(ExpAvgSq(), broken())(params, **options)
        else:
            MUTANTS[check] = broken
        return broken

    return enter


def hooked(check: str, *, after: bool = False) -> Callable[[Any], Any]:
    """Enter PartialAdam with a function that meddles with it before, or after, every step."""

    def enter(meddle: Callable[[PartialAdam], None]) -> Any:
        def make(params: Any, **options: Any) -> PartialAdam:
            optimizer = PartialAdam(params, **options)
            register = optimizer.register_step_post_hook if after else optimizer.register_step_pre_hook
            register(lambda it, *_: meddle(it))
            return optimizer

        MUTANTS[check] = make
        return meddle

    return enter


def tensors(optimizer: Optimizer) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def grad_of(param: Tensor) -> Tensor:
    assert param.grad is not None
    return param.grad


# -- estimators and momentum rules


@mutant("check_grad_untouched")
class WritesGrad(ExpAvgSq):
    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad.abs_(), hyper, *buffers)


@mutant("check_feasible_set")
class LosesTheWeights(ExpAvgSq):
    def divide(self, numerator: Tensor, grad: Tensor, hyper: Hyper, *buffers: Any) -> Quotient:
        quotient = super().divide(numerator, grad, hyper, *buffers)
        return Quotient(quotient.divided(), quotient.denominator.mul(0).add(1))


@mutant("check_zero_dim_and_empty_tensors")
class LooksAtDimensions(ExpAvgSq):
    needs = TENSOR

    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad, hyper, *buffers).mul(1 + getattr(grad, "ndim", 0))


@mutant("check_memory_layouts")
class AssumesContiguous(ExpAvgSq):
    needs = TENSOR

    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad, hyper, *(buffer.view(-1).view_as(buffer) for buffer in buffers))


@mutant("check_schedulers")
class RemembersRate(ExpAvg):
    needs = TENSOR

    def step_size(self, hyper: Hyper) -> Any:
        self.lr = getattr(self, "lr", hyper.lr)
        return self.lr


@mutant("check_momentum_cycling")
class RemembersDecay(ExpAvg):
    needs = TENSOR

    def numerator(self, grad: Tensor, hyper: Hyper, exp_avg: Tensor) -> Tensor:
        self.beta1 = getattr(self, "beta1", hyper.beta1)
        return exp_avg.lerp_(grad, 1 - self.beta1)


@hooked("check_state", after=True)
def keeps_what_is_not_declared(optimizer: PartialAdam) -> None:
    for state in optimizer.state.values():
        state["momentum"] = torch.zeros(())


@mutant("check_scale_is_a_new_tensor")
class ReturnsItsState(ExpAvgSq):
    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        super().scale(grad, hyper, exp_avg_sq)
        return exp_avg_sq


@mutant("check_stages_hold_no_state")
@mutant("check_resume")
class Counts(ExpAvgSq):
    needs = TENSOR  # the text of other rules is kept, and what it counts is how often that was recorded

    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        self.count = getattr(self, "count", 0) + 1
        return super().scale(grad, hyper, *buffers).mul_(self.count)


@mutant("check_units")
class Squared(ExpAvgSq):
    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        return super().scale(grad, hyper, exp_avg_sq).square()


@mutant("check_continuity")
class Jumps(ExpAvgSq):
    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad, hyper, *buffers).mul_(hyper.when(hyper.partial > 0.25, 2.0, 1.0))


@mutant("check_zero_gradients")
@mutant("check_state_creating_step")
class NoEps(ExpAvgSq):
    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad, hyper, *buffers).sub_(hyper.eps)


@mutant("check_learning_rate_scales_steps")
class ReadsRate(ExpAvgSq):
    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad, hyper, *buffers).add_(hyper.lr)


@mutant("check_estimator_age")
class CountsFromTheParametersStart(ExpAvgSq):
    decay = None  # type: ignore[assignment]  # as every Stage may have it

    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad, hyper, *buffers).div_((1 - hyper.beta2**hyper.step) ** 0.5)


@hooked("check_foreach")
def moves_lists_otherwise(optimizer: PartialAdam) -> None:
    for param in tensors(optimizer) if optimizer.param_groups[0]["foreach"] else ():
        param.grad = grad_of(param) * 1.001


@mutant("check_capturable")
class LooksAtTypeOfStep(ExpAvgSq):
    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad, hyper, *buffers).mul_(1 if isinstance(hyper.step, float) else 2)


@mutant("check_tensor_hyperparameters")
class LooksAtTypeOfExponent(ExpAvgSq):
    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad, hyper, *buffers).mul_(2 if isinstance(hyper.partial, Tensor) else 1)


@mutant("check_differentiable")
class Detaches(ExpAvgSq):
    needs = TENSOR

    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        return super().scale(grad, hyper, *buffers).detach()


class ClaimsSparse(ExpAvgSq):
    sparse = True


MUTANTS["check_sparse"] = factory(ClaimsSparse())


@mutant("check_pickle")
def holds_a_lambda(params: ParamsT, **options: Any) -> PartialAdaptiveOptimizer:
    estimator = ExpAvgSq()
    vars(estimator).update(square=lambda x: x * x)
    return factory(estimator, ExpAvg())(params, **options)


# -- hyperparameters that are not taken as they are given


@mutant("check_unknown_keyword")
def swallows(params: ParamsT, learning_rate: Any = None, **options: Any) -> PartialAdam:
    return PartialAdam(params, **options)


@mutant("check_named_parameters")
def drops_names(params: Any, **options: Any) -> PartialAdam:
    return PartialAdam([param[1] if isinstance(param, tuple) else param for param in params], **options)


@mutant("check_tensors_changed_in_place")
def copies_tensors(params: ParamsT, **options: Any) -> PartialAdam:
    copies: dict[str, Any] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in options.items()}
    return PartialAdam(params, **copies)


@mutant("check_state_dtype")
def ignores_state_dtype(params: ParamsT, state_dtype: torch.dtype | None = None, **options: Any) -> PartialAdam:
    return PartialAdam(params, state_dtype=torch.bfloat16 if state_dtype else None, **options)


@hooked("check_param_groups")
def first_group_for_all(optimizer: PartialAdam) -> None:
    for group in optimizer.param_groups:
        group["lr"] = optimizer.param_groups[0]["lr"]


@hooked("check_failure_changes_nothing")
def tames_what_is_out_of_range(optimizer: PartialAdam) -> None:
    for group in optimizer.param_groups:
        group["partial"] = min(group["partial"], 0.5)


@hooked("check_zero_exponent_is_linear")
@hooked("check_zero_exponent_keeps_nothing")
def never_zero(optimizer: PartialAdam) -> None:
    for group in optimizer.param_groups:
        group["partial"] = max(group["partial"], 1e-3)


@hooked("check_maximize")
def always_minimizes(optimizer: PartialAdam) -> None:
    for group in optimizer.param_groups:
        group["maximize"] = False


@hooked("check_coupled_decay")
def always_decoupled(optimizer: PartialAdam) -> None:
    for group in optimizer.param_groups:
        group["decoupled_weight_decay"] = True


@hooked("check_decoupled_decay")
def always_coupled(optimizer: PartialAdam) -> None:
    for group in optimizer.param_groups:
        group["decoupled_weight_decay"] = False


@hooked("check_exponent_changes")
def keeps_first_exponent(optimizer: PartialAdam) -> None:
    for group in optimizer.param_groups:
        group["partial"] = group.setdefault("first_partial", group["partial"])


# -- gradients, parameters and state that are meddled with


@hooked("check_missing_gradients")
def makes_zero_gradients(optimizer: PartialAdam) -> None:
    for param in tensors(optimizer):
        param.grad = torch.zeros_like(param) if param.grad is None else param.grad


@hooked("check_complex")
def conjugates(optimizer: PartialAdam) -> None:
    for param in tensors(optimizer):
        param.grad = grad_of(param).conj_physical()


@hooked("check_sparse_with_decay")
def makes_dense(optimizer: PartialAdam) -> None:
    for param in tensors(optimizer):
        param.grad = grad_of(param).to_dense()


@hooked("check_late_parameters", after=True)
def one_count_for_all(optimizer: PartialAdam) -> None:
    latest = max(state["step"] for state in optimizer.state.values())
    for state in optimizer.state.values():
        state["step"].copy_(latest)


@hooked("check_mixed_dtypes", after=True)
def rounds_to_first_dtype(optimizer: PartialAdam) -> None:
    for param in tensors(optimizer):
        if param.is_floating_point():
            param.data = param.data.to(tensors(optimizer)[0].dtype).to(param.dtype)


@hooked("check_low_precision", after=True)
def widens(optimizer: PartialAdam) -> None:
    for param in tensors(optimizer):
        param.data = param.data.float()


@hooked("check_estimator_pause", after=True)
def forgets_age(optimizer: PartialAdam) -> None:
    for state in optimizer.state.values():
        state.pop("estimator_step", None)


# -- optimizers whose methods are overridden, though their classes are final


class CallsStepAgain(Padam):  # type: ignore[misc]  # final: what it may not be is what is tested
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return super().step(closure)


@mutant("check_hooks_fire_once")
def calls_step_again(params: ParamsT, **options: Any) -> Padam:
    Padam(params, **options)  # the first instance is when torch puts the hooks into a class
    return CallsStepAgain(params, **options)


@mutant("check_closure")
class IgnoresClosure(PartialAdam):  # type: ignore[misc]  # final: what it may not be is what is tested
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return super().step()


@mutant("check_scale_of")
class StartsOverWhenLookedAt(PartialAdam):  # type: ignore[misc]  # final: what it may not be is what is tested
    def scale_of(self, param: Tensor) -> Tensor | None:
        scale = super().scale_of(param)
        self.state.pop(param, None)
        return scale


@mutant("check_foreach_groups_by_step")
def one_bucket(params: ParamsT, **options: Any) -> PartialAdam:
    optimizer = PartialAdam(params, **options)

    def level(it: Optimizer, *_: Any) -> None:
        steps = [state["step"] for state in it.state.values()]
        for step in steps if it.param_groups[0]["foreach"] else ():
            step.copy_(max(steps))

    optimizer.register_step_pre_hook(level)
    return optimizer


@mutant("check_resume_after_switching_on")
class ForgetsStart(PartialAdam):  # type: ignore[misc]  # final: what it may not be is what is tested
    def load_state_dict(self, state_dict: StateDict) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state.pop("estimator_step", None)


@mutant("check_loading_copies")
class SharesTheCheckpoint(PartialAdam):  # type: ignore[misc]  # final: what it may not be is what is tested
    def load_state_dict(self, state_dict: StateDict) -> None:
        super().load_state_dict(state_dict)
        for key, param in enumerate(tensors(self)):
            self.state[param] = dict(state_dict["state"][key])


@mutant("check_loading_hyperparameters")
class LoadsDefaults(PartialAdam):  # type: ignore[misc]  # final: what it may not be is what is tested
    def load_state_dict(self, state_dict: StateDict) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["partial"] = self.defaults["partial"]


@mutant("check_loading_keeps_state_dtype")
class LoadsAsTorchDoes(PartialAdam):  # type: ignore[misc]  # final: what it may not be is what is tested
    load_state_dict = Optimizer.load_state_dict


@mutant("check_deepcopy")
class CopiesShallowly(PartialAdam):  # type: ignore[misc]  # final: what it may not be is what is tested
    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copy.copy(self)


# -- what real training does to tensors


@mutant("check_nothing_is_remembered")
@mutant("check_gradients_are_freed")
def holds_on(params: ParamsT, **options: Any) -> PartialAdam:
    optimizer = PartialAdam(params, **options)
    held: dict[Tensor, tuple[Any, Tensor | None]] = {}

    def restore(it: Optimizer, *_: Any) -> None:
        for param in held:
            it.state.setdefault(param, held[param][0])

    def keep(it: Optimizer, *_: Any) -> None:
        held.update({param: (it.state[param], param.grad) for param in tensors(it) if param in it.state})

    optimizer.register_step_pre_hook(restore)
    optimizer.register_step_post_hook(keep)
    return optimizer


@hooked("check_changing_subsets")
def steps_only_as_a_whole(optimizer: PartialAdam) -> None:
    if any(param.grad is None for param in tensors(optimizer)):
        for param in tensors(optimizer):
            param.grad = None


@hooked("check_failure_in_the_middle")
def repairs_in_passing(optimizer: PartialAdam) -> None:
    for param, state in optimizer.state.items():
        state["step"] = torch.tensor(1.0)
        if state["exp_avg"].shape != param.shape:
            state.clear()


@hooked("check_conversion")
def rounds_what_is_wide(optimizer: PartialAdam) -> None:
    for param, state in optimizer.state.items():
        if optimizer.param_groups[0]["fused"] and param.dtype is torch.float64:
            state["exp_avg"].mul_(1.01)


@hooked("check_half_precision", after=True)
def overflows(optimizer: PartialAdam) -> None:
    for param in tensors(optimizer):
        if param.dtype is torch.float16:
            param.data += 1e5


@hooked("check_tied_memory")
def unties(optimizer: PartialAdam) -> None:
    if optimizer.param_groups[0]["foreach"] is not False:
        for param in tensors(optimizer):
            param.data = param.data.clone()


@hooked("check_lazy_gradients")
def ignores_the_negative_bit(optimizer: PartialAdam) -> None:
    for param in tensors(optimizer):
        if grad_of(param).is_neg():
            param.grad = grad_of(param).neg()


@hooked("check_version_counters", after=True)
def hides_the_change(optimizer: PartialAdam) -> None:
    for param in tensors(optimizer):
        torch._C._autograd._unsafe_set_version_counter((param,), (0,))


@hooked("check_default_device", after=True)
def makes_tensors_anywhere(optimizer: PartialAdam) -> None:
    for state in optimizer.state.values():
        state["exp_avg"] = state["exp_avg"] * torch.tensor(1.0)


@mutant("check_minimizes")
class Ascends(ExpAvg):
    def step_size(self, hyper: Hyper) -> Any:
        return super().step_size(hyper) * -1


@hooked("check_declared_values", after=True)
def stores_what_it_is_given(optimizer: PartialAdam) -> None:
    optimizer.param_groups[0]["lr"] = type("Rate", (float,), {})(0.1)
