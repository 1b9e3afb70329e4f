"""What a study brings along: optimizers, models, data sets and schedules of somebody else's, by reference."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.base import references
from benchmarks.base.errors import BenchmarkError, nearest
from benchmarks.studies.schema import Place


def reference(name: str, group: str) -> str:
    """The reference that an entry point of `group` gives a name; any other name is returned as it is."""
    if references.is_reference(name):
        return name
    found = references.Catalogue("name", {}, group)
    return found[name].reference if name in found else name


def load(name: str, folders: Sequence[Path], place: Place) -> Callable[..., Any]:
    """The object that a study names, which is called or is a workload.

    Args:
        name: ``"module:object"``.
        folders: those of the study's files, searched after what is installed.
        place: where the study names it.

    Raises:
        StudyError: there is no such object, or it comes from elsewhere than it seems to.
    """
    for folder in folders:
        references.search(folder)
    try:
        found: Callable[..., Any] = references.load(name)
    except BenchmarkError as error:
        _check_origin(name, folders, place)
        raise place.error(str(error)) from error
    _check_origin(name, folders, place)
    return found


def _check_origin(name: str, folders: Sequence[Path], place: Place) -> None:
    """Raise `StudyError` if the module of `name` is another one than that beside the study."""
    root = name.partition(":")[0].partition(".")[0]
    if root not in sys.modules:
        return
    origin = Path(getattr(sys.modules[root], "__file__", None) or "")
    for folder in folders:
        for beside in (folder / f"{root}.py", folder / root / "__init__.py"):
            if beside.is_file() and beside.resolve() != origin.resolve():
                raise place.error(f"{name!r}: module {root!r} is {origin}; rename the one beside the study")


def check_call(name: str, called: Callable[..., Any], options: Mapping[str, Any], place: Place) -> None:
    """Raise `StudyError` unless `called` can be called with `options`, by its signature.

    Args:
        name: its reference.
        called: what is called.
        options: the keyword arguments.
        place: where they stand in the study.
    """
    if not callable(called):
        raise place.error(f"{name!r} cannot be called: it is of type {type(called).__name__}")
    parameters = _parameters(called)
    if not parameters:
        return
    named = {key: one for key, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    for key in options:
        if key not in named and not anything:
            raise (place / key).error(f"{name} has no argument {key!r}{nearest(key, named)}")
    for key, one in named.items():
        if key not in options and one.default is inspect.Parameter.empty:
            raise (place / key).error(f"is missing: {name} needs it")


def _parameters(called: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters, by name; none where Python does not know them."""
    try:
        return inspect.signature(called).parameters
    except (TypeError, ValueError):
        return {}
