"""The rules as published, against NumPy float64 transcriptions that share no code with the library."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import partial_adaptive as pa
from partial_adaptive.testing.harness import DECAYS, MODES, gradient, parameters, same, train, values

Array = np.ndarray[Any, np.dtype[np.float64]]
Update = Callable[[int, Array], Array]
Rule = Callable[..., Update]

LR, BETA1, BETA2, EPS = 0.1, 0.9, 0.999, 1e-8
BIAS_CORRECTIONS = ("consistent", "adam", "none")
PARTIALS = (1 / 4, 1 / 8, 1 / 16)


def padam(p: float, bias_correction: str, amsgrad: bool) -> Update:
    """The authors' file, with the two other placements of the bias correction."""
    m = v = largest = np.float64(0)

    def update(t: int, g: Array) -> Array:
        nonlocal m, v, largest
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        largest = np.maximum(largest, v)
        vhat = largest if amsgrad else v
        c1, c2 = 1 - BETA1**t, 1 - BETA2**t
        if bias_correction == "adam":
            return LR * np.sqrt(c2) / c1 * m / (np.sqrt(vhat) + EPS) ** (2 * p)
        if bias_correction == "consistent":
            return LR * (m / c1) / (np.sqrt(vhat / c2) + EPS) ** (2 * p)
        return LR * m / (np.sqrt(vhat) + EPS) ** (2 * p)

    return update


def adamax(p: float, bias_correction: str) -> Update:
    """AdaMax: its norm is not biased."""
    m = u = np.float64(0)

    def update(t: int, g: Array) -> Array:
        nonlocal m, u
        m = BETA1 * m + (1 - BETA1) * g
        u = np.maximum(BETA2 * u, np.abs(g) + EPS)
        return LR / (1 if bias_correction == "none" else 1 - BETA1**t) * m / u ** (2 * p)

    return update


def adabelief(p: float, bias_correction: str) -> Update:
    """AdaBelief: ε goes into the running average too, as in its authors' code."""
    m = v = np.float64(0)

    def update(t: int, g: Array) -> Array:
        nonlocal m, v
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * (g - m) ** 2 + EPS
        return corrected(m, v, t, p, bias_correction, EPS)

    return update


def yogi(p: float, bias_correction: str) -> Update:
    """Yogi from its published first value 1e-6."""
    m, v = np.float64(0), np.float64(1e-6)

    def update(t: int, g: Array) -> Array:
        nonlocal m, v
        m = BETA1 * m + (1 - BETA1) * g
        v = v - (1 - BETA2) * np.sign(v - g * g) * g * g
        return corrected(m, v, t, p, bias_correction, 1e-3)

    return update


def corrected(m: Array, v: Array, t: int, p: float, bias_correction: str, eps: float) -> Array:
    """The step from Adam's two averages."""
    c1, c2 = (1.0, 1.0) if bias_correction == "none" else (1 - BETA1**t, 1 - BETA2**t)
    if bias_correction == "adam":
        return LR * np.sqrt(c2) / c1 * m / (np.sqrt(v) + eps) ** (2 * p)
    return LR * (m / c1) / (np.sqrt(v / c2) + eps) ** (2 * p)


def adagrad_mean(p: float, eps: float = 1e-10) -> Update:
    """The paper's Adagrad: the mean of the squares, αₜ = α/√t."""
    total = np.float64(0)

    def update(t: int, g: Array) -> Array:
        nonlocal total
        total = total + g * g
        return LR / np.sqrt(t) * g / (np.sqrt(total / t) + eps) ** (2 * p)

    return update


def adagrad_sum(p: float, eps: float = 1e-10) -> Update:
    """The Adagrad of torch with the exponent."""
    total = np.float64(0)

    def update(t: int, g: Array) -> Array:
        nonlocal total
        total = total + g * g
        return LR * g / (np.sqrt(total) + eps) ** (2 * p)

    return update


def adadelta(p: float, rho: float = 0.9, eps: float = 1e-6) -> Update:
    """Adadelta, whose second average is of the direction that was taken."""
    v = d = np.float64(0)

    def update(t: int, g: Array) -> Array:
        nonlocal v, d
        v = rho * v + (1 - rho) * g * g
        direction = g / np.sqrt((v + eps) / (d + eps)) ** (2 * p)
        d = rho * d + (1 - rho) * direction**2
        return LR * direction

    return update


def rmsprop(p: float, momentum: float, centered: bool, alpha: float = 0.99) -> Update:
    """RMSprop, whose heavy ball gathers what was divided."""
    v = mean = ball = np.float64(0)

    def update(t: int, g: Array) -> Array:
        nonlocal v, mean, ball
        v = alpha * v + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        ball = momentum * ball + g / (np.sqrt(v - mean**2 if centered else v) + EPS) ** (2 * p)
        return LR * ball

    return update


def nadam(p: float, bias_correction: str, momentum_decay: float = 4e-3) -> Update:
    """NAdam; "none" leaves out the products of μ too."""
    m = v = np.float64(0)
    product = 1.0

    def update(t: int, g: Array) -> Array:
        nonlocal m, v, product
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        mu, mu_next = (BETA1 * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
        product *= mu
        c2 = 1 - BETA2**t
        nesterov = (1 - mu) * g / (1 - product) + mu_next * m / (1 - product * mu_next)
        if bias_correction == "adam":
            return LR * np.sqrt(c2) * nesterov / (np.sqrt(v) + EPS) ** (2 * p)
        if bias_correction == "consistent":
            return LR * nesterov / (np.sqrt(v / c2) + EPS) ** (2 * p)
        return LR * ((1 - mu) * g + mu_next * m) / (np.sqrt(v) + EPS) ** (2 * p)

    return update


CASES: list[tuple[str, Rule, dict[str, Any], dict[str, Any]]] = [
    *(
        (name, rule, {"bias_correction": correction, **extra}, extra)
        for name, rule, extra in [
            ("padam", padam, {"amsgrad": True}),
            ("padam", padam, {"amsgrad": False}),
            ("partial_adamax", adamax, {}),
            ("partial_adabelief", adabelief, {}),
            ("partial_yogi", yogi, {}),
            ("partial_nadam", nadam, {}),
        ]
        for correction in BIAS_CORRECTIONS
    ),
    ("partial_adagrad", adagrad_sum, {}, {}),
    ("partial_adagrad", adagrad_mean, {"mean": True}, {}),
    ("partial_adadelta", adadelta, {}, {}),
    *(
        ("partial_rmsprop", rmsprop, extra, extra)
        for extra in [{"momentum": 0.0, "centered": False}, {"momentum": 0.9, "centered": True}]
    ),
]


@pytest.mark.parametrize("decay", DECAYS, ids=str)
@pytest.mark.parametrize("p", [*PARTIALS, 0.3, 1 / 2])
@pytest.mark.parametrize(("name", "rule", "options", "extra"), CASES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_member_follows_its_transcription(
    name: str,
    rule: Rule,
    options: dict[str, Any],
    extra: dict[str, Any],
    p: float,
    decay: dict[str, Any],
) -> None:
    """Thirty steps agree with NumPy to 1e-12, for the paper's exponents, an arbitrary one and the classical one."""
    transcription = {"p": p, **{k: v for k, v in options.items() if k == "bias_correction"}, **extra}
    transcription = {k: v for k, v in transcription.items() if k != "mean"}
    theta = [param.detach().numpy().copy() for param in parameters()]
    updates = [rule(**transcription) for _ in theta]
    rate = decay.get("weight_decay", 0.0)
    for step in range(30):
        for i, (param, update) in enumerate(zip(parameters(), updates, strict=True)):
            g = gradient(param, step, i).numpy()
            if decay.get("decoupled_weight_decay"):
                theta[i] = theta[i] * (1 - LR * rate)
            else:
                g = g + rate * theta[i]
            theta[i] = theta[i] - update(step + 1, g)
    expected = [torch.from_numpy(np.asarray(t)) for t in theta]
    for mode in MODES:
        params = parameters()
        train(pa.create(name, params, lr=LR, partial=p, **options, **decay, **mode), 30)
        same(values(params), expected, f"{name} does not follow its published rule, {mode}", 1e-12)


def test_paper_adagrad_is_torch_adagrad_at_half() -> None:
    """The mean with α/√t and the sum with α are one at p = 1/2, where ε is 0."""
    ours, theirs = parameters(), parameters()
    train(pa.PartialAdagrad(ours, lr=0.1, eps=0.0, mean=True, partial=0.5), 30)
    train(torch.optim.Adagrad(theirs, lr=0.1, eps=0.0), 30)
    same(values(ours), values(theirs), "the paper's Adagrad at p = 1/2 is not torch's", 1e-12)


def test_corrections_agree_at_half_but_for_eps() -> None:
    """At p = 1/2 consistent correction and the authors' differ in the place of ε alone; below, by c₂^(1/2−p)."""
    moves = {}
    for p in (1 / 2, 1 / 8):
        for correction in ("consistent", "adam"):
            params = parameters()
            train(pa.Padam(params, eps=0.0, partial=p, bias_correction=correction), 1)
            moves[p, correction] = [b - a for a, b in zip(values(parameters()), values(params), strict=True)]
    same(moves[0.5, "adam"], moves[0.5, "consistent"], "the corrections differ at p = 1/2", 1e-12)
    hidden_warm_up = (1 - 0.999) ** (1 / 2 - 1 / 8)
    assert hidden_warm_up == pytest.approx(0.075, rel=1e-2)
    expected = [move * hidden_warm_up for move in moves[0.125, "consistent"]]
    same(moves[0.125, "adam"], expected, "the authors' correction is not smaller by c₂^(1/2−p)", 1e-12)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("correction", BIAS_CORRECTIONS)
def test_corrections_where_p_was_zero_at_first(correction: str, mode: dict[str, Any]) -> None:
    """The authors' factor √c₂/c₁ counts the parameter's own steps at every p, so it does not jump when p leaves 0.

    Consistent correction divides v by c₂ of the gradients that v has seen, which are fewer.
    """
    late, p = 4, 1 / 8
    params = parameters()
    theta = [param.detach().numpy().copy() for param in params]
    optimizer = pa.Padam(params, lr=LR, partial=0.0, bias_correction=correction, **mode)
    states = [[np.zeros_like(it)] * 3 for it in theta]
    for step in range(10):
        t, age = step + 1, step + 1 - late
        optimizer.param_groups[0]["partial"] = 0.0 if step < late else p
        train(optimizer, 1, start=step)
        c1, c2 = (1 - BETA1**t, 1 - BETA2**t) if correction != "none" else (1.0, 1.0)
        for i, (m, v, largest) in enumerate(states):
            g = gradient(params[i], step, i).numpy()
            m = BETA1 * m + (1 - BETA1) * g
            direction = m / c1 * (np.sqrt(c2) if correction == "adam" else 1.0)
            if age > 0:
                v = BETA2 * v + (1 - BETA2) * g * g
                largest = np.maximum(largest, v)
                bias = 1 - BETA2**age if correction == "consistent" else 1.0
                direction = direction / (np.sqrt(largest / bias) + EPS) ** (2 * p)
            states[i] = [m, v, largest]
            theta[i] = theta[i] - LR * direction
        expected = [torch.from_numpy(np.asarray(it)) for it in theta]
        same(values(params), expected, f"{correction}, {mode}: another step at t = {t}", 1e-12)
