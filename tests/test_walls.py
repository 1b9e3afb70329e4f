"""The walls of the benchmark: wings import what lies below them, and nobody reaches for what is private elsewhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_house import is_own, is_private, private_names, relative, tree

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
SOURCES = sorted(BENCHMARKS.rglob("*.py"))

# What each wing may import of the benchmark besides itself. A module belongs to the longest name that it begins with.
_RUNS = ("base", "workloads", "training", "studies")
_TOLD = (*_RUNS, "report.results", "report.inference")
_SAID = (*_TOLD, "report.display", "report.groups", "report.published")
_SHOWN = (*_SAID, "report.sections")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "base": (),
    "workloads": ("base",),
    "training": ("base", "workloads"),
    "studies": ("base", "workloads", "training"),
    "scheduling": _RUNS,
    "report.results": _RUNS,
    "report.inference": (*_RUNS, "report.results"),
    "report.display": _TOLD,
    "report.groups": (*_TOLD, "report.display"),
    "report.published": _RUNS,
    "report.sections": _SAID,
    "report.pages": _SHOWN,
    "report.evidence": _SHOWN,
    "report": (*_SHOWN, "report.pages"),
    "speed": ("base", "workloads", "training"),
    "theory": (*_SHOWN, "report.pages", "report"),
    "session": (*_SHOWN, "report.evidence", "report", "scheduling"),
    "cli": (*_RUNS, "scheduling", "speed", "theory", "session"),
    "__main__": ("cli",),
    "": (),
}


def module_of(path: Path) -> str:
    """The name of a file's module inside the benchmark, "" for the package itself."""
    parts = path.relative_to(BENCHMARKS).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def wing_of(module: str) -> str:
    """The wing that a module belongs to."""
    return max((wing for wing in MAY_IMPORT if f"{module}.".startswith(f"{wing}." if wing else "")), key=len)


def imported(path: Path, *, at_once: bool = False) -> Iterator[tuple[str, str]]:
    """(module of the benchmark, name taken from it), wherever the file imports, or only what it needs `at_once`."""
    stack: list[ast.AST] = [tree(path)]
    while stack:
        node = stack.pop()
        names: list[tuple[str, str]] = []
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [(node.module or "", alias.name) for alias in node.names]
        elif at_once and (isinstance(node, ast.FunctionDef | ast.Lambda) or is_for_types(node)):
            continue
        stack += ast.iter_child_nodes(node)
        for module, name in names:
            package, _, inside = module.partition(".")
            if package == "benchmarks":
                submodule = f"{inside}.{name}".strip(".")
                yield (submodule, "") if name and submodule in MODULES else (inside, name)


def is_for_types(node: ast.AST) -> bool:
    """Whether it is there for a type checker alone."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_downwards(path: Path) -> None:
    """Each wing imports what the table of the walls allows it, and nothing else of the benchmark."""
    wing = wing_of(module_of(path))
    allowed = {wing, *MAY_IMPORT[wing]}
    wrong = {f"{module}.{name}".strip(".") for module, name in imported(path) if wing_of(module) not in allowed}
    assert wrong == set(), f"{wing} may import {sorted(allowed)}"


def test_imports_have_no_cycles() -> None:
    """Modules can be put in one order in which each imports earlier ones alone."""
    waiting = {module: {other for other, _ in imported(path, at_once=True)} for module, path in MODULES.items()}
    waiting = {module: needs & MODULES.keys() - {module} for module, needs in waiting.items()}
    while ready := {module for module, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {module: needs for module, needs in waiting.items() if module not in ready}
    assert {module: needs & waiting.keys() for module, needs in waiting.items()} == {}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_private_names_stay_in_their_file(path: Path) -> None:
    """What begins with an underscore is neither imported nor reached for from another file of the benchmark."""
    foreign = {name for other in SOURCES if other != path for name in private_names(other)} - private_names(path)
    foreign -= {"_asdict"}  # a name of tuples with names, which Python gives them
    wrong = [f"import of {module}.{name}" for module, name in imported(path) if is_private(name)]
    wrong += [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in foreign and not is_own(node)
    ]
    assert wrong == []


def test_the_table_is_of_this_house() -> None:
    """Every wing of the table exists, every module belongs to one, and the table itself has no cycle."""
    assert {wing_of(module) for module in MODULES} == MAY_IMPORT.keys()
    assert [module for module in MODULES if wing_of(module) == "" and module] == [], "give them a place in the table"
    order = list(MAY_IMPORT)
    for wing, allowed in MAY_IMPORT.items():
        if wing not in ("", "__main__"):
            assert all(order.index(other) < order.index(wing) for other in allowed), wing
