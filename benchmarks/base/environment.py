"""Where a run was made: sources, versions, device, commit and command, for its record and the report."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.base import distributed

ROOT = Path(__file__).resolve().parent.parent.parent
WINGS = ("base", "training", "workloads")
"""The wings of the benchmark on which the result of a run depends."""


class Provenance(NamedTuple):
    """What else than its configuration a run's result depends on: runs that differ here are told apart.

    Args:
        sources: hash of the library and of the wings of the benchmark.
        torch: its version.
        device: its name.
        processes: how many trained together.
        modules: the versions of what the run brought along; those of a table's runs differ where optimizers do.
    """

    sources: str
    torch: str
    device: str
    processes: str
    modules: str = ""

    @property
    def common(self) -> "Provenance":
        """What all runs of a table have in common if nothing is mixed."""
        return self._replace(modules="")

    @property
    def key(self) -> str:
        """Eight digits that stand for it in the name of a file."""
        said = self[:4] + self[4:] * bool(self.modules)
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]


def provenance(environment: Mapping[str, Any]) -> Provenance:
    """What `describe` said, or said before it knew of sources: then the commit stands for them."""
    sources = environment.get("sources") or environment.get("commit") or "unknown"
    return Provenance(
        str(sources),
        str(environment.get("torch") or "unknown"),
        str(environment.get("device") or "unknown"),
        str(environment.get("processes") or 1),
        ", ".join(f"{module} {version}" for module, version in sorted((environment.get("modules") or {}).items())),
    )


def describe(device: torch.device, modules: Iterable[str] = ()) -> dict[str, Any]:
    """The environment of this process, as plain JSON types.

    Args:
        device: where the run was made.
        modules: those outside the benchmark that the run made use of.
    """
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world() if distributed.active() else None,
        "sources": sources(),
        "modules": {module: version(module) for module in modules},
        "commit": commit(),
        "command": command(),
    }


@functools.cache
def here(device: torch.device, modules: tuple[str, ...] = ()) -> Provenance:
    """What `provenance` says of a run that is made now by this process."""
    return provenance(describe(device, modules))


def command() -> str:
    """The command line of this process as one would type it."""
    name = Path(sys.argv[0]).name
    program = ["python", "-m", "benchmarks"] if name == "__main__.py" else [name]
    if distributed.launched():
        sizes = {"--nnodes": "GROUP_WORLD_SIZE", "--nproc-per-node": "LOCAL_WORLD_SIZE"}
        options = [f"{option}={os.environ[variable]}" for option, variable in sizes.items() if variable in os.environ]
        program = ["torchrun", *options, *(part for part in program if part != "python")]
    return shlex.join([*program, *sys.argv[1:]])


@functools.cache
def sources() -> str:
    """Twelve digits for all code of ours that decides a result: the library and three wings of the benchmark."""
    digest = hashlib.sha256()
    for folder in (_package("partial_adaptive"), *(ROOT / "benchmarks" / wing for wing in WINGS)):
        _update(digest, folder)
    return digest.hexdigest()[:12]


@functools.cache
def version(module: str) -> str:
    """The version of the distribution that a module came with, or else twelve digits for its sources."""
    root = module.partition(".")[0]
    distributions = importlib.metadata.packages_distributions().get(root, [])
    if distributions:
        return importlib.metadata.version(distributions[0])
    digest = hashlib.sha256()
    _update(digest, _package(root))
    return digest.hexdigest()[:12]


def _update(digest: Any, place: Path) -> None:
    """Feed a source file, or all below a folder, by name and content."""
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        digest.update(str(path.relative_to(place.parent)).encode())
        digest.update(path.read_bytes())


def _package(name: str) -> Path:
    """The folder of a package or the file of a module, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    path = Path(spec.origin)
    return path.parent if path.name == "__init__.py" else path


@functools.cache
def commit() -> str | None:
    """The checkout's commit, with a plus sign if files differ from it; None outside a checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True, timeout=10)
    return run.stdout.strip()


@functools.cache
def _processor() -> str:
    """The processor's name and how many of its cores there are for us."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    return f"{name}, {os.cpu_count()} cores"
