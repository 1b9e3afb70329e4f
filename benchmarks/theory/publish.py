"""The report of a study that has no training runs: the benchmark's page, with Markdown and figures beside it."""

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import matplotlib
from matplotlib.figure import Figure

from benchmarks.report import stamp
from benchmarks.report.display import figure as report_figure
from benchmarks.report.display.drawing import Drawing, inline
from benchmarks.report.display.table import Table
from benchmarks.report.pages import export, page
from benchmarks.report.pages.chapter import Chapter
from benchmarks.report.results import Report
from benchmarks.studies.study import Study

INK = "#1b1f24"
"""Of text and axes; a page puts the reader's own text colour in its place."""
COLOURS = ("#2e7fb8", "#17a2a2", "#e08e1b", "#d1495b")
"""Of four lines, from cool to warm; light enough for a dark page, dark enough for a light one."""
GREY = "#8c959f"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#8c959f",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "partial-adaptive",
}
"""How matplotlib draws here."""


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


def svg(figure: Figure) -> str:
    """A matplotlib figure as SVG text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def write(report: Facts, tables: Sequence[Table], figures: Mapping[str, Any], directory: Path) -> Path:
    """Write ``<study>.html``, ``<study>.md``, and in ``<study>/`` the tables and each figure as SVG and PNG.

    Args:
        report: what the study says of itself.
        tables: its tables; those with `headline` stand above the figures.
        figures: matplotlib figures by name.
        directory: where to.
    """
    name, title = report.study.name, report.study.title
    made, drawings = export.tables(tables, name), []
    with styled():  # what a figure looks like is settled when it is saved
        for kind, drawn in figures.items():
            drawn.draw_without_rendering()
            drawn.set_layout_engine("none")  # once is enough, and takes half of the time
            text, picture = svg(drawn), io.BytesIO()
            drawn.savefig(picture, format="png", dpi=160, facecolor="white")
            made |= {f"{name}/{kind}.svg": text.encode(), f"{name}/{kind}.png": picture.getvalue()}
            drawings.append(Drawing(_described(kind, drawn), _inline(text, f"{name}-{kind}")))
    chapter = Chapter(
        name=name,
        title=title,
        description=report.study.description,
        state=report.state,
        tables=tables,
        figures=[one.figure for one in drawings],
        environment=report.environment,
        commands=report.commands,
    )
    made[f"{name}.md"] = chapter.markdown().encode()
    made[f"{name}.html"] = page.render(title, stamp(), [chapter.section(drawings)]).encode()
    export.publish(made, directory)
    return directory / f"{name}.html"


def _described(kind: str, drawn: Figure) -> report_figure.Figure:
    """What the axes of a figure say, for whoever cannot see it; its numbers are in the tables."""
    said = []
    for axis in drawn.axes:
        labels = [line.get_label() for line in axis.get_lines() if not str(line.get_label()).startswith("_")]
        panel = f"{axis.get_ylabel()} over {axis.get_xlabel()}" if axis.get_xlabel() and axis.get_ylabel() else ""
        said += [part for part in (axis.get_title(), panel, ", ".join(map(str, labels))) if part]
    return report_figure.Figure(kind, "", f"Charts: {'; '.join(dict.fromkeys(said))}.", drawn)


def _inline(text: str, name: str) -> str:
    """A figure for a page, in the reader's text colour."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL).replace(INK, "currentColor")
    return inline(text, name)
