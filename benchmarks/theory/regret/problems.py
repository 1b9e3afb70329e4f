"""The six problems of the study: four kinds of feasible sets, smooth losses and kinked ones, one on real data."""

import functools
from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import expit

from benchmarks.theory.regret.optimum import Optimum, certified, least_absolute, smooth
from benchmarks.theory.regret.problem import Link, Predictions, Problem, Targets
from partial_adaptive import Box, L1Ball, L2Ball, Simplex


def linear(rounds: int) -> Problem:
    """Linear losses on a box."""
    draw, dimension = np.random.default_rng(1), 50
    often = 1 / np.arange(1, dimension + 1)
    drift = 0.3 * draw.normal(size=dimension)
    rows = (drift + draw.normal(size=(rounds, dimension))) * (draw.random((rounds, dimension)) < often)
    return Predictions(
        "linear",
        "fₜ(x) = ⟨aₜ, x⟩; the i-th coefficient is there in one of i rounds, and noisy.",
        Box(-1, 1),
        np.zeros(dimension),
        1.0,
        Link(lambda z, b: z, lambda z, b: np.ones_like(z)),
        rows,
        np.zeros(rounds),
        _corner,
    )


def logistic(rounds: int) -> Problem:
    """Logistic regression on a ball."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    features = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    order = np.random.default_rng(2).integers(len(features), size=rounds)
    return Predictions(
        "logistic",
        "fₜ(x) = log(1 + exp(−bₜ⟨aₜ, x⟩)) for examples drawn from scikit-learn's breast cancer data, standardised.",
        L2Ball(3),
        np.zeros(features.shape[1]),
        10**-0.5,
        Link(lambda z, b: np.logaddexp(0, -b * z), lambda z, b: -b * expit(-b * z)),
        features[order],
        2.0 * data.target[order] - 1,
        _descent,
    )


def absolute(rounds: int) -> Problem:
    """Robust regression on a box."""
    draw, dimension = np.random.default_rng(3), 20
    rows = draw.normal(size=(rounds, dimension))
    noise = np.where(draw.random(rounds) < 0.1, 10, 0.1) * draw.normal(size=rounds)
    return Predictions(
        "absolute",
        "fₜ(x) = |⟨aₜ, x⟩ − bₜ|, a regression in which every tenth target is far off.",
        Box(-1, 1),
        np.zeros(dimension),
        0.1,
        Link(lambda z, b: np.abs(z - b), lambda z, b: np.sign(z - b)),
        rows,
        rows @ draw.uniform(-1.2, 1.2, size=dimension) + noise,
        _program,
    )


def portfolio(rounds: int) -> Problem:
    """Logarithmic wealth on the simplex."""
    draw, dimension = np.random.default_rng(4), 10
    volatility = np.geomspace(0.01, 0.4, dimension)
    relatives = np.exp(volatility * (0.15 + draw.normal(size=(rounds, dimension))))
    return Predictions(
        "portfolio",
        "fₜ(x) = −log⟨rₜ, x⟩ for the price relatives of ten assets; the wilder one is, the faster it grows.",
        Simplex(),
        np.full(dimension, 1 / dimension),
        10**-0.5,
        Link(lambda z, b: -np.log(z), lambda z, b: -1 / z),
        relatives,
        np.zeros(rounds),
        _descent,
    )


def sparse(rounds: int) -> Problem:
    """Sparse regression on an L1 ball."""
    draw, dimension = np.random.default_rng(5), 50
    rows = draw.normal(size=(rounds, dimension)) / 3
    truth = np.zeros(dimension)
    truth[draw.choice(dimension, 5, replace=False)] = 1, -1, 0.5, -0.5, 0.25
    return Predictions(
        "sparse",
        "fₜ(x) = ½(⟨aₜ, x⟩ − bₜ)², where 5 of the 50 true coefficients are not 0.",
        L1Ball(3),
        np.zeros(dimension),
        0.1,
        Link(lambda z, b: (z - b) ** 2 / 2, lambda z, b: z - b),
        rows,
        rows @ truth + 0.5 * draw.normal(size=rounds),
        _descent,
    )


def drifting(rounds: int) -> Problem:
    """A quadratic on a box whose centre moves."""
    draw, dimension = np.random.default_rng(6), 20
    turns = np.arange(rounds)[:, None] / 100 + draw.random(dimension)
    centre = draw.uniform(-1.2, 1.2, dimension) + 0.25 * np.sin(2 * np.pi * turns)
    return Targets(
        "drifting",
        "fₜ(x) = ½Σᵢhᵢ(xᵢ − cₜᵢ)² around noisy targets whose mean goes round, with h from 0.01 to 1.",
        Box(-1, 1),
        np.zeros(dimension),
        0.1,
        np.geomspace(0.01, 1, dimension),
        centre + draw.normal(size=(rounds, dimension)),
    )


PROBLEMS: Mapping[str, Callable[[int], Problem]] = {
    build.__name__: build for build in (linear, logistic, absolute, portfolio, sparse, drifting)
}
"""By name what makes a problem of so many rounds, always the same: the data come from a seeded generator."""


def _corner(problem: Predictions, t: int) -> Optimum:
    """Of a linear loss on [−1, 1]ᵈ: against its gradient in every coordinate."""
    _, gradient = problem.total(t, problem.start)
    point = -np.sign(gradient)
    return certified(problem.feasible, point, float(gradient @ point), gradient)


def _descent(problem: Predictions, t: int) -> Optimum:
    """Of a smooth loss."""
    return smooth(functools.partial(problem.total, t), problem.feasible, problem.start)


def _program(problem: Predictions, t: int) -> Optimum:
    """Of absolute values over a box."""
    assert isinstance(problem.feasible, Box)
    return least_absolute(problem.rows[:t], problem.targets[:t], problem.feasible)
