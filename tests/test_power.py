"""The ladder of square roots is pow, for every exponent and in every dtype."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from partial_adaptive.execution.functional import Functional
from partial_adaptive.execution.tensor_list import TensorList
from partial_adaptive.rules.power import power

DYADIC = [k / 2**n for n in range(7) for k in range(1, 2**n + 1, 2)]
SCALE = torch.logspace(-12, 12, 97, dtype=torch.float64)


@pytest.mark.parametrize("exponent", DYADIC)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=str)
def test_ladder_is_pow(exponent: float, dtype: torch.dtype, tolerance: float) -> None:
    """Products of repeated square roots agree with pow in float64."""
    scale = SCALE.to(dtype)
    expected = scale.double().pow(exponent)
    torch.testing.assert_close(power(scale, exponent).double(), expected, rtol=tolerance, atol=0)


@given(
    st.floats(1e-30, 1e30),
    st.one_of(st.floats(1e-6, 1.0), st.integers(1, 64).map(lambda k: k / 64), st.integers(1, 16).map(lambda k: k / 16)),
)
def test_any_exponent(scale: float, exponent: float) -> None:
    """Arbitrary exponents agree with Python's own power, in float64 and in float32."""
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        value = torch.tensor([scale], dtype=dtype)
        expected = math.pow(value.item(), exponent)
        assert power(value, exponent).item() == pytest.approx(expected, rel=tolerance)


@given(st.floats(1e-10, 1e10), st.floats(1e-3, 1.0))
def test_tensor_exponent(scale: float, exponent: float) -> None:
    """An exponent in a tensor gives what the number gives."""
    by_number, by_tensor = (torch.tensor([scale], dtype=torch.float64) for _ in range(2))
    tensor = torch.tensor(exponent, dtype=torch.float64)
    torch.testing.assert_close(power(by_tensor, tensor), power(by_number, exponent), rtol=1e-13, atol=0)


@pytest.mark.parametrize("exponent", [*DYADIC, 0.3])
def test_lifted(exponent: float) -> None:
    """On lists of tensors, and differentiably, the same numbers come out."""
    expected = power(SCALE.clone(), exponent)
    for tensor in power(TensorList([SCALE.clone(), SCALE.clone()]), exponent).tensors:
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    torch.testing.assert_close(power(Functional(SCALE.clone()), exponent).value, expected, rtol=0, atol=0)


@pytest.mark.parametrize("exponent", [1 / 8, 1 / 4, 3 / 8, 0.3, 1.0])
def test_edges(exponent: float) -> None:
    """Zero, infinity and NaN stay what they are."""
    scale = torch.tensor([0.0, math.inf, math.nan])
    torch.testing.assert_close(power(scale.clone(), exponent), scale, equal_nan=True)
