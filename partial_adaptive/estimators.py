"""The second-moment estimators, side by side: each turns gradients into a scale s > 0 in units of |g|.

An estimator is written for one real, dense tensor, in ordinary in-place style. The optimizer runs the same code per
tensor, on lists of tensors and differentiably, and takes care of maximize, weight decay, complex and sparse gradients
and everything else that is not the estimator's own arithmetic.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from partial_adaptive.components import Component, average_, average_square_
from partial_adaptive.hyperparameters import Hyper


class Estimator(Component, ABC):
    """Base of all estimators: what a new one declares and implements.

    Attributes:
        reads: names of the momentum's buffers that `scale` also takes, after its own.
        sparse: whether a coordinate with zero gradient leaves the state as it is, so that sparse gradients are exact.
    """

    hyperparameters: tuple[str, ...] = ("eps",)
    reads: tuple[str, ...] = ()
    sparse: bool = False

    @abstractmethod
    def scale(self, grad: Tensor, hyper: Hyper, *buffers: Any) -> Tensor:
        """Take `grad` into the buffers, in place, and return s as a new tensor, its ε included."""

    def observe(self, direction: Tensor, hyper: Hyper, *buffers: Any) -> None:
        """Take in the direction n/s^(2p) that is about to be applied; most estimators have no use for it."""


class SquareSum(Estimator):
    """s = √(Σg²) + ε: Adagrad's.

    Duchi, Hazan, Singer: Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, JMLR 2011.
    """

    buffers = ("sum",)
    hyperparameters = ("eps", "initial_accumulator_value")
    sparse = True

    def scale(self, grad: Tensor, hyper: Hyper, sum: Tensor) -> Tensor:
        sum.addcmul_(grad, grad)
        return sum.sqrt().add_(hyper.eps)

    def initial(self, buffer: str, group: Mapping[str, Any]) -> float:
        return float(group["initial_accumulator_value"])


class SquareMean(SquareSum):
    """s = √(Σg²/t) + ε: Adagrad's as the Padam paper writes it."""

    def scale(self, grad: Tensor, hyper: Hyper, sum: Tensor) -> Tensor:
        sum.addcmul_(grad, grad)
        return sum.div(hyper.age).sqrt_().add_(hyper.eps)


class ExpAvgSq(Estimator):
    """s = √(v/c₂) + ε, v = β₂v + (1−β₂)g²: Adam's.

    Kingma, Ba: Adam: A Method for Stochastic Optimization, ICLR 2015.
    """

    buffers = ("exp_avg_sq",)
    hyperparameters = ("betas", "eps", "bias_correction")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        average_square_(exp_avg_sq, grad, hyper.beta2)
        return exp_avg_sq.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)


class AmsgradMax(Estimator):
    """s = √(v̂/c₂) + ε, v̂ = max over time of Adam's uncorrected v.

    Reddi, Kale, Kumar: On the Convergence of Adam and Beyond, ICLR 2018.
    """

    buffers = ("exp_avg_sq", "max_exp_avg_sq")
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

    buffers = ("exp_inf",)
    hyperparameters = ("betas", "eps")

    def scale(self, grad: Tensor, hyper: Hyper, exp_inf: Tensor) -> Tensor:
        exp_inf.mul_(hyper.beta2).clamp_(min=grad.abs().add_(hyper.eps))
        return exp_inf.clone()


class SquareAvg(Estimator):
    """s = √v + ε, v = αv + (1−α)g²: RMSprop's.

    Tieleman, Hinton: Lecture 6.5, Neural Networks for Machine Learning, COURSERA 2012.
    """

    buffers = ("square_avg",)
    hyperparameters = ("alpha", "eps")

    def scale(self, grad: Tensor, hyper: Hyper, square_avg: Tensor) -> Tensor:
        average_square_(square_avg, grad, hyper.alpha)
        return square_avg.sqrt().add_(hyper.eps)


class CenteredSquareAvg(Estimator):
    """s = √(v − ḡ²) + ε, ḡ = αḡ + (1−α)g: centered RMSprop's, an average variance.

    Graves: Generating Sequences With Recurrent Neural Networks, 2013.
    """

    buffers = ("square_avg", "grad_avg")
    hyperparameters = ("alpha", "eps")

    def scale(self, grad: Tensor, hyper: Hyper, square_avg: Tensor, grad_avg: Tensor) -> Tensor:
        average_square_(square_avg, grad, hyper.alpha)
        average_(grad_avg, grad, hyper.alpha)
        return square_avg.addcmul(grad_avg, grad_avg, value=-1).sqrt_().add_(hyper.eps)


class DeltaRatio(Estimator):
    """s = √((v + ε)/(d + ε)), v and d averages of g² and of the squared direction: Adadelta's.

    Zeiler: ADADELTA: An Adaptive Learning Rate Method, 2012.
    """

    buffers = ("square_avg", "acc_delta")
    hyperparameters = ("rho", "eps")

    def scale(self, grad: Tensor, hyper: Hyper, square_avg: Tensor, acc_delta: Tensor) -> Tensor:
        average_square_(square_avg, grad, hyper.rho)
        return square_avg.add(hyper.eps).div_(acc_delta.add(hyper.eps)).sqrt_()

    def observe(self, direction: Tensor, hyper: Hyper, square_avg: Tensor, acc_delta: Tensor) -> None:
        average_square_(acc_delta, direction, hyper.rho)
