"""The second moments P, side by side: each applies P^(−p) to the numerator.

An estimator is written for one real, dense tensor, in ordinary in-place style. The optimizer runs the same code per
tensor, on lists of tensors, differentiably and compiled, and takes care of maximize, weight decay, complex and sparse
gradients and everything else that is not the estimator's own arithmetic.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import repeat
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor

from partial_adaptive.rules.hyperparameters import Hyper
from partial_adaptive.rules.power import divisor
from partial_adaptive.rules.stage import Slot, Stage, average_, average_square_


class Quotient(NamedTuple):
    """A direction n/w: the last operation of a step can divide on its way.

    Args:
        numerator: n.
        denominator: w, with a value per element, or what broadcasts to them.
        direction: n/w where it is known already.
    """

    numerator: Any
    denominator: Any
    direction: Any = None

    def divided(self) -> Any:
        """The direction itself, not the numerator."""
        return self.numerator.div(self.denominator) if self.direction is None else self.direction


class SecondMoment(Stage, ABC):
    """P, whose power −p is applied to the numerator."""

    @abstractmethod
    def divide(self, numerator: Tensor, grad: Tensor, hyper: Hyper, *slots: Any) -> Tensor | Quotient:
        """Take `grad` into the slots, in place, and return P^(−p) n; neither argument is changed."""


@dataclass(frozen=True)
class Null(SecondMoment):
    """P⁰ = 1: sees nothing, keeps nothing, and returns n.

    Args:
        decay: that of the second moment in whose place it stands, on which the authors' bias correction depends.
    """

    decay: str | None = None

    sparse = True

    def divide(self, numerator: Tensor, grad: Tensor, hyper: Hyper) -> Tensor:
        return numerator


class Estimator(SecondMoment):
    """A second moment with a value per element, row or tensor: s = √v + ε in units of |g|, and n/s^(2p).

    What a new one implements is `scale`.

    Attributes:
        of_numerator: whether `scale` gets the numerator in the place of the gradient.
    """

    hyperparameters: tuple[str, ...] = ("eps",)
    of_numerator: bool = False

    @abstractmethod
    def scale(self, grad: Tensor, hyper: Hyper, *slots: Any) -> Tensor:
        """Take `grad` into the slots, in place, and return s > 0 as a new tensor, its ε included.

        s has the gradient's shape or broadcasts to it.
        """

    def measured(self, numerator: Tensor, grad: Tensor, hyper: Hyper, *slots: Any) -> Tensor:
        """The scale of what it is made from."""
        return self.scale(numerator if self.of_numerator else grad, hyper, *slots)

    def observe(self, direction: Tensor, hyper: Hyper, *slots: Any) -> None:
        """Take in the direction n/s^(2p) that is about to be applied; most estimators have no use for it."""

    def divide(self, numerator: Tensor, grad: Tensor, hyper: Hyper, *slots: Any) -> Quotient:
        """n/s^(2p)."""
        scale: Any = self.measured(numerator, grad, hyper, *slots)
        if scale is None or isinstance(scale, int | float):
            raise TypeError(
                f"{type(self).__name__}.scale must return the scale s, a new tensor, got {scale}; is a return missing?"
            )
        if scale is grad or scale is numerator or any(map(is_, slots, repeat(scale))):
            raise TypeError(
                f"{type(self).__name__}.scale must return a new tensor, got its own state or what it was given; return "
                "a clone() of it"
            )
        if isinstance(scale, Tensor) and scale._is_view():  # maybe of its state, which the power would overwrite
            scale = scale.clone()
        weights = divisor(scale, hyper)
        if type(self).observe is Estimator.observe:
            return Quotient(numerator, weights)
        direction = numerator.div(weights)
        self.observe(direction, hyper, *slots)
        return Quotient(numerator, weights, direction)


class SquareSum(Estimator):
    """s = √(Σg²) + ε: Adagrad's.

    Duchi, Hazan, Singer: Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, JMLR 2011.
    """

    slots = {"sum": Slot(first="initial_accumulator_value", nonnegative=True)}
    hyperparameters = ("eps", "initial_accumulator_value")
    sparse = True

    def scale(self, grad: Tensor, hyper: Hyper, sum: Tensor) -> Tensor:
        sum.addcmul_(grad, grad)
        return sum.sqrt().add_(hyper.eps)


class SquareMean(Estimator):
    """s = √(Σg²/t) + ε: Adagrad's as the Padam paper writes it."""

    slots = {"sum": Slot(first="initial_accumulator_value", nonnegative=True)}
    hyperparameters = ("eps", "initial_accumulator_value")
    sparse = True

    def scale(self, grad: Tensor, hyper: Hyper, sum: Tensor) -> Tensor:
        sum.addcmul_(grad, grad)
        return sum.div(hyper.age).sqrt_().add_(hyper.eps)


class ExpAvgSq(Estimator):
    """s = √(v/c₂) + ε, v = β₂v + (1−β₂)g²: Adam's.

    Kingma, Ba: Adam: A Method for Stochastic Optimization, ICLR 2015.
    """

    slots = {"exp_avg_sq": Slot(nonnegative=True)}
    hyperparameters = ("betas", "eps", "bias_correction")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        average_square_(exp_avg_sq, grad, hyper.beta2)
        return exp_avg_sq.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)


class AmsgradMax(Estimator):
    """s = √(v̂/c₂) + ε, v̂ = max over time of Adam's uncorrected v.

    Reddi, Kale, Kumar: On the Convergence of Adam and Beyond, ICLR 2018.
    """

    slots = {"exp_avg_sq": Slot(nonnegative=True), "max_exp_avg_sq": Slot(nonnegative=True)}
    hyperparameters = ("betas", "eps", "bias_correction")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor, max_exp_avg_sq: Tensor) -> Tensor:
        average_square_(exp_avg_sq, grad, hyper.beta2)
        max_exp_avg_sq.clamp_(min=exp_avg_sq)
        return max_exp_avg_sq.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)


class ExpInf(Estimator):
    """s = u, u = max(β₂u, |g| + ε): AdaMax's infinity norm.

    Kingma, Ba: Adam: A Method for Stochastic Optimization, ICLR 2015, section 7.1.
    """

    slots = {"exp_inf": Slot(nonnegative=True)}
    hyperparameters = ("betas", "eps")

    def scale(self, grad: Tensor, hyper: Hyper, exp_inf: Tensor) -> Tensor:
        exp_inf.mul_(hyper.beta2).clamp_(min=grad.abs().add_(hyper.eps))
        return exp_inf.clone()


class SquareAvg(Estimator):
    """s = √v + ε, v = αv + (1−α)g²: RMSprop's.

    Tieleman, Hinton: Lecture 6.5, Neural Networks for Machine Learning, COURSERA 2012.
    """

    slots = {"square_avg": Slot(nonnegative=True)}
    hyperparameters = ("alpha", "eps")

    def scale(self, grad: Tensor, hyper: Hyper, square_avg: Tensor) -> Tensor:
        average_square_(square_avg, grad, hyper.alpha)
        return square_avg.sqrt().add_(hyper.eps)


class CenteredSquareAvg(Estimator):
    """s = √(v − ḡ²) + ε, ḡ = αḡ + (1−α)g: centered RMSprop's, an average variance.

    Graves: Generating Sequences With Recurrent Neural Networks, 2013.
    """

    slots = {"square_avg": Slot(nonnegative=True, coarse=False), "grad_avg": Slot(coarse=False)}
    hyperparameters = ("alpha", "eps")

    def scale(self, grad: Tensor, hyper: Hyper, square_avg: Tensor, grad_avg: Tensor) -> Tensor:
        average_square_(square_avg, grad, hyper.alpha)
        average_(grad_avg, grad, hyper.alpha)
        # A variance of zero is often a little less in floating point.
        variance = square_avg.addcmul(grad_avg, grad_avg, value=-1).clamp_(min=0)
        return variance.sqrt_().add_(hyper.eps)


class DeltaRatio(Estimator):
    """s = √((v + ε)/(d + ε)), v and d averages of g² and of the squared direction: Adadelta's.

    Zeiler: ADADELTA: An Adaptive Learning Rate Method, 2012.
    """

    slots = {"square_avg": Slot(nonnegative=True), "acc_delta": Slot(nonnegative=True)}
    hyperparameters = ("rho", "eps")

    def scale(self, grad: Tensor, hyper: Hyper, square_avg: Tensor, acc_delta: Tensor) -> Tensor:
        average_square_(square_avg, grad, hyper.rho)
        # The quotient of roots: that of what is below them leaves the range of float32 long before.
        return square_avg.add(hyper.eps).sqrt_().div_(acc_delta.add(hyper.eps).sqrt_())

    def observe(self, direction: Tensor, hyper: Hyper, square_avg: Tensor, acc_delta: Tensor) -> None:
        average_square_(acc_delta, direction, hyper.rho)


class ExpAvgVar(Estimator):
    """s = √(v/c₂) + ε, v = β₂v + (1−β₂)(g−m)² + ε: AdaBelief's, the variance around the expected gradient."""

    slots = {"exp_avg_var": Slot(nonnegative=True)}
    reads = ("exp_avg",)
    hyperparameters = ("betas", "eps", "bias_correction")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_var: Tensor, exp_avg: Tensor) -> Tensor:
        average_square_(exp_avg_var, grad.sub(exp_avg), hyper.beta2).add_(hyper.eps)
        return exp_avg_var.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)


class YogiSq(Estimator):
    """s = √(v/c₂) + ε, v = v − (1−β₂)·sign(v − g²)·g²: Yogi's, which moves v by no more than the gradient's size."""

    slots = {"exp_avg_sq": Slot(first="initial_accumulator_value", nonnegative=True)}
    hyperparameters = ("betas", "eps", "bias_correction", "initial_accumulator_value")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        square = grad.mul(grad)
        exp_avg_sq.sub_(exp_avg_sq.sub(square).sign_().mul_(square).mul_(1 - hyper.beta2))
        return exp_avg_sq.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)


class NumeratorSq(Estimator):
    """s = |n| + ε, and 1 + ε where n is 0: the numerator itself, of which p = 1/2 leaves the sign.

    Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD: Compressed Optimisation for Non-Convex Problems, ICML 2018.
    """

    of_numerator = True
    sparse = True

    def scale(self, numerator: Tensor, hyper: Hyper) -> Tensor:
        size = numerator.abs()
        positive: Tensor = hyper.when(size > 0, size, 1.0)
        return positive.add(hyper.eps)
