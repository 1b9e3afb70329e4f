"""Writes what the documentation takes from the code: ``python docs/generate.py [--quick DIR] [--eight-bit DIR]``.

Run it from the checkout. It writes the sections ``Args`` and ``Raises`` of the members' docstrings, and ``Args`` of
``Options``, from the table of hyperparameters, ``docs/reference.md`` from the docstrings, and the tables between marks,
``<!-- table:NAME -->`` to ``<!-- /table:NAME -->``: those of ``tables.current``, and ``quick`` and ``eight-bit`` from
the results store at DIR that has the study of that name, where it is given.
"""

import argparse
import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tables import current, filled, studied, table

import partial_adaptive
from partial_adaptive import MEMBERS, Momentum, SecondMoment, Transform, testing
from partial_adaptive.rules import (
    blocks,
    codecs,
    kronecker,
    numerators,
    power,
    second_moments,
    spectra,
    stage,
    transforms,
)
from partial_adaptive.rules.hyperparameters import HYPERPARAMETERS, REQUIRED, Hyperparameter
from partial_adaptive.rules.options import OWN, Options
from partial_adaptive.rules.projection import CONSTRAINT

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference.md"
DOCUMENTED = ("quick", "eight-bit")  # studies whose results are on a page

_INTRODUCTION = """\
# Reference

Written from the docstrings by `docs/generate.py`; do not edit by hand. See [usage](usage.md) for the same in context
and [mathematics](mathematics.md) for what the formulas mean.
"""

_SECTIONS: Sequence[tuple[str, str, Sequence[Any]]] = (
    (
        "The family",
        "Every optimizer takes the arguments of its counterpart in `torch.optim` under the same names, and `partial`.",
        [member.cls for member in MEMBERS.values()],
    ),
    (
        "By name",
        "The family as data.",
        [partial_adaptive.create, partial_adaptive.Member, partial_adaptive.register_timm],
    ),
    (
        "The base class",
        "What all of them share, and what an optimizer of your own is made from.",
        [partial_adaptive.PartialAdaptiveOptimizer, partial_adaptive.Options, partial_adaptive.Metrics],
    ),
    ("Param groups", "", [partial_adaptive.param_groups]),
    (
        "Stages",
        "What an update rule is made of. [Extending](extending.md) writes one of each kind.",
        [
            partial_adaptive.Estimator,
            partial_adaptive.Momentum,
            partial_adaptive.Transform,
            partial_adaptive.Tensors,
            partial_adaptive.SecondMoment,
            stage.Stage,
            partial_adaptive.Needs,
            partial_adaptive.Slot,
            stage.Codec,
            codecs.Block8,
            partial_adaptive.Switch,
            stage.average_,
            stage.average_square_,
            power.power,
        ],
    ),
    (
        "Feasible sets",
        "Where the parameters of a group stay, by `constraint=`. [Usage](usage.md#feasible-sets) shows them.",
        [
            partial_adaptive.Box,
            partial_adaptive.NonNegative,
            partial_adaptive.L2Ball,
            partial_adaptive.L1Ball,
            partial_adaptive.Simplex,
            partial_adaptive.HalfSpace,
            partial_adaptive.Constraint,
        ],
    ),
    (
        "Schedules",
        "Hyperparameters over time. [Usage](usage.md#schedules) shows them.",
        [
            partial_adaptive.Schedule,
            partial_adaptive.Linear,
            partial_adaptive.Cosine,
            partial_adaptive.Logistic,
            partial_adaptive.Steps,
            partial_adaptive.LPSGDM,
            partial_adaptive.DynMuon,
            partial_adaptive.Geometric,
            partial_adaptive.Inverse,
            partial_adaptive.InverseSqrt,
        ],
    ),
    (
        "Step size",
        "The learning rate that belongs to p. [Step size](step-size.md) shows it.",
        [partial_adaptive.equivalent_lr, partial_adaptive.interpolated_lr],
    ),
    (
        "Numbers",
        "Hyperparameters: how they are declared, and what a stage reads of them at a step.",
        [
            partial_adaptive.number,
            partial_adaptive.whole,
            partial_adaptive.flag,
            partial_adaptive.choice,
            partial_adaptive.Hyperparameter,
            partial_adaptive.Hyper,
        ],
    ),
    (
        "Testing",
        "The conformance suite, `partial_adaptive.testing`.",
        [testing.check_optimizer, testing.check_estimator, testing.factory, testing.parametrize_checks],
    ),
)


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stores = parser.add_argument_group("results stores", "that have a study")
    for study in DOCUMENTED:
        stores.add_argument(f"--{study}", type=Path, metavar="DIR", help=f"has the study `{study}`")
    options = parser.parse_args()
    for path, text in documented_sources().items():
        path.write_text(text)
    REFERENCE.write_text(reference())
    tables = current()
    for study in DOCUMENTED:
        results = vars(options)[study.replace("-", "_")]
        if results is not None:
            tables[study] = studied(study, results)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        page.write_text(filled(page.read_text(), tables))


# -- the docstrings of the members

_DOCSTRING = re.compile(r"(.*?\n\n)(?:    Args:\n.*?\n\n)?(    Example:\n.*)", re.DOTALL)
WRITTEN: Sequence[type] = (*(member.cls for member in MEMBERS.values()), Options)  # with generated sections


@cache
def documented_sources() -> dict[Path, str]:
    """What the files of the members and of `Options` are to hold: their text, with `Args` as the tables have them."""
    sources: dict[Path, str] = {}
    for cls in WRITTEN:
        path = Path(inspect.getfile(cls))
        text = sources.get(path) or path.read_text()
        literal = _definition(cls, text).body[0]
        docstring = "".join(text.splitlines(keepends=True)[literal.lineno - 1 : literal.end_lineno])
        parts = _DOCSTRING.fullmatch(docstring)
        if parts is None:
            raise ValueError(f"{path.name}: the docstring of {cls.__name__} must have a section Example")
        arguments = _options() if cls is Options else _arguments(cls)
        sources[path] = text.replace(docstring, f"{parts[1]}{arguments}{parts[2]}")
    return sources


def _definition(cls: type, text: str) -> ast.ClassDef:
    """A class as it stands in a source."""
    (found,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    return found


def _docstring(subject: Any) -> str:
    """A docstring without its indentation; one with generated sections as it is to be."""
    if any(subject is cls for cls in WRITTEN):
        return ast.get_docstring(_definition(subject, documented_sources()[Path(inspect.getfile(subject))])) or ""
    return inspect.getdoc(subject) or ""


def _arguments(cls: Any) -> str:
    """The sections `Args` and `Raises` of a member, from its signature and the declarations of hyperparameters."""
    table = HYPERPARAMETERS | cls([torch.zeros(1)]).recipe.own
    items = ["params: tensors, (name, tensor) pairs, or dicts that define param groups."]
    for name, argument in inspect.signature(cls).parameters.items():
        if argument.kind is inspect.Parameter.VAR_KEYWORD:
            names = ", ".join(f"`{option}`" for option in Options.__annotations__)
            items.append(f"**{name}: what every member takes, off by default, see `Options`: {names}.")
        elif name != "params":
            items.append(_described(name, table[name], argument.default))
    raised = [
        "ValueError: where an argument is out of its range, or two modes exclude each other.",
        "TypeError: where an argument is text that should be a number.",
    ]
    return f"    Args:\n{_listed(items)}\n    Raises:\n{_listed(raised)}\n"


def _options() -> str:
    """The section `Args` of the options of every member, from their declarations."""
    table = HYPERPARAMETERS | OWN
    items = (_described(name, table[name], table[name].default) for name in Options.__annotations__)
    return f"    Args:\n{_listed(items)}\n"


def _described(name: str, entry: Hyperparameter, default: Any) -> str:
    return f"{name}: {entry.meaning}; {entry.allowed} (default: {default!r})."


def _listed(items: Iterable[str]) -> str:
    fill = textwrap.TextWrapper(
        120, initial_indent=" " * 8, subsequent_indent=" " * 12, break_on_hyphens=False, break_long_words=False
    )
    return "".join(f"{fill.fill(item)}\n" for item in items)


# -- the reference


def reference() -> str:
    """The reference as one page."""
    parts = [_INTRODUCTION, _contents()]
    for title, text, subjects in _SECTIONS:
        parts += [f"## {title}\n", f"{text}\n" if text else "", *map(_entry, subjects)]
        if title == "Stages":
            parts += [_list_of("Second moments", (second_moments, blocks, spectra, kronecker), SecondMoment)]
            parts += [_list_of("Momentum rules", (numerators,), Momentum)]
            parts += [_list_of("Transforms", (numerators, transforms, spectra), Transform)]
        if title == "Numbers":
            parts += [_hyperparameters()]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def _contents() -> str:
    lines = []
    for title, _, subjects in _SECTIONS:
        names = ", ".join(f"[{subject.__name__}](#{subject.__name__.lower()})" for subject in subjects)
        lines.append(f"- [{title}](#{title.lower().replace(' ', '-')}): {names}")
    return "\n".join(lines)


def _entry(subject: Any) -> str:
    parts = [f"### {subject.__name__}\n", f"`{subject.__module__}`\n"]
    called = not inspect.isclass(subject) or (
        "__init__" in vars(subject) and not getattr(subject, "_is_protocol", False)
    )
    if called and subject is not partial_adaptive.Hyper:
        parts.append(f"```text\n{_signature(subject.__name__, subject)}\n```\n")
    parts.append(markdown(_docstring(subject)))
    methods = _methods(subject) if inspect.isclass(subject) and not getattr(subject, "__final__", False) else []
    for name, method in methods:
        call = f"{name}" if isinstance(method, property) else _signature(name, method)
        parts.append(f"#### {subject.__name__}.{name}\n\n```text\n{call}\n```\n")
        parts.append(markdown(inspect.getdoc(method) or ""))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _methods(cls: type) -> list[tuple[str, Any]]:
    """The public methods and properties that a class itself defines, with docstrings."""
    fields = getattr(cls, "__dataclass_fields__", {})
    return [
        (name, member)
        for name, member in vars(cls).items()
        if (inspect.isfunction(member) or isinstance(member, property)) and member.__doc__
        if not name.startswith("_") and name not in fields
    ]


def _signature(name: str, subject: Callable[..., Any]) -> str:
    """A call with all arguments and their defaults, broken into lines where it is long."""
    arguments, starred = [], False
    for argument in inspect.signature(inspect.unwrap(subject)).parameters.values():
        if argument.name == "self":
            continue
        if argument.kind is argument.KEYWORD_ONLY and not starred:
            arguments.append("*")
            starred = True
        mark = {argument.VAR_POSITIONAL: "*", argument.VAR_KEYWORD: "**"}.get(argument.kind, "")
        starred |= mark == "*"
        default = repr(argument.default)
        if argument.default is argument.empty:
            arguments.append(mark + argument.name)
        else:
            arguments.append(f"{argument.name}={'…' if '<' in default else default}")
    return textwrap.fill(f"{name}({', '.join(arguments)})", 110, subsequent_indent=" " * (len(name) + 1))


def markdown(text: str) -> str:
    """A docstring in Google style as Markdown."""
    blocks: list[str] = []
    lines = text.splitlines()
    while lines:
        if not lines[0].strip():
            lines.pop(0)
        elif lines[0].rstrip() == "::":
            lines.pop(0)
            blocks.append(_fenced("text", _indented(lines)))
        elif re.fullmatch(r"(Args|Raises|Returns|Attributes|Example):", lines[0].rstrip()):
            blocks.append(_section(lines.pop(0).rstrip(": "), _indented(lines)))
        else:
            paragraph = _paragraph(lines)
            literal = paragraph[-1].endswith("::")
            paragraph[-1] = re.sub(r"\s?::$", ":", paragraph[-1])
            blocks.append("\n".join(paragraph))
            if literal:
                blocks.append(_fenced("text", _indented(lines)))
    return "\n\n".join(blocks) + "\n"


def _paragraph(lines: list[str]) -> list[str]:
    taken: list[str] = []
    while lines and lines[0].strip():
        taken.append(lines.pop(0))
    return taken


def _indented(lines: list[str]) -> list[str]:
    """Take the indented lines at the start, and undo their indentation."""
    taken: list[str] = []
    while lines and (not lines[0].strip() or lines[0].startswith(" ")):
        taken.append(lines.pop(0))
    return textwrap.dedent("\n".join(taken)).strip("\n").splitlines()


def _fenced(language: str, lines: Sequence[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _section(title: str, lines: list[str]) -> str:
    if title == "Example":
        return _fenced("pycon", lines)
    items: list[str] = []
    for line in lines:
        if line.startswith(" "):
            items[-1] += " " + line.strip()
        else:
            items.append(line)
    names = {"Args": "Arguments", "Returns": "Returns", "Raises": "Raises", "Attributes": "Attributes"}
    if title == "Returns":
        return f"Returns: {' '.join(items)}"
    entries = (re.sub(r"^(\*{0,2})([\w, ]+): ", _item, item) for item in items)
    return f"{names[title]}:\n\n" + "\n".join(f"- {entry}" for entry in entries)


def _item(match: re.Match[str]) -> str:
    return ", ".join(f"`{match[1]}{name}`" for name in match[2].split(", ")) + ": "


def _list_of(title: str, modules: Sequence[Any], base: type) -> str:
    """Every stage of a kind that some modules define, in a table."""
    rows = []
    for home, cls in ((module.__name__, cls) for module in modules for cls in vars(module).values()):
        of_the_kind = inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)
        if not of_the_kind or cls.__module__ != home:
            continue
        slots = cls.slots or cls().slots  # the shape of some depends on their arguments
        state = ", ".join(f"`{name}`" for name in (*slots, *getattr(cls, "scalars", ())))
        reads = ", ".join(f"`{name}`" for name in (*cls.hyperparameters, *cls.own))
        meaning = (cls.__doc__ or "").partition("\n")[0].replace("|", "\\|")
        rows.append((f"`{cls.__module__}.{cls.__name__}`", meaning, state or "–", reads or "–"))
    return f"### {title}\n\n" + table(("class", "meaning", "state", "reads"), rows)


def _hyperparameters() -> str:
    """Every entry of a param group that the library knows."""
    rows = [
        (f"`{name}`", entry.meaning.replace("|", "\\|"), entry.allowed, _default(entry.default))
        for name, entry in (HYPERPARAMETERS | OWN | {"constraint": CONSTRAINT}).items()
    ]
    text = (
        "What a param group may hold. Defaults are those of a `PartialAdaptiveOptimizer`; members have their own.\n\n"
    )
    return f"### Hyperparameters\n\n{text}" + table(("entry", "meaning", "allowed", "default"), rows)


def _default(value: Any) -> str:
    return "–" if value is REQUIRED else f"`{value!r}`"


if __name__ == "__main__":
    main()
