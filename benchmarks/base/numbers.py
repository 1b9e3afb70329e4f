"""What counts as a number in files that people write."""

from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether a setting is a number, which ``true`` and ``false`` are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
