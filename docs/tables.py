"""The tables of the documentation: from the code, from the records beside the pages, and from results stores."""

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import partial_adaptive
from partial_adaptive import MEMBERS
from partial_adaptive.execution.compiled import cpp
from partial_adaptive.execution.compiled.program import trace
from partial_adaptive.execution.lifted import ELEMENTWISE

ROOT = Path(__file__).resolve().parent.parent


def current() -> dict[str, str]:
    """The tables that follow from the checkout: from the code, and from the records in it."""
    return {
        "members": members(),
        "memory": memory(),
        "kernel": kernel(),
        "elementwise": elementwise(),
        "regret": regret(),
        "frameworks": frameworks(),
        **step_sizes(),
        "environments": environments(),
        "versions": versions(),
        **on_which_p(),
        **on_gpu(),
    }


def filled(text: str, tables: Mapping[str, str]) -> str:
    """The text with these tables between their marks."""
    for name in tables:
        marks = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- /table:({name}) -->)", re.DOTALL)
        text = marks.sub(lambda match: f"{match[1]}{tables[match[3]]}{match[2]}", text)
    return text


def members() -> str:
    """The family as a table."""
    rows = []
    for name, member in MEMBERS.items():
        counterpart = "–"
        if member.counterpart is not None:
            options = ", ".join(f"{key}={value}" for key, value in member.counterpart_options.items())
            counterpart = f"`torch.optim.{member.counterpart.__name__}{f'({options})' if options else ''}`"
        scale = member.formula.replace("|", "\\|")
        rows.append((f"[`{member.cls.__name__}`]({_link(member.cls)})", f"`{name}`", scale, counterpart))
    return table(("optimizer", "name for `create`", "scale s", "at p = 1/2 equals"), rows)


def memory() -> str:
    """Bytes of state per element, of each member, as they are after a step; last those of the matrix in 8 bits."""
    from benchmarks.report.evidence.documented import state_bytes

    shapes = {"a matrix, 64 × 32": (64, 32), "a convolution, 64 × 32 × 3 × 3": (64, 32, 3, 3), "a vector": (64,)}
    cases = {**{name: (shape, None) for name, shape in shapes.items()}, 'the matrix, `"8bit"`': ((64, 32), "8bit")}
    rows = []
    for member in MEMBERS.values():
        params = [torch.zeros(shape) for shape, _ in cases.values()]
        groups = [{"params": [param], "state_dtype": x} for param, (_, x) in zip(params, cases.values(), strict=True)]
        optimizer = member.cls(groups, **member.options)
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
        kept = [state_bytes(optimizer, param) for param in params]
        rows.append((f"`{member.cls.__name__}`", *(f"{size:.3g}" for size in kept)))
    return table(("optimizer", *cases), rows)


def studied(study: str, results: Path) -> str:
    """The results of a study, from a store that has it."""
    from benchmarks.base.store import Store
    from benchmarks.report.evidence.documented import STUDIES
    from benchmarks.report.results import collect
    from benchmarks.studies import load

    return noted(*STUDIES[study](collect(load(study), Store(results))))


def regret() -> str:
    """The regrets of the study `regret` on record, beside the bound at p = 1/8."""
    from benchmarks.theory.record import load
    from benchmarks.theory.regret.study import Record
    from benchmarks.theory.regret.text import fraction, number, power

    record = load(Record, ROOT / "docs" / "regret.json", "`python -m benchmarks run regret` makes it")
    rows = []
    for problem in record.problems:
        end = problem.best(1 / 8).points[-1]
        ratios = power(end.bound.total / end.regret), power(end.bound.total / end.trivial)
        rows.append(
            (problem.name, problem.feasible, *(number(problem.best(p).regret) for p in record.partials), *ratios)
        )
    at = [f"R at p = {fraction(p)}" for p in record.partials]
    header = ("problem", "set", *at, "bound / R at p = 1/8", "bound / trivial bound")
    rates = len(record.problems[0].of(record.partials[0]))
    note = (
        f"The regret R after {record.rounds:,} rounds, at the best of {rates} α. The trivial bound is D·ΣₜΣᵢ|gₜᵢ|, "
        f"which nobody can exceed. `python -m benchmarks run regret`, torch {record.environment['torch']}."
    )
    return noted(header, rows, note)


def step_sizes() -> dict[str, str]:
    """The learning rates of the study `width` on record: by the width, and carried from Adam's."""
    from benchmarks.theory.record import load
    from benchmarks.theory.width import study_report
    from benchmarks.theory.width.study import Record

    record = load(Record, ROOT / "docs" / "width.json", "`python -m benchmarks run width` makes it")
    made = f"`python -m benchmarks run width`, torch {record.environment['torch']}."
    tables = {"width": study_report.widths(record), "carried": study_report.carried(record)}
    return {name: noted(one.headers, one.texts, " ".join((*one.notes, made))) for name, one in tables.items()}


def on_which_p() -> dict[str, str]:
    """What the studies `which-p-…` on record say."""
    from benchmarks.report.evidence import which_p

    return {name: noted(*one) for name, one in which_p.tables().items()}


def on_gpu() -> dict[str, str]:
    """What was measured and run on a GPU."""
    from benchmarks.report.evidence import on_gpu as records

    return {name: noted(*one) for name, one in records.tables().items()}


def environments() -> str:
    """How many members pass in each environment and mode, as the tests have it on record."""
    record = json.loads((ROOT / "docs" / "environments.json").read_text())
    columns = ("loop", "foreach", "fused", "capturable", "differentiable")
    rows = []
    for environment, cells in sorted(record["environments"].items(), key=lambda item: item[0].casefold()):
        found = [cells.get(column) for column in columns]
        counts = [f"{cell['passing']}/{cell['total']}" if cell else "" for cell in found]
        refused = sorted({name for cell in found if cell for name in cell["refused"]})
        rows.append((environment, *counts, ", ".join(f"`{name}`" for name in refused)))
    note = f"`make matrix`, torch {record['torch']}."
    return f"{table(('environment', *columns, 'refused by name'), rows)}\n{textwrap.fill(note, 119)}\n"


def versions() -> str:
    """With which Python and torch the tests have been run."""
    found = json.loads((ROOT / "docs" / "versions.json").read_text())
    header = ("python", "torch", "commit", "passed", "skipped", "failed")
    return table(header, [[str(row[name]) for name in header] for row in found])


def frameworks() -> str:
    """With which versions each page of docs/frameworks has run."""
    record = json.loads((ROOT / "docs" / "frameworks" / "versions.json").read_text())
    rows = []
    for page, versions in record.items():
        title = (ROOT / "docs" / "frameworks" / f"{page}.md").read_text().partition("\n")[0].removeprefix("# ")
        rows.append((f"[{title}]({page}.md)", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return table(("page", "has run with"), rows)


def kernel() -> str:
    """The loop over the elements that is generated for Padam at p = 1/8."""
    optimizer = partial_adaptive.Padam([torch.zeros(1)], fused=True)
    (group,), recipe = optimizer.param_groups, optimizer.recipe
    program = trace(recipe.rule(group, scaled=True), group, recipe.table, scaled=False)
    text = cpp.source(program, dict.fromkeys((*program.elements, *program.scalars), torch.float32))
    loop = text.partition("#pragma omp simd\n")[2].partition("\n      }\n")[0].splitlines()
    return "\n".join(["```cpp", loop[0].strip(), *(f"  {line.strip()}" for line in loop[1:]), "}", "```"]) + "\n"


def elementwise() -> str:
    """The methods that look at one element and no other."""
    return f"\n{textwrap.fill(' '.join(f'`{name}`' for name in sorted(ELEMENTWISE)), 119)}\n\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, [":---", *["---:" if header[1].startswith("test") else ":---"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def noted(header: Sequence[str], rows: Iterable[Sequence[str]], note: str) -> str:
    """A table and a note below it, in which names and commands stay whole."""
    return f"{table(header, rows)}\n{textwrap.fill(note, 119, break_long_words=False, break_on_hyphens=False)}\n"


def _link(subject: Any) -> str:
    """Where the reference has it, from the page that is one folder up."""
    return f"docs/reference.md#{subject.__name__.lower()}"
