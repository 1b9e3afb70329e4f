"""What the charts of a study share: how arms are called and look, and what answers to the pointer."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from benchmarks.report.display import palette
from benchmarks.report.display.palette import Style
from benchmarks.report.display.table import slug
from benchmarks.report.results import Report, Series

SOFT = "var(--soft)"
"""The page's second colour of text: `drawing` knows what it stands for."""
LIT = "lit === '' || datum.arm === lit"
"""Whether an arm is the one that is set off, or none is."""
FAINT = 0.12
"""Opacity of what is not."""


def where(report: Report, subject: str) -> tuple[str, str]:
    """What tells the figures of a subject apart, where a study has several: in their names and in their titles."""
    return (f"-{slug(subject)}", f" · {subject}") if len(report.study.subjects) > 1 else ("", "")


def encodings(series: Sequence[Series], styles: Mapping[str, Style]) -> dict[str, Any]:
    """Colour and dash by the field ``optimizer``; colours are variables, and `drawing` knows what they stand for."""
    places, domain = list(styles), [one.arm.title for one in series]
    keys = [palette.key(one) for one in series]
    colours = [f"var(--arm-{places.index(key)})" for key in keys]
    dashes = [list(styles[key].dash) or [1, 0] for key in keys]
    legend = alt.Legend(title=None, symbolType="stroke", symbolSize=300)
    return {
        "color": alt.Color("optimizer:N", scale=alt.Scale(domain=domain, range=colours), legend=legend),
        "strokeDash": alt.StrokeDash("optimizer:N", scale=alt.Scale(domain=domain, range=dashes), legend=legend),
    }


def pointer(*, nearest: bool) -> tuple[Any, Any]:
    """The arm under the pointer of this chart, and the arm that all charts of the study set off."""
    near = alt.selection_point(
        "near", fields=["arm"], on="pointerover", nearest=nearest, clear="pointerout", empty=False
    )
    return near, alt.param("lit", value="")


def zoom() -> Any:
    """Both axes under the wheel and the pointer, while Shift is held so that a page can still be scrolled."""
    drag = "[pointerdown[event.shiftKey], window:pointerup] > window:pointermove!"
    return alt.selection_interval(
        "zoom", bind="scales", on=drag, translate=drag, zoom="wheel![event.shiftKey]", clear="dblclick"
    )


def opacity(strong: float, *, live: bool) -> Any:
    """That of a mark, less where another arm is set off."""
    return alt.condition(LIT, alt.value(strong), alt.value(FAINT)) if live else alt.value(strong)
