"""The processes themselves: what fails in one of them fails the test, and the next test finds them well."""

import os
import time
import warnings

import pytest
import torch
import torch.distributed as dist
from processes import ProcessError, World


def total() -> tuple[int, float]:
    value = torch.tensor(float(dist.get_rank() + 1))
    dist.all_reduce(value)
    return os.getpid(), value.item()


def failing(rank: int) -> None:
    if dist.get_rank() == rank:
        raise ZeroDivisionError(f"of {rank}")
    dist.barrier()


def warning() -> None:
    warnings.warn("of a process", stacklevel=1)


def sleeping() -> None:
    time.sleep(60)


def test_one_function_after_the_other(two: World, four: World) -> None:
    """All processes take part in a collective, and they are the same ones at the next call."""
    first, second = two.run(total), two.run(total)
    assert first == second
    assert [value for _, value in first] == [3.0, 3.0]
    assert [value for _, value in four.run(total)] == [10.0] * 4


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_in_one_fails_the_test(two: World, rank: int) -> None:
    """Its traceback is told, though the other process waits for ever; a new world takes the place of the old one."""
    before = two.run(total)
    with pytest.raises(ProcessError, match=rf"(?s)process {rank} of 2: Traceback.*ZeroDivisionError: of {rank}"):
        two.run(failing, rank)
    after = two.run(total)
    assert [value for _, value in after] == [3.0, 3.0]
    assert {pid for pid, _ in before}.isdisjoint(pid for pid, _ in after)


def test_no_answer_fails_the_test(two: World) -> None:
    """Nobody waits for ever."""
    with pytest.raises(ProcessError, match=r"no answer from process 0, 1 of 2 within 0.5 s"):
        two.run(sleeping, timeout=0.5)


def test_warnings_are_errors(two: World) -> None:
    """In the processes as in the tests."""
    with pytest.raises(ProcessError, match="UserWarning: of a process"):
        two.run(warning)
