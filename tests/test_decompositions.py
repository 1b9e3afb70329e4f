"""Decompositions, for which the host waits: refused in a CUDA graph before torch's error makes them useless."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import partial_adaptive
from partial_adaptive.rules import decompositions


class There(Tensor):
    """Says that it is on a GPU."""

    @property
    def is_cuda(self) -> bool:
        return True


@pytest.mark.parametrize("decompose", [decompositions.eigh, decompositions.qr])
def test_refused_in_a_capture(decompose: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """While a GPU captures, with what to do instead; not without a capture, and not of a matrix on the CPU."""
    here = torch.eye(3).expand(2, 3, 3)
    there = here.as_subclass(There)
    for initialized, capturing in ((False, True), (True, False), (True, True)):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda answer=initialized: answer)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda answer=capturing: answer)
        if initialized and capturing:
            with pytest.raises(RuntimeError, match=r"while a CUDA graph is captured.*outside of the graph"):
                decompose(there)
        else:
            assert [part.shape[0] for part in decompose(there)] == [2, 2]
        assert [part.shape[0] for part in decompose(here)] == [2, 2]


def test_nobody_else_decomposes() -> None:
    """No other line of the library calls a decomposition of `torch.linalg`."""
    folder = Path(partial_adaptive.__file__).parent
    found = [
        f"{path.name}: {line.strip()}"
        for path in folder.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"linalg\.(eig|qr|svd|cholesky|ldl|lu)", line) and path.name != "decompositions.py"
    ]
    assert not found
