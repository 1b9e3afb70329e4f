"""Checkpoints that earlier versions have written: every later one loads them, and goes on to where those went."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from family import CAPTURABLE, has
from fixtures.freeze import HISTORIES, SAVED, STORED

import partial_adaptive as pa
from partial_adaptive.testing.harness import same, train, values

FIXTURES = Path(__file__).parent / "fixtures"
LABELS = [f"{name}-{label}" for name in pa.MEMBERS for label in (*HISTORIES, *STORED)]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2}  # processors round differently


def age_of(file: Path) -> tuple[Any, ...]:
    """What versions are sorted by: their numbers; one that is under way comes before its release."""
    numbers, _, under_way = file.stem.partition("-")
    return *map(int, numbers.split(".")), not under_way


FILES = {file.stem: torch.load(file, weights_only=True) for file in sorted(FIXTURES.glob("[0-9]*.pt"), key=age_of)}


def cases() -> list[Any]:
    """(file, label, mode); what is stored by a code, or rounded, goes on in the loop that it is from."""
    found = []
    for version, file in FILES.items():
        for label, case in file.items():
            stored = label.rpartition("-")[2] in STORED
            for mode in CAPTURABLE[:1] if stored else CAPTURABLE:
                if has(case["member"], mode):
                    found.append(pytest.param(version, label, mode, id=f"{version}-{label}-{mode}"))
    return found


@pytest.mark.parametrize(("version", "label", "mode"), cases())
def test_goes_on(version: str, label: str, mode: dict[str, Any]) -> None:
    """A checkpoint loads into an optimizer with p at 0 and one with p > 0, and goes on as in the version that saved it.

    Three times out of four p was 0 for a while. At the end it is raised, which shows what was kept of a second moment.
    """
    case = FILES[version][label]
    for fresh in (0.0, 0.25):
        params = [param.clone() for param in case["params"]]
        optimizer = pa.create(case["member"], params, **{**case["options"], "partial": fresh})
        optimizer.load_state_dict(copy.deepcopy(case["checkpoint"]))
        optimizer.param_groups[0].update(mode)
        train(optimizer, SAVED // 2, start=SAVED)
        optimizer.param_groups[0]["partial"] = 0.25
        train(optimizer, SAVED // 2, start=SAVED + SAVED // 2)
        tolerance = 1e-6 if mode.get("capturable") else TOLERANCES[params[0].dtype]  # its counts are of float32
        same(values(params), case["after"], f"{label} of {version} does not go on", tolerance)


@pytest.mark.parametrize("version", FILES)
def test_files_are_small(version: str) -> None:
    """The repository is no place for large ones."""
    assert (FIXTURES / f"{version}.pt").stat().st_size < 400_000


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_each_member_is_frozen(name: str) -> None:
    """The newest file has all checkpoints of each member."""
    newest = list(FILES)[-1]
    missing = [label for label in LABELS if label.startswith(f"{name}-") and label not in FILES[newest]]
    command = f"python tests/fixtures/freeze.py tests/fixtures/{newest}.pt {name}"
    assert missing == [], f"run `{command}` and commit the file"
