"""Objects by reference, ``"module:object"``, and catalogues that know their names without importing what they name."""

import functools
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.base.errors import BenchmarkError, nearest

VARIABLE = "PARTIAL_ADAPTIVE_BENCHMARKS_PATH"
"""Environment variable with the folders of `search`: the processes that this one starts find the same modules."""

OPTIMIZERS = "partial_adaptive.benchmarks.optimizers"
WORKLOADS = "partial_adaptive.benchmarks.workloads"
SCHEDULES = "partial_adaptive.benchmarks.schedules"
"""The groups of entry points by which an installed distribution makes its objects known."""


class ReferenceLookupError(BenchmarkError, ValueError):
    """A reference that is not of the form ``module:object``, or whose module or object cannot be had."""


def is_reference(name: str) -> bool:
    """Whether a name means an object outside the benchmark."""
    return ":" in name


def search(folder: Path) -> None:
    """Make the modules in a folder importable, after all others, here and in the processes started from now on."""
    known = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    path = str(folder.resolve())
    if path not in known:
        os.environ[VARIABLE] = os.pathsep.join([*known, path])
    _see()


def environment() -> dict[str, str]:
    """What a process that does not inherit this one's environment needs to find the same modules."""
    return {VARIABLE: os.environ.get(VARIABLE, "")}


def _see() -> None:
    sys.path += [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part and part not in sys.path]


def load(reference: str) -> Any:
    """The object that a reference names.

    Args:
        reference: ``"module:object"``, e.g. ``"torch.optim:RAdam"``; the object may be an attribute of another,
            ``"module:Class.method"``.

    Raises:
        ReferenceLookupError: it is of another form, the module cannot be imported, or it has no such object.
    """
    module, colon, path = reference.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        raise ReferenceLookupError(f"{reference!r} is not of the form 'module:object'")
    found: Any = _module(module, reference)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            public = [known for known in dir(found) if not known.startswith("_")]
            where = f"module {module!r}" if found is sys.modules[module] else f"what is before it in {module!r}"
            raise ReferenceLookupError(f"{reference!r}: {where} has no {name!r}{nearest(name, public)}") from error
    return found


def _module(name: str, reference: str) -> Any:
    _see()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{name}.".startswith(f"{missing}."):
            why = f"there is no module {missing!r} beside the study or among what is installed"
        else:
            why = f"module {name!r} needs {missing!r}, which is not installed"
        raise ReferenceLookupError(f"{reference!r}: {why}") from error
    except Exception as error:  # whatever a module of somebody else's does when it is imported
        why = f"module {name!r} cannot be imported: {type(error).__name__}: {error}"
        raise ReferenceLookupError(f"{reference!r}: {why}") from error


_see()  # a process that another one has started


class Item(NamedTuple):
    """What a catalogue knows of a name.

    Args:
        reference: ``"module:object"``.
        title: a line for ``list``.
        distribution: the installed distribution that it comes from, "" for the benchmark.
    """

    reference: str
    title: str
    distribution: str = ""


class Catalogue(Mapping[str, Item]):
    """Names and what they stand for: the benchmark's own, then the entry points of installed distributions.

    A name that is taken stays what it is: the later one is called ``name@distribution``.

    Args:
        what: a word for error messages, e.g. ``"optimizer"``.
        own: the benchmark's own by name.
        group: the entry points' group, e.g. ``"partial_adaptive.benchmarks.optimizers"``; "" for none.
    """

    def __init__(self, what: str, own: Mapping[str, Item], group: str = "") -> None:
        self.what = what
        self.own = own
        self.group = group

    @functools.cached_property
    def _items(self) -> Mapping[str, Item]:
        items = dict(self.own)
        for point in entry_points(self.group):
            distribution = point.dist.name if point.dist else ""
            name = f"{point.name}@{distribution}" if point.name in items else point.name
            items[name] = Item(point.value, f"{point.value}, from {distribution}", distribution)
        return items

    def __getitem__(self, name: str) -> Item:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def reference(self, name: str) -> str:
        """The reference that a name stands for; a reference stands for itself."""
        if is_reference(name):
            return name
        if name not in self:
            raise ReferenceLookupError(f"unknown {self.what} {name!r}{nearest(name, self)} (or 'module:object')")
        return self[name].reference

    def load(self, name: str) -> Any:
        """The object that a name or a reference stands for."""
        return load(self.reference(name))


def entry_points(group: str) -> list[importlib.metadata.EntryPoint]:
    """The entry points of a group, ordered by name and distribution."""
    points = importlib.metadata.entry_points(group=group) if group else ()
    return sorted(points, key=lambda point: (point.name, point.dist.name if point.dist else ""))
