"""Stages: what they declare is checked where the optimizer is made, and what they see is what they were promised."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from third_party import AdamMini, Augmented, Bfloat16, Cautious, Choosing, Coded, MeanAbs, TrustRatio
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive import (
    ELEMENT,
    TENSOR,
    Estimator,
    Hyper,
    PartialAdaptiveOptimizer,
    Slot,
    Switch,
    Transform,
    number,
    whole,
)
from partial_adaptive.rules.numerators import ExpAvg, Gradient, HeavyBall
from partial_adaptive.rules.second_moments import AmsgradMax, ExpAvgSq, ExpAvgVar, SquareSum
from partial_adaptive.testing.harness import MODES, gradient, parameters, run, same, train, values


def estimator(**declared: Any) -> Estimator:
    """Adagrad's estimator with other declarations."""
    return type("Declared", (SquareSum,), declared)()


def make(**parts: Any) -> PartialAdaptiveOptimizer:
    return PartialAdaptiveOptimizer(parameters(), {"lr": 0.1}, **{"estimator": MeanAbs(), **parts})


DECLARATIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "a class for an instance": (lambda: make(estimator=ExpAvgSq), r"estimator must be .*write ExpAvgSq\(\)"),
    "a class in a switch": (lambda: make(estimator=Switch("amsgrad", AmsgradMax, ExpAvgSq())), r"write AmsgradMax\(\)"),
    "a momentum for an estimator": (lambda: make(estimator=ExpAvg()), "estimator must be a SecondMoment"),
    "an estimator for a momentum": (lambda: make(momentum=ExpAvgSq()), "momentum must be a Momentum"),
    "no estimator": (lambda: make(estimator=None), "estimator must be a SecondMoment"),
    "an estimator after": (lambda: make(after=(ExpAvgSq(),)), "after must be a Transform"),
    "no second choice": (lambda: make(estimator=Switch("amsgrad", AmsgradMax(), None)), "estimator must be"),
    "a string for a tuple": (lambda: make(estimator=estimator(reads="exp_avg")), "reads must be a tuple of names"),
    "hyperparameters as a string": (lambda: make(estimator=estimator(hyperparameters="eps")), "forget a comma"),
    "slots as a tuple": (lambda: make(estimator=estimator(slots=("sum",))), "slots must be a dict"),
    "a slot that is a number": (lambda: make(estimator=estimator(slots={"sum": 0.0})), "slots must be a dict"),
    "needs as a string": (lambda: make(estimator=estimator(needs="element")), "needs must be ELEMENT or TENSOR"),
    "an unknown hyperparameter": (lambda: make(estimator=estimator(hyperparameters=("epz",))), "did you mean 'eps'"),
    "the library's own": (
        lambda: make(estimator=estimator(own={"eps": number(1.0, meaning="ε")})),
        "'eps', which is the library's",
    ),
    "a number for a hyperparameter": (lambda: make(estimator=estimator(own={"leak": 0.9})), "own must be a dict"),
    "a name of hyper's": (
        lambda: make(estimator=estimator(own={"step": whole(1, meaning="what")})),
        "'step', by which `hyper` knows something else",
    ),
    "a reserved slot": (lambda: make(estimator=estimator(slots={"step": Slot()})), "'step', a reserved name"),
    "a slot of another shape for elements": (
        lambda: make(estimator=estimator(slots={"sum": Slot(shape=lambda shape: ())})),
        "must declare needs = TENSOR",
    ),
    "a slot twice": (
        lambda: make(estimator=estimator(slots={"exp_avg": Slot()}), momentum=ExpAvg()),
        "both keep state as 'exp_avg'",
    ),
    "a slot twice in after": (lambda: make(after=(HeavyBall(), HeavyBall())), "both keep state as 'momentum_buffer'"),
    "a reads that nobody keeps": (lambda: make(estimator=ExpAvgVar()), "reads 'exp_avg', which no stage"),
    "a first value that nobody declares": (
        lambda: make(estimator=estimator(slots={"sum": Slot(first="initial")})),
        "starts with 'initial', which is no",
    ),
    "a decay that it does not read": (lambda: make(estimator=estimator(decay="beta2")), "decay must name a number"),
    "a decay that corrects nothing": (
        lambda: make(estimator=estimator(decay="beta2", hyperparameters=("eps", "betas"))),
        "does not name 'bias_correction'",
    ),
    "a switch by nothing": (
        lambda: make(estimator=Switch("amsgradd", AmsgradMax(), ExpAvgSq())),
        r"'amsgradd', which is no hyperparameter of this optimizer \(did you mean 'amsgrad'",
    ),
    "one stage for several": (lambda: make(after=Cautious()), "after must be a tuple of stages, got one Cautious"),
    "own as a list": (lambda: make(estimator=estimator(own=[number(1.0, meaning="ε")])), "own must be a dict"),
    "no hyperparameters at all": (lambda: make(estimator=estimator(hyperparameters=None)), "tuple of names"),
    "an unknown law": (
        lambda: make(estimator=estimator(breaks=("gravity",))),
        "must name some of linear, units",
    ),
    "one name, two meanings": (
        lambda: make(
            estimator=estimator(own={"leak": number(0.9, meaning="one")}),
            after=(type("Other", (Cautious,), {"own": {"leak": number(0.5, meaning="another")}})(),),
        ),
        "'leak', which another stage declares otherwise",
    ),
    "the first edition's buffers": (lambda: make(estimator=estimator(buffers=("sum",))), "'buffers', which is now"),
    "the first edition's follow": (lambda: make(momentum=type("Old", (Gradient,), {"follow": None})()), "Transform"),
}


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_what_cannot_be_meant_is_refused_at_once(declaration: str) -> None:
    """A declaration that cannot be meant so is a TypeError where the optimizer is made, and says what to write."""
    attempt, message = DECLARATIONS[declaration]
    with pytest.raises(TypeError, match=message):
        attempt()


class Forgets(ExpAvgSq):
    """Returns nothing."""

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Any:
        super().scale(grad, hyper, exp_avg_sq)


class ReturnsItsState(ExpAvgSq):
    """Returns its slot, which would be overwritten."""

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        super().scale(grad, hyper, exp_avg_sq)
        return exp_avg_sq


class Compares(ExpAvgSq):
    """Asks for the truth of a number."""

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        factor = 2.0 if hyper.step > 3 else 1.0
        return super().scale(grad, hyper, exp_avg_sq).mul_(factor)


class LooksAtShape(ExpAvgSq):
    """Looks at the shape of what may be several tensors."""

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        return super().scale(grad, hyper, exp_avg_sq).mul_(grad.shape[0])


class Norm(ExpAvgSq):
    """Takes a norm of what may be several tensors."""

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        return super().scale(grad, hyper, exp_avg_sq).add_(grad.norm())


class ChangesItsArgument(Cautious):
    """Doubles in place what may be the state of the stage before it."""

    def apply(self, x: Tensor, hyper: Hyper, tensors: Any) -> Tensor:
        return x.mul_(2)


class ChangesTheNumerator(Cautious):
    """Changes the momentum's state."""

    def apply(self, x: Tensor, hyper: Hyper, tensors: Any) -> Tensor:
        tensors.numerator.mul_(0.5)
        return x


class NothingFromApply(Cautious):
    """Forgets its return."""

    def apply(self, x: Tensor, hyper: Hyper, tensors: Any) -> Any:
        x.mul(2)


REFUSED = {
    Forgets: "Forgets.scale must return the scale",
    ReturnsItsState: r"ReturnsItsState.scale must return a new tensor.*clone\(\)",
    Compares: "Compares.*the truth value.*hyper.when",
    LooksAtShape: r"LooksAtShape.*Tensor\.shape.*needs = TENSOR",
    Norm: r"Norm.*Tensor\.norm.*needs = TENSOR",
    NothingFromApply: "NothingFromApply must return a tensor",
    ChangesItsArgument: r"ChangesItsArgument\.apply changes in place",
    ChangesTheNumerator: r"ChangesTheNumerator\.apply changes in place",
}


@pytest.mark.parametrize("mode", [*MODES, {"differentiable": True}, {"capturable": True}], ids=str)
@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_what_a_rule_may_not_do_is_refused_in_every_mode(kind: type, mode: dict[str, bool]) -> None:
    """The first step runs the rule on symbols first: the same error in every mode, and nothing has changed."""
    parts = {"after": (kind(),)} if issubclass(kind, Transform) else {"estimator": kind()}
    params = [param.detach() for param in parameters()]  # differentiable mode takes no leaves that require grad
    optimizer = PartialAdaptiveOptimizer(params, {"lr": 0.1, **mode}, **{"estimator": ExpAvgSq(), **parts})
    for i, param in enumerate(params):
        param.grad = gradient(param, 0, i)
    with pytest.raises(TypeError, match=REFUSED[kind]):
        optimizer.step()
    same(values(params), values(parameters()), "a refused rule has moved a parameter")
    assert not optimizer.state


def test_fused_says_why_not() -> None:
    """A rule that needs whole tensors is refused by fused, by the name of the stage, before anything has changed."""
    params = parameters()
    optimizer = PartialAdaptiveOptimizer(params, {"lr": 0.1, "fused": True}, estimator=AdamMini())
    with pytest.raises(RuntimeError, match=r"fused=True .*AdamMini must see whole TENSORs; use foreach=True"):
        train(optimizer, 1)
    assert not optimizer.state


def test_tensor_rules_see_whole_tensors() -> None:
    """One value a row: state has the declared shape, and rows are scaled by their own mean square."""
    (weight,) = parameters([(3, 4)])
    optimizer = PartialAdaptiveOptimizer(
        [weight], {"lr": 0.1, "partial": 0.5, "eps": 0.0, "bias_correction": "consistent"}, estimator=AdamMini()
    )
    weight.grad = gradient(weight, 0)
    before = weight.detach().clone()
    optimizer.step()
    assert optimizer.state[weight]["exp_avg_sq"].shape == (3, 1)
    expected = before - 0.1 * weight.grad / weight.grad.square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("mode", [{"foreach": False}, {"foreach": True}], ids=str)
def test_direction_stages_see_the_parameter(mode: dict[str, bool]) -> None:
    """LAMB's trust ratio: the step has the length of α times the parameter's, for each parameter by itself."""
    params = parameters([(3, 4), (5,)])
    before = values(params)
    optimizer = PartialAdaptiveOptimizer(
        params, {"lr": 0.1, **mode}, estimator=ExpAvgSq(), momentum=ExpAvg(), after=(TrustRatio(),)
    )
    train(optimizer, 1)
    for param, start in zip(params, before, strict=True):
        assert (param.detach() - start).norm() == pytest.approx(0.1 * start.norm().item(), rel=1e-12)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_augmented_assignment_changes_the_state(mode: dict[str, bool]) -> None:
    """`sum += g·g` is Adagrad in every mode; it once bound a local name and left the state at 0."""
    ours, theirs = parameters(), parameters()
    optimizer = PartialAdaptiveOptimizer(ours, {"lr": 0.1, "eps": 1e-10, **mode}, estimator=Augmented())
    train(optimizer)
    train(pa.PartialAdagrad(theirs, lr=0.1))
    same(values(ours), values(theirs), "augmented assignment is lost", 1e-12)
    assert all(bool(state["sum"].gt(0).all()) for state in optimizer.state.values())


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_whole_numbers_and_options_choose_lines(mode: dict[str, bool]) -> None:
    """Changed in mid-training they count at the next step, in every mode: what is compiled is not kept for another."""
    results = []
    for options in ({"foreach": False}, mode):
        params = parameters()
        optimizer = PartialAdaptiveOptimizer(params, {"lr": 0.1, **options}, estimator=Choosing(), momentum=ExpAvg())
        for step, change in enumerate(({}, {"rounds": 3}, {"slow": True}, {"leak": 0.5}, {"rounds": 2, "slow": False})):
            optimizer.param_groups[0].update(change)
            train(optimizer, 1, start=step)
            assert type(optimizer.param_groups[0]["rounds"]) is int
        results.append(values(params))
    same(results[1], results[0], f"an option that changes lines is not followed ({mode})", 1e-12)
    with pytest.raises(ValueError, match=r"rounds must be a whole number in \[1, 8\], got 2.5"):
        PartialAdaptiveOptimizer(parameters(), {"lr": 0.1, "rounds": 2.5}, estimator=Choosing())


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_cautious_rests_where_the_gradient_disagrees(mode: dict[str, bool]) -> None:
    """A direction stage sees the gradient: coordinates whose momentum points the other way do not move."""
    (weight,) = parameters([(4,)])
    optimizer = PartialAdaptiveOptimizer(
        [weight], {"lr": 0.1, **mode}, estimator=ExpAvgSq(), momentum=ExpAvg(), after=(Cautious(),)
    )
    weight.grad = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = torch.tensor([1.0, -1.0, -0.1, 0.1], dtype=torch.float64)
    optimizer.step()
    assert (weight.detach() != before).tolist() == [True, True, False, False]


def test_coded_state() -> None:
    """A codec's parts are what the state and the checkpoint hold; training with it is close to training without."""
    plain, coded = parameters(), parameters()
    reference = PartialAdaptiveOptimizer(plain, {"lr": 0.1}, estimator=ExpAvgSq(), momentum=ExpAvg())
    optimizer = PartialAdaptiveOptimizer(coded, {"lr": 0.1}, estimator=Coded(), momentum=ExpAvg())
    train(reference, 4)
    train(optimizer, 4)
    same(values(coded), values(plain), "coded state is far from plain state", 1e-4)
    state = optimizer.state[coded[0]]
    assert {name: value.dtype for name, value in state.items() if name.startswith("exp_avg_sq")} == {
        "exp_avg_sq": torch.bfloat16,
        "exp_avg_sq_rest": torch.bfloat16,
    }
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twins = copy.deepcopy(coded)
    resumed = PartialAdaptiveOptimizer(twins, {"lr": 0.1}, estimator=Coded(), momentum=ExpAvg())
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(optimizer, 2, start=4)
    train(resumed, 2, start=4)
    same(values(twins), values(coded), "training resumed from coded state differs")
    with pytest.raises(RuntimeError, match="takes no coded slots"):
        train(PartialAdaptiveOptimizer(parameters(), {"lr": 0.1, "fused": True}, estimator=elementwise_coded()), 1)


def elementwise_coded() -> Estimator:
    """The same, for single elements."""
    return type("Elementwise", (ExpAvgSq,), {"needs": ELEMENT, "slots": {"exp_avg_sq": Slot(codec=Bfloat16())}})()


@pytest.mark.parametrize("correction", ["consistent", "adam", "none"])
def test_one_clock_where_p_leaves_zero(correction: str) -> None:
    """A step does not jump where p leaves 0 after a thousand steps: what it is multiplied by has one clock."""
    steps = []
    for partial in (0.0, 1e-7):
        (weight,) = parameters([(3,)])
        optimizer = pa.Padam([weight], partial=0.0, bias_correction=correction)
        train(optimizer, 1000)
        optimizer.param_groups[0]["partial"] = partial
        before = weight.detach().clone()
        train(optimizer, 1, start=1000)
        steps.append(weight.detach() - before)
    same([steps[1]], [steps[0]], f"a step of {correction} jumps where p leaves 0", 1e-5)


def test_own_hyperparameters_have_defaults_and_ranges() -> None:
    """They are completed, checked and named as the library's own are."""
    optimizer = PartialAdaptiveOptimizer(parameters(), {"lr": 0.1}, estimator=Choosing())
    assert (optimizer.defaults["leak"], optimizer.defaults["rounds"], optimizer.defaults["slow"]) == (0.99, 2, False)
    with pytest.raises(ValueError, match=r"leak must be a number in \[0, 1\], got 1.5"):
        PartialAdaptiveOptimizer(parameters(), {"lr": 0.1, "leak": 1.5}, estimator=Choosing())
    with pytest.raises(TypeError, match=r"'leek' \(did you mean 'leak'\?\)"):
        PartialAdaptiveOptimizer(parameters(), {"lr": 0.1, "leek": 0.5}, estimator=Choosing())


def test_tensor_and_element_agree() -> None:
    """The same text with needs = TENSOR takes the same steps: who runs it makes no difference."""
    whole_tensors = type("Whole", (ExpAvgSq,), {"needs": TENSOR})()

    def optimizer(params: Any, **options: Any) -> PartialAdaptiveOptimizer:
        return PartialAdaptiveOptimizer(params, {"lr": 0.1, **options}, estimator=whole_tensors, momentum=ExpAvg())

    for mode in ({"foreach": False}, {"foreach": True}):
        same(run(optimizer, **mode), run(pa.PartialAdam, **mode), "TENSOR rules are run otherwise", 1e-12)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_pause_that_begins_with_new_state(mode: dict[str, bool]) -> None:
    """Where p becomes 0 at the step at which other state is made, the count of gradients seen is kept all the same."""
    (weight,) = parameters([(3,)])
    optimizer = pa.PartialRMSprop([weight], **mode)
    train(optimizer, 2)
    optimizer.param_groups[0].update(partial=0.0, momentum=0.9)
    train(optimizer, 1, start=2)
    optimizer.param_groups[0]["partial"] = 0.125
    train(optimizer, 1, start=3)
    assert (optimizer.state[weight]["step"], optimizer.state[weight]["estimator_step"]) == (4, 3)
