"""The house keeps its own rules: what may import what, what is private, and where a thing may be said at all."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "partial_adaptive"
SOURCES = sorted(LIBRARY.rglob("*.py"))
EVERYTHING = [
    *SOURCES,
    *(path for name in ("benchmarks", "docs", "tests") for path in sorted((ROOT / name).rglob("*.py"))),
]
LONGEST_FILE = 500
LONGEST_CLASS = 40  # lines of a member or a stage, without its docstring

# The walls: what each part may import besides itself. A module belongs to the longest name here that it begins with.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "rules": (),  # arithmetic on one tensor
    "execution": ("rules", "execution.compiled.program"),  # what a program depends on is a fact about the rule
    "execution.compiled": ("rules", "execution", "execution.compiled.program"),
    "execution.compiled.program": ("rules", "execution"),
    "execution.plan": ("rules", "execution", "execution.compiled", "execution.compiled.program"),
    "execution.dynamo": ("rules", "execution", "execution.plan"),
    "roles": ("rules",),
    "optimizer": ("rules", "roles", "execution", "execution.plan", "execution.dynamo"),
    "members": ("rules", "optimizer"),
    "registry": ("rules", "optimizer", "members"),
    "integrations": ("rules", "optimizer", "members", "registry"),
    "param_groups": (),
    "step_size": ("rules", "execution", "optimizer"),
    "testing": ("rules", "execution", "optimizer", "members", "registry"),
    "": ("rules", "optimizer", "members", "registry", "integrations", "param_groups", "step_size"),
}
# Instantiated and inherited from: the base class is for whoever brings stages of their own.
CONCRETE_BASES = {"PartialAdaptiveOptimizer"}
# They make a tensor out of nothing, on the default device unless told where.
CONSTRUCTORS = {
    *("tensor", "as_tensor", "scalar_tensor", "empty", "empty_strided", "zeros", "ones", "full"),
    *("arange", "linspace", "eye", "rand", "randn"),
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module_of(path: Path) -> str:
    """The name of a file's module inside the library, "" for the library itself."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def part_of(module: str) -> str:
    """The part of the house that a module belongs to."""
    return max((part for part in MAY_IMPORT if f"{module}.".startswith(f"{part}." if part else "")), key=len)


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module of the library, name that is taken from it, "" for the module itself), wherever the file imports."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for module, name in names:
            package, _, inside = module.partition(".")
            if package == "partial_adaptive":
                submodule = f"{inside}.{name}".strip(".")
                yield (submodule, "") if name and submodule in MODULES else (inside, name)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_downwards(path: Path) -> None:
    """Each part imports what the table of the walls allows it, and nothing else of the library."""
    part = part_of(module_of(path))
    allowed = {part, *MAY_IMPORT[part]}
    wrong = {f"{module} ({part_of(module)})" for module, _ in imported(path) if part_of(module) not in allowed}
    assert wrong == set(), f"{part or 'the package'} may import {sorted(allowed)}"


def test_imports_have_no_cycles() -> None:
    """Modules can be put in one order in which each imports earlier ones alone."""
    waiting = {module: {other for other, _ in imported(path)} - {module} for module, path in MODULES.items()}
    while ready := {module for module, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {module: needs for module, needs in waiting.items() if module not in ready}
    while unneeded := waiting.keys() - {other for needs in waiting.values() for other in needs}:
        waiting = {module: needs for module, needs in waiting.items() if module not in unneeded}
    assert {module: needs & waiting.keys() for module, needs in waiting.items()} == {}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@cache
def private_names(path: Path) -> frozenset[str]:
    """The private names that a file introduces: of classes, functions, variables, attributes."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
            if isinstance(node, ast.ClassDef):
                strings = [it.value for it in ast.walk(node) if isinstance(it, ast.Constant)]
                found |= {it for it in strings if isinstance(it, str) and it.isidentifier()}  # __slots__
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
            found.add(node.attr)
    return frozenset(filter(is_private, found))


def is_own(node: ast.Attribute) -> bool:
    """Whether it is an attribute of `self` or `cls`."""
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_private_names_stay_in_their_file(path: Path) -> None:
    """What begins with an underscore is neither imported nor reached for from another file of the library."""
    elsewhere = {name for other in SOURCES if other != path for name in private_names(other)}
    foreign = elsewhere - private_names(path)
    wrong = [f"import of {module}.{name}" for module, name in imported(path) if is_private(name)]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and node.attr in foreign and not is_own(node):
            wrong.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
            wrong += [
                f"line {node.lineno}: {ast.unparse(node)}"
                for name in node.args[1:2]
                if isinstance(name, ast.Constant) and name.value in foreign
            ]
    assert wrong == []


@pytest.mark.parametrize("path", EVERYTHING, ids=relative)
def test_file_sizes(path: Path) -> None:
    """No file is longer than 500 lines."""
    length = len(path.read_text().splitlines())
    assert length <= LONGEST_FILE


def test_what_is_silenced_has_a_reason() -> None:
    """Whatever a linter or a type checker is told to pass over says why, beside it."""
    silenced = re.compile(r"# (?:type: ignore|noqa)(?!.*  # \S)")
    found = [
        f"{relative(path)}:{number}"
        for path in EVERYTHING
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if silenced.search(line) and "silenced = " not in line
    ]
    assert found == []


@pytest.mark.parametrize(
    "path",
    [LIBRARY / "rules" / name for name in ("numerators.py", "second_moments.py")]
    + [path for path in SOURCES if path.parent.name == "members"],
    ids=relative,
)
def test_class_sizes(path: Path) -> None:
    """A stage, and a member with its signature, takes at most 40 lines besides its docstring."""
    sizes = {}
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            sizes[node.name] = (node.end_lineno or 0) - node.lineno + 1 - docstring
    assert {name: size for name, size in sizes.items() if size > LONGEST_CLASS} == {}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_step_is_written_once(path: Path) -> None:
    """`step` is a method of the base class, and no optimizer made from it has another."""
    methods = [node for cls in classes(path) if cls.bases for node in cls.body if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in methods if node.name == "step"] == ["step"] * (module_of(path) == "optimizer")


def classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]


def name_of(node: ast.expr) -> str:
    """`Name` of Name, Name[T] and module.Name."""
    node = node.value if isinstance(node, ast.Subscript) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_classes_are_abstract_or_final() -> None:
    """A class of which the library makes instances is inherited from by none of its own."""
    found = {cls.name: [name_of(base) for base in cls.bases] for path in SOURCES for cls in classes(path)}
    made = {
        name_of(node.func)
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and name_of(node.func) in found
    }
    both = {f"{name}({base})" for name, bases in found.items() for base in bases if base in made - CONCRETE_BASES}
    assert both == set()


def test_members_are_final() -> None:
    """Every member says so."""
    for path in SOURCES:
        if path.parent.name == "members":
            open_ = [cls.name for cls in classes(path) if "final" not in map(name_of, cls.decorator_list)]
            assert open_ == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_library_needs_torch_alone(path: Path) -> None:
    """At import time nothing but torch and the standard library is needed."""
    stack: list[ast.AST] = [tree(path)]
    needed: set[str] = set()
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            needed |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            needed.add((node.module or "").partition(".")[0])
        stack += ast.iter_child_nodes(node)
    assert needed - {"torch", "partial_adaptive"} <= sys.stdlib_module_names


@pytest.mark.parametrize("path", [path for path in SOURCES if "execution" in path.parts], ids=relative)
def test_tensors_are_made_where_they_are_needed(path: Path) -> None:
    """What makes a tensor says on which device: users set a default one, and mean their models."""
    wrong = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and node.func.attr in CONSTRUCTORS
        and not any(keyword.arg == "device" for keyword in node.keywords)
    ]
    assert wrong == []


def test_the_table_is_of_this_house() -> None:
    """Every part of the table exists, and every module belongs to one."""
    parts = {part_of(module) for module in MODULES}
    assert parts == MAY_IMPORT.keys()
    assert {part for allowed in MAY_IMPORT.values() for part in allowed} <= MAY_IMPORT.keys()
    assert [module for module in MODULES if part_of(module) == "" and module] == [], "give them a place in the table"
