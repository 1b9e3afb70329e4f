"""What the tests with frameworks share: which warnings are errors, and the record of versions."""

import json
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pages
import pytest

VERSIONS = pages.FOLDER / "versions.json"

# Frameworks warn of what concerns themselves and each other, in each version of something else. What concerns us is an
# error.
WARNINGS = (
    "ignore",
    "error:(?s).*lr_scheduler",
    "error:(?s).*[oO]ptimizer",
    "error:::partial_adaptive",
    "error:::__page__",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write down what the pages have run with")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.filterwarnings(*WARNINGS))


@pytest.fixture(autouse=True)
def _accelerate_starts_afresh() -> Iterator[None]:
    """Accelerate keeps one state for a process, with the precision that was asked for first."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(True)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Writes down, with `--record`, the versions that a page has run with."""

    def write(page: Path) -> None:
        if request.config.getoption("--record"):
            used = {name: version(name) for name in ("torch", *pages.needs(page))}
            known = json.loads(VERSIONS.read_text()) | {page.stem: {"python": platform.python_version(), **used}}
            VERSIONS.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")

    return write
