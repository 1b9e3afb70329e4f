"""Workloads: a network on a data set, by name or as ``"module:object"``. Nothing of torch is imported here."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.base import references
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import nearest
from benchmarks.workloads import sources
from benchmarks.workloads.catalogue import REGISTRY
from benchmarks.workloads.workload import Workload, WorkloadError

__all__ = ["REGISTRY", "Workload", "WorkloadError", "find", "fingerprint", "of"]


def find(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> Workload:
    """The workload of that name, or that ``"module:object"`` is or returns, once it is known to take `options`.

    Raises:
        WorkloadError: there is no such workload, or it does not take one of the options.
        benchmarks.base.references.ReferenceLookupError: a module or object cannot be had.
    """
    if name in REGISTRY:
        workload = REGISTRY[name]
    elif references.is_reference(name):
        workload = _given(name)
    else:
        raise WorkloadError(f"unknown workload {name!r}{nearest(name, REGISTRY)} (or 'module:object')")
    workload.check(options)
    return workload


@functools.lru_cache(maxsize=64)
def _given(reference: str) -> Workload:
    """The workload that somebody else has made."""
    found = references.load(reference)
    if not isinstance(found, Workload) and callable(found):
        found = found()
    if not isinstance(found, Workload):
        raise WorkloadError(f"{reference!r} must be or return a Workload, got {type(found).__name__}")
    return found


def of(config: RunConfig) -> Workload:
    """The workload of a run, with the run's own model in place of the workload's where it names one.

    Raises:
        WorkloadError: there is no such workload or model, it does not take the run's options, or it needs a model.
        benchmarks.workloads.data.DataError: it needs a data set, or does not take the one that is given.
    """
    workload = find(config.workload, {} if config.model else config.workload_options)
    if config.model:
        workload = dataclasses.replace(workload, network=references.load(config.model), fixed={}, options=None)
    if not workload.network:
        raise WorkloadError(f"{workload.name} needs a model of your own: give model = 'module:object'")
    sources.source(workload, config)
    return workload


def fingerprint(config: RunConfig, data_dir: Path) -> str:
    """A hash of the data that a run trains on and is judged by; the data is read once per process.

    Raises:
        WorkloadError: there is no such workload.
        benchmarks.workloads.data.DataError: the data set is missing and cannot be downloaded, or is corrupt.
    """
    return sources.fingerprint(sources.source(find(config.workload), config), data_dir)
