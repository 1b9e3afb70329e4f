"""The processes of the tests in this folder, started when a test first asks for them."""

from collections.abc import Iterator

import pytest
from processes import World


def _world(size: int) -> Iterator[World]:
    world = World(size)
    yield world
    world.close()


@pytest.fixture(scope="session")
def two() -> Iterator[World]:
    """Two processes."""
    yield from _world(2)


@pytest.fixture(scope="session")
def four() -> Iterator[World]:
    """Four processes."""
    yield from _world(4)
