"""One self-contained HTML page: verdict, figures, tables, deviations and environment, for any screen, light or dark."""

import base64
import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import vl_convert
from markupsafe import Markup, escape

from benchmarks.report.display.drawing import Drawing
from benchmarks.report.display.palette import HUES, Style
from benchmarks.report.display.table import Table
from benchmarks.report.pages import export

_TEMPLATES = Path(__file__).with_name("templates")


class Arm(NamedTuple):
    """What a reader switches on and off: its key, its title, its dash and its settings."""

    key: str
    title: str
    dash: Sequence[int]
    settings: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """What is said of a study, on the page and elsewhere.

    Args:
        title: its heading.
        verdict: what was found, in a sentence or a few.
        description: what was asked.
        state: how much of it there is.
        tables: those with `headline` stand first.
        styles: the look of each arm by `palette.key`.
        keys: that key by whatever a row of a table may be called.
        deviations: from the paper.
        notes: what of the store is not in it, and why.
        environment: where the runs were made.
        commands: how.
    """

    title: str
    verdict: Sequence[str] = ()
    description: str = ""
    state: str = ""
    tables: Sequence[Table] = ()
    styles: Mapping[str, Style] = dataclasses.field(default_factory=dict)
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    deviations: Table | None = None
    notes: Sequence[str] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    commands: Sequence[str] = ()

    @property
    def content(self) -> dict[str, Any]:
        """All of it, by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Content)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section(Content):
    """The content as the page shows it.

    Args:
        id: for links, unique on the page.
        drawings: of them those called ``scores…`` stand first, those called ``curves-…`` side by side.
        arms: in the order of `styles`.
    """

    id: str
    drawings: Sequence[Drawing] = ()
    arms: Sequence[Arm] = ()

    @property
    def lead(self) -> list[Drawing]:
        """The figures that stand first."""
        return [one for one in self.drawings if one.figure.name.startswith("scores")]

    @property
    def curves(self) -> list[Drawing]:
        """The figures that stand side by side."""
        return [one for one in self.drawings if one.figure.name.startswith("curves-")]

    @property
    def others(self) -> list[Drawing]:
        """The figures that stand below."""
        return [one for one in self.drawings if one not in self.lead and one not in self.curves]


def render(title: str, made: str, sections: Sequence[Section], refresh: int = 0) -> str:
    """The page.

    Args:
        title: its heading.
        made: when and by what.
        sections: the studies.
        refresh: seconds after which a browser reads it again; 0 for never.
    """
    live = any(one.live for section in sections for one in section.drawings)
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=title,
            made=made,
            sections=sections,
            refresh=refresh,
            hues=HUES,
            style=_file("style.css"),
            script=_file("script.js"),
            bundle=_bundle() if live else "",
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["downloads"] = _downloads
    environment.filters["emphasized"] = _emphasized
    return environment


def _emphasized(text: str) -> Markup:
    """A sentence in which ``*so*`` is emphasized, as in Markdown; all else is shown as it is."""
    return Markup(re.sub(r"\*(\w[^*]*)\*", r"<em>\1</em>", str(escape(text))))


def _file(name: str) -> Markup:
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


@functools.cache
def _bundle() -> Markup:
    """Vega, Vega-Lite and Vega-Embed, as one script."""
    return Markup(vl_convert.javascript_bundle().replace("</script", r"<\/script"))  # type: ignore[call-arg]  # its stub knows no default


def _downloads(section: Section, table: Table) -> Iterator[tuple[str, str, str]]:
    """Name, type and content of the files of a table that are in the page itself."""
    for suffix, kind, text in (
        ("csv", "text/csv;charset=utf-8", export.csv(table)),
        ("tex", "application/x-tex;charset=utf-8", export.latex(table)),
    ):
        yield f"{section.id}-{table.name}.{suffix}", kind, base64.b64encode(text.encode()).decode()
