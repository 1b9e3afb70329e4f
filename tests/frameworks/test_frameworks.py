"""The pages of the frameworks are true: each ends with a checkpoint that goes on bit for bit."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pages
import pytest


@pytest.mark.parametrize("page", pages.OF_FRAMEWORKS, ids=lambda page: page.stem)
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Callable[[Path], None]) -> None:
    """A page runs with its framework."""
    if "deepspeed" in pages.needs(page) and not find_spec("deepspeed"):
        pytest.skip("DeepSpeed is not in the extra, because it compiles for minutes at its first run: install it")
    pages.run(page, tmp_path, monkeypatch)
    record(page)
