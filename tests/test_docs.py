"""What is written is true: examples run, and the house keeps its own rules."""

import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import partial_adaptive

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "partial_adaptive"
MODULES = [
    "partial_adaptive",
    *(module.name for module in pkgutil.walk_packages(partial_adaptive.__path__, "partial_adaptive.")),
]
SOURCES = sorted(LIBRARY.rglob("*.py"))
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if page.exists()]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LIMITS = {"optimizer.py": 400}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    """Every example in a docstring gives what it says."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("partial_adaptive"):
            raise
        pytest.skip(f"{error.name} is not installed")
    result = doctest.testmod(module, extraglobs={"torch": __import__("torch")})
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of a page run, one after the other, as its reader would run them."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for block in BLOCK.finditer(text):
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(page), "exec"), namespace)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_file_sizes(path: Path) -> None:
    """No file of the library is longer than 500 lines, the base class no longer than 400."""
    limit = LIMITS.get(path.name, 500)
    assert len(path.read_text().splitlines()) <= limit


@pytest.mark.parametrize("file", ["estimators.py", "extensions.py", "momentum.py", "variants.py"])
def test_class_sizes(file: str) -> None:
    """An estimator, and a variant with its signature and docstring, takes at most 40 lines."""
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in classes(LIBRARY / file)}
    assert {name: size for name, size in sizes.items() if size > 40} == {}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_step_is_written_once(path: Path) -> None:
    """`step` is defined in the base class and nowhere else."""
    methods = [node for cls in classes(path) for node in cls.body if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in methods if node.name == "step"] == ["step"] * (path.name == "optimizer.py")


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_library_needs_torch_alone(path: Path) -> None:
    """At import time nothing but torch and the standard library is needed."""
    stack: list[ast.AST] = [ast.parse(path.read_text())]
    imported: set[str] = set()
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.Try):
            continue
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
        stack += ast.iter_child_nodes(node)
    assert imported & {"numpy", "pytest", "hypothesis", "scipy", "torchvision", "matplotlib"} == set()
