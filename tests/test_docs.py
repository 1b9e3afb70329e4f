"""What is written is true: examples run, and the house keeps its own rules."""

import ast
import doctest
import importlib
import importlib.util
import pkgutil
import re
import sys
import types
from pathlib import Path

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
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
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
    module = types.ModuleType("__page__")  # a module of its own, so that its classes can be pickled
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in BLOCK.finditer(text):
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(page), "exec"), vars(module))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        name = slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = 0
        while name in found:
            count += 1
            name = f"{slug}-{count}"
        found.add(name)
    return found


@pytest.mark.parametrize("page", LINKED, ids=relative)
def test_links(page: Path) -> None:
    """Every link to a file or a heading of this repository leads there."""
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_relative_to(ROOT) or not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_index_has_every_page() -> None:
    """The map leads to each page of the documentation."""
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text())}
    missing = [relative(page) for page in LINKED if page not in (index, *linked)]
    assert missing == [], "give them a row in docs/index.md"


def test_generated_pages_are_up_to_date() -> None:
    """The reference and the tables between marks are what `python docs/generate.py` writes."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    tables = generate.current()
    pages = [page.read_text() for page in PAGES]
    for name in tables:
        assert any(f"<!-- table:{name} -->" in page for page in pages), f"no page has the table {name}"
    hint = "run `python docs/generate.py`"
    assert generate.REFERENCE.read_text() == generate.reference(), hint
    assert pages == [generate.filled(page, tables) for page in pages], hint


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
