"""Objects outside the benchmark, by ``"module:object"``."""

import importlib
from typing import Any


def resolve(reference: str) -> Any:
    """The object that ``"module:object"`` names.

    Raises:
        ImportError: there is no such module, or it fails to be imported.
        AttributeError: the module has no such object.
    """
    module, _, name = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
