"""Where a run was made: sources, versions, device, commit and command, for its record and the report."""

import ast
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

_CODE = (".py", ".in")
_APART = frozenset({*sys.stdlib_module_names, "benchmarks", "partial_adaptive"})  # told by other fields of a record


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
    """The version of the distribution that a module came with, or else twelve digits for its sources.

    One that is installed in editable form changes without its version, so that it has both. To the sources of a module
    belong those of the modules beside it that it imports.
    """
    root = module.partition(".")[0]
    distribution = _distribution(root)
    if distribution is not None and not _editable(distribution):
        return distribution.version
    digest = hashlib.sha256()
    for place in _with_imports(root):
        _update(digest, place)
    return f"{distribution.version}+{digest.hexdigest()[:12]}" if distribution else digest.hexdigest()[:12]


@functools.cache
def _distribution(root: str) -> importlib.metadata.Distribution | None:
    """The installed distribution that a module came with; None where it came with none."""
    names = importlib.metadata.packages_distributions().get(root, [])
    return importlib.metadata.distribution(names[0]) if names else None


def _editable(distribution: importlib.metadata.Distribution) -> bool:
    """Whether its code lies where somebody works on it."""
    text = distribution.read_text("direct_url.json")
    return text is not None and bool(json.loads(text).get("dir_info", {}).get("editable"))


def _with_imports(root: str) -> list[Path]:
    """The file or folder of a module, and those in the same folder that it imports, or that these do."""
    found = {root: _package(root)}
    waiting = [root]
    while waiting:
        place = found[waiting.pop()]
        for name in sorted(_imported(place)):
            if name in found or name in _APART or _distribution(name) is not None:
                continue
            for beside in (place.parent / f"{name}.py", place.parent / name / "__init__.py"):
                if beside.is_file():
                    found[name] = beside.parent if beside.name == "__init__.py" else beside
                    waiting.append(name)
    return list(found.values())


def _imported(place: Path) -> set[str]:
    """The modules that a source file, or all below a folder, name in their imports, up to the first dot."""
    found: set[str] = set()
    for path in _sources(place):
        for node in ast.walk(ast.parse(path.read_bytes())) if path.suffix == ".py" else ():
            if isinstance(node, ast.Import):
                found |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def _update(digest: Any, place: Path) -> None:
    """Feed a source file, or all below a folder, by name and content."""
    for path in _sources(place):
        digest.update(str(path.relative_to(place.parent)).encode())
        digest.update(path.read_bytes())


def _sources(place: Path) -> list[Path]:
    """A source file, or all below a folder, templates of code included."""
    return [place] if place.is_file() else sorted(path for path in place.rglob("*.*") if path.suffix in _CODE)


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
