"""Where a run was made: versions, device, commit and command, for its record and the report."""

import functools
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import distributed

ROOT = Path(__file__).resolve().parent.parent


def describe(device: torch.device) -> dict[str, Any]:
    """The environment of this process, as plain JSON types."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world() if distributed.active() else None,
        "commit": commit(),
        "command": command(),
    }


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
