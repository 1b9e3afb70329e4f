"""The report of a study that has no training runs: the benchmark's page, with Markdown and figures beside it."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

import matplotlib
from matplotlib.figure import Figure

from benchmarks.base import files
from benchmarks.report import page
from benchmarks.report.figures import STYLE
from benchmarks.report.results import Report
from benchmarks.report.table import Table
from benchmarks.studies.study import Study

COLOURS = ("#2e7fb8", "#17a2a2", "#e08e1b", "#d1495b")
"""Of four lines, from cool to warm; light enough for a dark page, dark enough for a light one."""
GREY = "#8c959f"


@final
@dataclasses.dataclass(frozen=True)
class Facts(Report):
    """What the page asks of a report, of a study without runs.

    Args:
        summary: what was done, in a sentence.
        facts: its environment.
    """

    summary: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def state(self) -> str:
        """What was done."""
        return self.summary

    @property
    def environment(self) -> dict[str, str]:
        """Where it was done."""
        return {key: str(value) for key, value in self.facts.items() if key != "command" and value is not None}

    @property
    def commands(self) -> list[str]:
        """How it was done."""
        return [self.facts["command"]] if "command" in self.facts else []


def facts(name: str, title: str, description: str, summary: str, environment: Mapping[str, Any]) -> Facts:
    """A study's report, as the page wants it."""
    return Facts(Study(name, title, description, (), ()), (), 0, summary=summary, facts=environment)


def figure(width: float, height: float) -> Figure:
    """An empty matplotlib figure; draw on it in the benchmark's style, see `styled`."""
    return Figure(figsize=(width, height), layout="constrained")


def styled() -> Any:
    """The benchmark's style, for a `with` block."""
    return matplotlib.rc_context(STYLE)


def write(report: Facts, tables: Sequence[Table], figures: Mapping[str, Any], directory: Path) -> Path:
    """Write ``<study>.html``, ``<study>.md`` and each figure as SVG and PNG.

    Args:
        report: what the study says of itself.
        tables: its tables; those with `headline` stand above the figures.
        figures: matplotlib figures by name.
        directory: where to.
    """
    name = report.study.name
    with styled():  # what a figure looks like is settled when it is saved
        for kind, drawn in figures.items():
            drawn.draw_without_rendering()
            drawn.set_layout_engine("none")  # once is enough, and takes half of the time
            stem = directory / f"{name}-{kind}"
            files.write(stem.with_suffix(".svg"), page.svg(drawn))
            with files.replacing(stem.with_suffix(".png")) as file:
                drawn.savefig(file, format="png", dpi=160, facecolor="white")
        section = page.section(report, tables, figures, (), heading=False)
    files.write(directory / f"{name}.md", _markdown(report, tables, list(figures)))
    made = f"partial_adaptive, {datetime.now(UTC):%d %B %Y, %H:%M} UTC"
    path = directory / f"{name}.html"
    files.write(path, page.render([section], report.study.title, made))
    return path


def _markdown(report: Facts, tables: Sequence[Table], drawn: Sequence[str]) -> str:
    study = report.study
    parts = [f"## {study.title}", study.description, report.state]
    parts += [table.markdown() for table in tables if table.headline]
    parts += [f"![{study.title}: {kind}]({study.name}-{kind}.svg)" for kind in drawn]
    parts += [table.markdown() for table in tables if not table.headline]
    parts += ["### Environment", "\n".join(f"- {key}: {value}" for key, value in report.environment.items())]
    parts += ["### Commands", "\n".join(["```", *report.commands, "```"])]
    return "\n\n".join(part.strip() for part in parts) + "\n"
