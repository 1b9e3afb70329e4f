"""The pages of the documentation, run as their readers would run them."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
AT_EXIT = Path(__file__).parent / "at_exit"
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if page.exists()]
BLOCK = re.compile(r"^```(?:python(?: (\S+\.py))?|toml (\S+\.toml)|(sh run))\n(.*?)^```", re.DOTALL | re.MULTILINE)

FOLDER = ROOT / "docs" / "frameworks"
# What the pages of docs/frameworks need besides torch. `make test-frameworks` installs it and runs them.
FRAMEWORKS: dict[str, tuple[str, ...]] = {
    "accelerate": ("accelerate",),
    "deepspeed": ("deepspeed",),
    "lightning": ("lightning",),
    "peft": ("peft", "transformers"),
    "timm": ("timm",),
    "trainer": ("transformers", "accelerate"),
}
OF_FRAMEWORKS = [page for page in PAGES if page.parent == FOLDER and page.stem != "index"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def needs(page: Path) -> tuple[str, ...]:
    """The distributions that a page needs besides torch."""
    return FRAMEWORKS.get(page.stem, ()) if page.parent == FOLDER else ()


def run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of a page, one after the other, in a folder.

    Python runs in one module. A block headed "python train.py" or "toml study.toml" becomes that file, and one headed
    "sh run" is commands, which find the programs of this Python first.
    """
    if page.stem == "fsdp2" and torch.__version__.startswith("2.6."):
        pytest.skip("the fully_shard of torch 2.6 does not run on a CPU")
    monkeypatch.chdir(folder)
    text = page.read_text()
    module = types.ModuleType("__page__")  # a module of its own, so that its classes can be pickled
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in BLOCK.finditer(text):
        module_file, toml_file, commands, code = block.groups()
        if file := module_file or toml_file:
            (folder / file).write_text(code)
        elif commands:
            _shell(code)
        else:
            line = text[: block.start(4)].count("\n")
            exec(compile("\n" * line + code, str(page), "exec"), vars(module))


def _shell(commands: str) -> None:
    """Run commands, on this checkout's library; what they print is part of the error where one fails."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    path = os.pathsep.join(map(str, (ROOT, AT_EXIT)))
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-ec", commands], env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
