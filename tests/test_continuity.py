"""The steps depend continuously on p, on all of [0, 1/2]."""

import pytest
from family import maker
from hypothesis import given, settings
from hypothesis import strategies as st

import partial_adaptive as pa
from partial_adaptive.testing.harness import displacement, same


@pytest.mark.parametrize("name", pa.MEMBERS)
@settings(max_examples=25)
@given(
    p=st.one_of(st.floats(0.0, 0.5), st.sampled_from([0.0, 1 / 64, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2])),
    distance=st.floats(1e-12, 1e-6),
)
def test_nearby_exponents_take_nearby_steps(name: str, p: float, distance: float) -> None:
    """From square roots to pow, from no estimator to one, nowhere do four steps move by more than ~300 times p did."""
    neighbour = p + distance if p + distance <= 0.5 else p - distance
    here, there = (displacement(maker(name), partial=exponent) for exponent in (p, neighbour))
    same([there], [here], f"{name} jumps between p = {p} and {neighbour}", 300 * distance + 1e-13)


@settings(max_examples=25)
@given(p=st.floats(0.0, 0.5), correction=st.sampled_from(["consistent", "adam", "none"]))
def test_every_bias_correction(p: float, correction: str) -> None:
    """So it is with every bias correction; at p = 0 the authors' one still has its factor √c₂."""
    neighbour = min(p + 1e-9, 0.5)
    here, there = (displacement(pa.Padam, partial=x, bias_correction=correction) for x in (p, neighbour))
    same([there], [here], f"{correction} jumps at p = {p}", 1e-6)
