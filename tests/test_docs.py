"""What is written is true: examples run, links lead somewhere, and what is generated is up to date."""

import doctest
import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

import pages
import pytest
from pages import PAGES, ROOT, relative

import partial_adaptive

MODULES = [
    "partial_adaptive",
    *(module.name for module in pkgutil.walk_packages(partial_adaptive.__path__, "partial_adaptive.")),
]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ENVIRONMENT = re.compile(r'@pytest.mark.environment\("(.*?)"\)')


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


@pytest.mark.filterwarnings("ignore:torch.distributed is .*single process")  # it is meant so
@pytest.mark.parametrize("page", [page for page in PAGES if not pages.needs(page)], ids=relative)
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run, one after the other, as its reader would run them."""
    pages.run(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("page", pages.OF_FRAMEWORKS, ids=relative)
def test_pages_of_frameworks_end_with_a_checkpoint(page: Path) -> None:
    """Each shows that training goes on from the framework's own checkpoint to the same bits; `pages.run` runs it."""
    code = "".join(block[4] for block in pages.BLOCK.finditer(page.read_text()))
    assert "resumed" in code
    assert "assert torch.equal(" in code


def test_pages_of_frameworks_have_run() -> None:
    """The record beside the pages names what each has run with: `make test-frameworks OPTIONS=--record` writes it."""
    record = json.loads((pages.FOLDER / "versions.json").read_text())
    needed = {page.stem: {"python", "torch", *pages.needs(page)} for page in pages.OF_FRAMEWORKS}
    assert {page: set(versions) for page, versions in record.items()} == needed


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


def test_the_family_page_has_every_member() -> None:
    """Each member has its place among the geometries, and each option and published schedule is named."""
    page = (ROOT / "docs" / "family.md").read_text()
    names = [member.cls.__name__ for member in partial_adaptive.MEMBERS.values()]
    names += [*partial_adaptive.Options.__annotations__, "LPSGDM", "DynMuon"]
    assert [name for name in names if name not in page] == []


def test_the_matrix_is_of_these_tests() -> None:
    """The matrix on record has the environments that the tests name, each with all members, or all elementwise ones."""
    named = {name for path in (ROOT / "tests").rglob("*.py") for name in ENVIRONMENT.findall(path.read_text())}
    record = json.loads((ROOT / "docs" / "environments.json").read_text())["environments"]
    patterns = {name: re.sub(r"\\{\w+\\}", ".+", re.escape(name)) for name in named}  # {way} is any of the ways
    missing = [name for name, pattern in patterns.items() if not any(re.fullmatch(pattern, row) for row in record)]
    unknown = [row for row in record if not any(re.fullmatch(pattern, row) for pattern in patterns.values())]
    assert (missing, unknown) == ([], []), "run `make matrix`"
    members = len(partial_adaptive.MEMBERS)
    elementwise = sum(member.elementwise for member in partial_adaptive.MEMBERS.values())
    for environment, cells in record.items():
        assert max(cell["total"] for cell in cells.values()) in (members, elementwise), environment
        assert not any(cell["failed"] for cell in cells.values()), environment


@pytest.fixture(scope="module")
def generate() -> Any:
    """The module that `python docs/generate.py` runs."""
    sys.path.insert(0, str(ROOT / "docs"))  # as Python does where it is run
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HINT = "run `python docs/generate.py`"


def test_generated_docstrings_are_up_to_date(generate: Any) -> None:
    """`Args` of the members and of `Options` are what the declarations of their hyperparameters say."""
    sources = generate.documented_sources()
    documented = [*(member.cls for member in partial_adaptive.MEMBERS.values()), partial_adaptive.Options]
    assert {*map(inspect.getfile, documented)} == set(map(str, sources))
    stale = [relative(path) for path, text in sources.items() if path.read_text() != text]
    assert stale == [], HINT


def test_generated_reference_is_up_to_date(generate: Any) -> None:
    """The reference is written from the docstrings."""
    assert generate.REFERENCE.read_text() == generate.reference(), HINT


def test_figures_of_p_have_the_numbers_of_the_page(generate: Any) -> None:
    """Those drawn from the studies on record say which tables they go with, which another test holds to the records."""
    import exponent_figures

    for name in ("headline", "which-p"):
        drawn = (ROOT / "docs" / "figures" / f"{name}.svg").read_text()
        assert f">{exponent_figures.source()}<" in drawn, "run `python docs/figures.py`"


def test_the_figure_of_batch_norm_has_the_runs_on_record(generate: Any) -> None:
    """It says which runs it was drawn from."""
    import gpu_figures

    drawn = (ROOT / "docs" / "figures" / "batch-norm.svg").read_text()
    assert f">{gpu_figures.source()}<" in drawn, "run `python docs/figures.py`"


def test_generated_tables_are_up_to_date(generate: Any) -> None:
    """The tables between marks are those of the code, each is on some page, and no mark is of none or without end."""
    tables = generate.current()
    pages = {relative(page): page.read_text() for page in PAGES}
    marked = re.findall(r"<!-- table:(\S+) -->\n.*?<!-- /table:\1 -->", "".join(pages.values()), re.DOTALL)
    assert {*marked} == {*tables, *generate.DOCUMENTED}
    assert len(re.findall(r"^<!-- table:", "\n".join(pages.values()), re.MULTILINE)) == len(marked)
    stale = [page for page, text in pages.items() if generate.filled(text, tables) != text]
    assert stale == [], HINT
