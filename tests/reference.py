"""The published rules in NumPy float64, one parameter at a time, with a bound on how far a library may be from them.

Nothing here is shared with the library. A transcription keeps what one parameter has (θ, its state, its two counts) and
takes one gradient at a time; every hyperparameter is an argument of the step, so all of them may change between two.

Numbers are `Ball`s: a float64 value, and a radius within which any sensible evaluation of the same formula in the
library's dtype must lie. The radius is a running error analysis to first order. Each operation adds `SLACK` units in
the last place of the library's dtype (which covers another order of the same operations, a fused multiply-add, √v/√c
for √(v/c), a `lerp`, a `pow` of 1e-6 in float32) and passes on the radii of its operands: a difference of nearly equal
numbers loses digits, a root near 0 loses half of them, and where a denominator may be 0 nothing is known.

What isn't finite:

- An infinite radius says that the formula alone doesn't settle the value, so everything is right. That is so where an
  intermediate value overflows and comes back (α·(n/d) or (α·n)/d), where ∞−∞, ∞/∞ or 0·∞ make a NaN, and in averages
  that hold ∞ (βm + (1−β)g remains ∞, m + (1−β)(g−m), which is torch's `lerp`, becomes NaN).
- A NaN with a finite radius comes from a NaN in the gradient, and no operation may lose it, the maximum included.
- An infinity with a finite radius is certain: β₂·∞ + (1−β₂)g² is ∞. State beyond the dtype's range becomes ∞, so a
  gradient of 1e30 in float32 makes the same infinite second moment here as there.
- Everywhere else the library's value must be finite and within the radius: no NaN that the reference lacks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SLACK = 16


@dataclass(frozen=True)
class Format:
    """A floating-point format: half of ε, the smallest and the largest positive number."""

    dtype: type[np.floating[Any]]
    unit: float
    smallest: float
    largest: float


FLOAT32 = Format(np.float32, 2.0**-24, 2.0**-149, float(np.finfo(np.float32).max))
FLOAT64 = Format(np.float64, 2.0**-53, 5e-324, float(np.finfo(np.float64).max))


class Ball:
    """Numbers with error bounds, one for each element.

    Args:
        value: float64.
        radius: how far the library may be from it.
        form: the format in which the library computes.
    """

    __slots__ = ("form", "radius", "value")

    def __init__(self, value: Array, radius: Array, form: Format) -> None:
        self.value, self.radius, self.form = value, radius, form

    @classmethod
    def exact(cls, value: Any, form: Format) -> "Ball":
        """Numbers that the library has to the bit."""
        array = np.asarray(value, dtype=np.float64)
        return cls(array, np.zeros_like(array), form)

    def __add__(self, other: "Ball | float") -> "Ball":
        x, y = self, self._ball(other)
        radius = x.radius + y.radius + self.rounding(np.abs(x.value) + np.abs(y.value))
        return _settle(x.value + y.value, radius, x, y, sure=np.isfinite(x.radius + y.radius))

    def __mul__(self, other: "Ball | float") -> "Ball":
        x, y = self, self._ball(other)
        value, a, b = x.value * y.value, np.abs(x.value), np.abs(y.value)
        underflow = np.where((a + x.radius > 0) & (b + y.radius > 0), SLACK * self.form.smallest, 0)
        radius = a * y.radius + b * x.radius + x.radius * y.radius + self.rounding(np.abs(value)) + underflow
        return _settle(value, radius, x, y, sure=(a > x.radius) & (b > y.radius))

    def __truediv__(self, other: "Ball | float") -> "Ball":
        x, y = self, self._ball(other)
        value, a, b = x.value / y.value, np.abs(x.value), np.abs(y.value)
        underflow = np.where(a + x.radius > 0, SLACK * self.form.smallest * (1 + 1 / b), 0)
        radius = (x.radius + np.abs(value) * y.radius) / (b - y.radius) + self.rounding(np.abs(value)) + underflow
        by_zero = (b == 0) & (y.radius == 0) & (a > x.radius)
        radius = np.where(b > y.radius, np.where(np.isinf(b), 0, radius), np.where(by_zero, 0, np.inf))
        return _settle(value, radius, x, y, sure=by_zero | ((a > x.radius) & (b > y.radius)))

    def __neg__(self) -> "Ball":
        return Ball(-self.value, self.radius, self.form)

    def __sub__(self, other: "Ball | float") -> "Ball":
        return self + -self._ball(other)

    def __rsub__(self, other: float) -> "Ball":
        return self._ball(other) + -self

    def __rtruediv__(self, other: float) -> "Ball":
        return self._ball(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def power(self, exponent: float) -> "Ball":
        """Raise numbers that are not negative, but for rounding, to a power in (0, 1]."""
        base = np.maximum(self.value, 0)
        value = base**exponent
        high, low = (base + self.radius) ** exponent, np.maximum(base - self.radius, 0) ** exponent
        finite = (base > 0) & np.isfinite(base)
        log = np.abs(np.log(np.where(finite, base, 1)))  # the exponent may be rounded too
        radius = np.where(finite | (base == 0), np.maximum(high - value, value - low), self.radius)
        return _settle(value, radius + self.rounding(value) * (1 + exponent * log), self, sure=self.radius == 0)

    def sqrt(self) -> "Ball":
        """Take the root of numbers that are not negative, but for rounding."""
        return self.power(0.5)

    def abs(self) -> "Ball":
        """Take the absolute value."""
        return Ball(np.abs(self.value), self.radius, self.form)

    def sign(self) -> "Ball":
        """Take the sign, which rounding may have changed near 0."""
        known = (np.abs(self.value) > self.radius) | (self.radius == 0)
        return _settle(np.sign(self.value), np.where(known, 0.0, 2.0), self)

    def clipped(self, low: float, high: float) -> "Ball":
        """Move what is outside of an interval to its end."""
        value = np.clip(self.value, low, high)
        return Ball(value, np.where(np.abs(self.value - value) > self.radius, 0.0, self.radius), self.form)

    def stored(self) -> "Ball":
        """The same in the library's format, where numbers may be too large."""
        size, largest = np.abs(self.value), self.form.largest
        over = size > largest
        value = np.where(over, np.copysign(np.inf, self.value), self.value)
        doubtful = np.isfinite(self.value) & (size + self.radius > largest) & ~(size - self.radius > largest)
        certain = over & (size - self.radius > largest)
        return Ball(value, np.where(doubtful, np.inf, np.where(certain, 0, self.radius)), self.form)

    def admits(self, other: Array) -> Array:
        """Whether each of the library's numbers is right."""
        finite = np.isfinite(self.value)
        near = np.isfinite(other) & (np.abs(other - np.where(finite, self.value, 0)) <= self.radius)
        same = np.where(finite, near, np.where(np.isnan(self.value), np.isnan(other), other == self.value))
        admitted: Array = np.isinf(self.radius) | same
        return admitted

    def rounded(self) -> "Ball":
        """These values as if the library had them to the bit; write them there."""
        return Ball.exact(self.value.astype(self.form.dtype), self.form)

    def _ball(self, number: "Ball | float") -> "Ball":
        return number if isinstance(number, Ball) else Ball.exact(number, self.form)

    def rounding(self, size: Array) -> Array:
        """Give what rounding adds to the error of a result, or of terms, of this size."""
        rounding: Array = SLACK * self.form.unit * np.where(np.isfinite(size), size, 0)
        return rounding


def larger(x: Ball, y: Ball) -> Ball:
    """The maximum; a NaN on either side comes through."""
    radius = np.maximum(x.radius, y.radius)
    return _settle(np.maximum(x.value, y.value), radius, x, y, sure=np.isfinite(radius))


def _settle(value: Array, radius: Array, *operands: Ball, sure: Any = True) -> Ball:
    """A result, its radius infinite where the formula alone doesn't settle it.

    Args:
        value: the result.
        radius: its radius where all is finite.
        operands: what it was made of.
        sure: where an infinite operand settles an infinite result.
    """
    form = operands[0].form
    beyond = [(np.abs(x.value) > form.largest) & np.isfinite(x.value) for x in operands]
    infinite = [np.isinf(x.value) for x in operands]
    lost = [np.isnan(x.value) & np.isfinite(x.radius) for x in operands]
    any_beyond, any_infinite, any_lost = (reduce(np.logical_or, flags) for flags in (beyond, infinite, lost))
    back = any_beyond & ~((np.abs(value) > form.largest) & np.isfinite(value))
    unsettled = back | (np.isinf(value) & ~(any_infinite & sure) & ~(sure & (radius == 0)))
    radius = np.where(np.isinf(value) & any_infinite & sure, 0, radius)
    radius = np.where(any_lost, 0, np.where(unsettled | np.isnan(value) | np.isnan(radius), np.inf, radius))
    return Ball(np.asarray(np.where(any_lost, np.nan, value)), np.asarray(radius), form)


Hyper = Mapping[str, Any]


class Transcription:
    """One parameter under one member's rule.

    Args:
        theta: its values.
        form: the library's format.

    Attributes:
        theta: the parameter.
        state: its state under torch's names; an entry is there from the step that first needs it.
        t: how many steps with a gradient it has taken.
        age: how many of them the second moment has seen, which are those with p > 0.
        second: names of the state that belongs to the second moment.
    """

    second: tuple[str, ...] = ()

    def __init__(self, theta: Array, form: Format) -> None:
        self.form = form
        self.theta = Ball.exact(theta, form)
        self.state: dict[str, Ball] = {}
        self.t = self.age = 0

    def step(self, gradient: Array, h: Hyper) -> None:
        """Take a step; `h` holds the entries of the param group as plain numbers."""
        with np.errstate(all="ignore"):
            g = Ball.exact(gradient, self.form)
            if h["maximize"]:
                g = -g
            if h["weight_decay"] != 0 and not h["decoupled_weight_decay"]:
                g = g + self.theta * h["weight_decay"]
            self.t += 1
            if h["partial"] > 0:
                self.age += 1
            move = self.move(g, h)
            if h["weight_decay"] != 0 and h["decoupled_weight_decay"]:
                self.theta = self.theta * (1 - h["lr"] * h["weight_decay"])
            self.theta = (self.theta - move).stored()
            if h["constraint"] is not None:
                self.theta = self.theta.clipped(h["constraint"].low, h["constraint"].high)

    def move(self, g: Ball, h: Hyper) -> Ball:
        """What is subtracted from θ; takes the gradient into the state."""
        raise NotImplementedError

    def initial(self, name: str, h: Hyper) -> float:
        """The value with which state starts."""
        return 0.0

    def entry(self, name: str, h: Hyper) -> Ball:
        """State, at its first value where it isn't there yet."""
        if name not in self.state:
            # As the library has it in its own dtype: Yogi's 1e-6 is not a float32.
            first = self.form.dtype(self.initial(name, h))
            self.state[name] = Ball.exact(np.full(self.theta.value.shape, first), self.form)
        return self.state[name]

    def average(self, name: str, value: Ball, decay: float, h: Hyper) -> Ball:
        """Take a value into x ← βx + (1−β)·value; where ∞ is involved `lerp` gives NaN, nothing is settled."""
        old = self.entry(name, h)
        new = (old * decay + value * (1 - decay)).stored()
        # Where g is much smaller, m + (1−β)(g−m) has an error of an ulp of the old m, whatever β.
        new.radius = new.radius + self.theta.rounding(np.abs(old.value) + np.abs(value.value))
        infinite = np.isinf(old.value) | np.isinf(value.value)
        new.radius = np.where(infinite & ~np.isnan(new.value), np.inf, new.radius)
        self.state[name] = new
        return new

    def average_square(self, name: str, value: Ball, decay: float, h: Hyper) -> Ball:
        """Take a square into x ← βx + (1−β)·value²; ∞ remains ∞."""
        self.state[name] = (self.entry(name, h) * decay + value * value * (1 - decay)).stored()
        return self.state[name]

    def bias(self, decay: float, count: int) -> Ball:
        """1 − βᵗ, exact to the last places of 1 in float64, and in the library's dtype where it counts in that."""
        value = np.float64(-np.expm1(count * np.log(decay))) if decay > 0 else np.float64(1)
        radius = SLACK * (FLOAT64.unit + self.form.unit * value)
        return Ball(np.asarray(value), np.asarray(radius), self.form)

    def adam_step(self, n: Ball, v: Ball | None, h: Hyper, *, corrected: bool = False) -> Ball:
        """α·n/s^(2p) with s = √v + ε and the chosen bias correction; v is None where p = 0.

        Args:
            n: the average of gradients.
            v: the average of squares.
            h: the hyperparameters.
            corrected: whether n has its bias correction already.
        """
        rule, (beta1, beta2) = h["bias_correction"], h["betas"]
        factor = Ball.exact(h["lr"], self.form)
        if rule != "none" and not corrected:
            factor = factor / self.bias(beta1, self.t)
        if rule == "adam":
            factor = factor * self.bias(beta2, self.t).sqrt()
        if v is None:
            return factor * n
        if rule == "consistent":
            v = v / self.bias(beta2, self.age)
        scale: Ball = v.sqrt() + h["eps"]
        return factor * n / scale.power(2 * h["partial"])


class Adam(Transcription):
    """Adam: m and v, an average of g²."""

    second: tuple[str, ...] = ("exp_avg_sq",)

    def move(self, g: Ball, h: Hyper) -> Ball:
        m = self.average("exp_avg", g, h["betas"][0], h)
        return self.adam_step(m, self.second_moment(g, m, h) if h["partial"] > 0 else None, h)

    def second_moment(self, g: Ball, m: Ball, h: Hyper) -> Ball:
        """Give v after this gradient."""
        return self.average_square("exp_avg_sq", g, h["betas"][1], h)


class Padam(Adam):
    """The authors' file: v̂ is the running maximum of the raw v, unless amsgrad is False."""

    second = ("exp_avg_sq", "max_exp_avg_sq")

    def second_moment(self, g: Ball, m: Ball, h: Hyper) -> Ball:
        v = super().second_moment(g, m, h)
        if not h["amsgrad"]:
            return v
        self.state["max_exp_avg_sq"] = larger(self.entry("max_exp_avg_sq", h), v)
        return self.state["max_exp_avg_sq"]


class Sign(Transcription):
    """Lion with |n|^(1−2p) in the place of the sign: n is between the old average and the gradient."""

    def move(self, g: Ball, h: Hyper) -> Ball:
        beta1, beta2 = h["betas"]
        n: Ball = self.entry("exp_avg", h) * beta1 + g * (1 - beta1)
        self.average("exp_avg", g, beta2, h)
        if h["bias_correction"] != "none":
            n = n / (1 - Ball.exact(beta1, self.form) * beta2 ** (self.t - 1))
        factor = Ball.exact(h["lr"], self.form)
        if h["partial"] == 0:
            return factor * n
        zero = (n.value == 0) & (n.radius == 0)
        size = Ball(np.where(zero, 1.0, np.abs(n.value)), n.radius, self.form)
        step: Ball = factor * n / (size + h["eps"]).power(2 * h["partial"])
        return step


class NAdam(Adam):
    """NAdam, whose product of μ is over all of the parameter's steps; "none" leaves the products out."""

    def move(self, g: Ball, h: Hyper) -> Ball:
        beta1 = h["betas"][0]
        m = self.average("exp_avg", g, beta1, h)
        now, following = (beta1 * (1 - 0.5 * 0.96 ** (k * h["momentum_decay"])) for k in (self.t, self.t + 1))
        mu, mu_next = (Ball(np.asarray(x), np.asarray(SLACK * self.form.unit * x), self.form) for x in (now, following))
        product = self.state.get("mu_product", Ball.exact(1.0, self.form)) * mu
        self.state["mu_product"] = product
        if h["bias_correction"] == "none":
            n = (1 - mu) * g + mu_next * m
        else:
            n = (1 - mu) / (1 - product) * g + mu_next / (1 - product * mu_next) * m
        return self.adam_step(n, self.second_moment(g, m, h) if h["partial"] > 0 else None, h, corrected=True)


class AdaMax(Transcription):
    """AdaMax: its norm u has no bias, and ε is inside the maximum."""

    second = ("exp_inf",)

    def move(self, g: Ball, h: Hyper) -> Ball:
        beta1, beta2 = h["betas"]
        m = self.average("exp_avg", g, beta1, h)
        factor = Ball.exact(h["lr"], self.form)
        if h["bias_correction"] != "none":
            factor = factor / self.bias(beta1, self.t)
        if h["partial"] == 0:
            return factor * m
        self.state["exp_inf"] = larger(self.entry("exp_inf", h) * beta2, g.abs() + h["eps"]).stored()
        return factor * m / self.state["exp_inf"].power(2 * h["partial"])


class AdaBelief(Adam):
    """AdaBelief: v is an average of (g − m)², and ε goes into it at each step."""

    second = ("exp_avg_var",)

    def second_moment(self, g: Ball, m: Ball, h: Hyper) -> Ball:
        v = self.average_square("exp_avg_var", g - m, h["betas"][1], h)
        self.state["exp_avg_var"] = (v + h["eps"]).stored()
        return self.state["exp_avg_var"]


class Yogi(Adam):
    """Yogi: v moves towards g² by (1−β₂)g²."""

    def initial(self, name: str, h: Hyper) -> float:
        return float(h["initial_accumulator_value"]) if name == "exp_avg_sq" else 0.0

    def second_moment(self, g: Ball, m: Ball, h: Hyper) -> Ball:
        v, square = self.entry("exp_avg_sq", h), g * g
        self.state["exp_avg_sq"] = (v - (v - square).sign() * square * (1 - h["betas"][1])).stored()
        return self.state["exp_avg_sq"]


class RMSprop(Transcription):
    """RMSprop: v − ḡ² if centered, not less than 0; the heavy ball gathers what was divided."""

    second = ("square_avg", "grad_avg")

    def move(self, g: Ball, h: Hyper) -> Ball:
        direction = g
        if h["partial"] > 0:
            v = self.average_square("square_avg", g, h["alpha"], h)
            if h["centered"]:
                mean = self.average("grad_avg", g, h["alpha"], h)
                v = larger(v - mean * mean, Ball.exact(0.0, self.form))
            power: Ball = (v.sqrt() + h["eps"]).power(2 * h["partial"])
            if h["momentum"] == 0:  # the learning rate first, whose product with a subnormal number may be 0
                return g * Ball.exact(h["lr"], self.form) / power
            direction = g / power
        if h["momentum"] != 0:
            direction = (self.entry("momentum_buffer", h) * h["momentum"] + direction).stored()
            self.state["momentum_buffer"] = direction
        return direction * Ball.exact(h["lr"], self.form)


class Adagrad(Transcription):
    """Adagrad as torch has it, a sum with α; `mean` is the paper's, the mean of what the sum has seen with α/√t."""

    second = ("sum",)

    def initial(self, name: str, h: Hyper) -> float:
        return float(h["initial_accumulator_value"])

    def move(self, g: Ball, h: Hyper) -> Ball:
        factor: Ball = Ball.exact(h["lr"], self.form) / (1 + (self.t - 1) * h["lr_decay"])
        if h["mean"]:
            factor = factor / Ball.exact(self.t, self.form).sqrt()
        if h["partial"] == 0:
            return factor * g
        total = (self.entry("sum", h) + g * g).stored()
        self.state["sum"] = total
        scale: Ball = (total / self.age if h["mean"] else total).sqrt() + h["eps"]
        return factor * g / scale.power(2 * h["partial"])


class Adadelta(Transcription):
    """Adadelta, whose second average is of the direction that was taken; at p = 0 neither runs."""

    second = ("square_avg", "acc_delta")

    def move(self, g: Ball, h: Hyper) -> Ball:
        direction = g
        if h["partial"] > 0:
            v = self.average_square("square_avg", g, h["rho"], h)
            d = self.entry("acc_delta", h)
            direction = g / ((v + h["eps"]) / (d + h["eps"])).sqrt().power(2 * h["partial"])
            self.average_square("acc_delta", direction, h["rho"], h)
        return direction * Ball.exact(h["lr"], self.form)


TRANSCRIPTIONS: Mapping[str, Callable[[Array, Format], Transcription]] = {
    "padam": Padam,
    "partial_adam": Adam,
    "partial_nadam": NAdam,
    "partial_rmsprop": RMSprop,
    "partial_adagrad": Adagrad,
    "partial_adamax": AdaMax,
    "partial_adadelta": Adadelta,
    "partial_adabelief": AdaBelief,
    "partial_yogi": Yogi,
    "partial_sign": Sign,
}
