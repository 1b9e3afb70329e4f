"""Checkpoints of the first edition: thirty-two of them, and where the first edition itself went from there."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import partial_adaptive as pa
from partial_adaptive.testing.harness import MODES, same, train, values

FIRST_EDITION = torch.load(Path(__file__).parent / "fixtures" / "first_edition.pt", weights_only=True)
ALL_MODES: list[dict[str, Any]] = [*MODES, {"differentiable": True}]


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("label", FIRST_EDITION)
def test_first_edition(label: str, mode: dict[str, Any]) -> None:
    """Checkpoints of the first edition load, and go on to where it went itself.

    Its NAdam rounded the product of μ to float32 at every step, and it counted in float32 where it was capturable. Such
    state keeps its dtype; the kernels calculate with it in float64.
    """
    case = FIRST_EDITION[label]
    params = [param.clone() for param in case["params"]]
    optimizer = pa.create(case["member"], params, **case["options"])
    optimizer.load_state_dict(copy.deepcopy(case["checkpoint"]))
    saved = case["checkpoint"]["param_groups"][0]
    since = {name: value for name, value in optimizer.defaults.items() if name not in saved}  # stays as it is here
    assert {name: value for name, value in optimizer.param_groups[0].items() if name != "params"} == since | {
        name: value for name, value in saved.items() if name != "params"
    }
    optimizer.param_groups[0].update(mode)
    train(optimizer, 4, start=case["first"])
    tolerance = 1e-12
    if mode.get("fused"):
        tolerance = 1e-9 if case["member"] == "partial_nadam" else 1e-7 if saved["capturable"] else 1e-12
    same(values(params), case["after"], f"{label} does not go on as the first edition did", tolerance)


def test_first_edition_is_complete() -> None:
    """There is a checkpoint of each of its nine members, of one whose p was 0 at first, too."""
    members = {case["member"] for case in FIRST_EDITION.values()}
    assert len(members) == 9
    for kind in ("default", "late", "decay"):
        assert {f"{name}-{kind}" for name in members} <= FIRST_EDITION.keys()
    assert all("estimator_step" in FIRST_EDITION[f"{name}-late"]["checkpoint"]["state"][0] for name in members)
