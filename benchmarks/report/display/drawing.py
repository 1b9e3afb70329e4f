"""From a chart to what a page or a file holds: SVG and PNG by vl-convert, and the specification for Vega in a browser.

On a page colours are CSS variables, which follow the reader's light or dark; in files they are those of a light page.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import vl_convert

from benchmarks.report.display.figure import Figure
from benchmarks.report.display.palette import DASHES, HUES, INK, Style

LIGHT = {"ink": INK[0], "soft": "#59636e", "line": "#d8dee4", "paper": "#ffffff"}
"""The variables of the page's style sheet that charts make use of, as a light page has them."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"  # as in the style sheet
_CONFIG: Mapping[str, Any] = {
    "background": None,
    "aria": False,
    "font": "sans-serif",
    "view": {"stroke": None, "continuousWidth": 420, "continuousHeight": 230},
    "title": {
        "color": "var(--ink)",
        "fontSize": 12.5,
        "fontWeight": 600,
        "anchor": "start",
        "frame": "group",
        "offset": 10,
    },
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "domainColor": "var(--soft)",
        "tickColor": "var(--soft)",
        "gridColor": "var(--line)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelOverlap": True,
    },
    "axisY": {"domain": False, "ticks": False, "tickCount": 5},
    "axisYDiscrete": {
        "labelColor": "var(--ink)",
        "titleAngle": 0,
        "titleAlign": "left",
        "titleAnchor": "start",
        "titleY": -8,
    },
    "axisXDiscrete": {"labelAngle": -30},
    "legend": {
        "orient": "bottom",
        "columns": 3,
        "labelColor": "var(--ink)",
        "titleColor": "var(--soft)",
        "symbolStrokeWidth": 2,
        "labelLimit": 240,
    },
    "text": {"color": "var(--ink)"},
}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure as a page holds it.

    Args:
        figure: what is said about it.
        svg: the chart, in the page's variables.
        live: its specification for Vega; None for a chart that stands still.
    """

    figure: Figure
    svg: str
    live: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Looks:
    """How the arms of a study look in charts.

    Args:
        styles: the look of each arm by `palette.key`; the variable ``--arm-<i>`` of a page is the i-th colour.
        keys: that key by title.
    """

    styles: Mapping[str, Style] = dataclasses.field(default_factory=dict)
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def variable(self, key: str) -> str:
        """The colour of an arm on a page."""
        return f"var(--arm-{list(self.styles).index(key)})"

    def of(self, titles: Sequence[str]) -> list[tuple[str, list[int]]]:
        """Colour and dash for each of these: those of the arm of that title, or else the next that is free."""
        found = []
        free = [(f"var(--hue-{i})", list(dash) or [1, 0]) for dash in DASHES for i in range(len(HUES))]
        for title in titles:
            key = self.keys.get(title, "")
            if key in self.styles:
                found.append((self.variable(key), list(self.styles[key].dash) or [1, 0]))
            else:
                found.append(free[len(found) % len(free)])
        return found


def drawing(figure: Figure, study: str, looks: Looks) -> Drawing:
    """The figure for a page.

    Args:
        figure: of a study.
        study: the identifier of its section.
        looks: of its arms.
    """
    svg = vl_convert.vegalite_to_svg(json.dumps(specification(figure.chart, looks, legend=not figure.by_arm)))
    spec = specification(figure.live or figure.chart, looks, legend=not figure.by_arm)
    if "layer" in spec or "mark" in spec:  # of several views together the size is their own
        spec |= {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    spec["config"]["font"] = _FONT
    spec["datasets"] = {name: packed(_by_arm(rows, looks)) for name, rows in spec.get("datasets", {}).items()}
    return Drawing(figure, inline(svg, f"{study}-{figure.name}"), spec)


def specification(chart: Any, looks: Looks, *, legend: bool = True) -> dict[str, Any]:
    """The Vega-Lite specification of a chart, in the page's look."""
    spec: dict[str, Any] = chart.to_dict()
    # altair's own defaults are 300 × 300 and no more; a chart that sets something itself keeps it.
    given = {key: value for key, value in spec.pop("config", {}).items() if key != "view"}
    spec["config"] = {**_CONFIG, **given}
    y = spec.get("encoding", {}).get("y", {})
    if y.get("type") in ("nominal", "ordinal"):
        spec.setdefault("height", {"step": 22})
    _colour(spec, [row for rows in spec.get("datasets", {}).values() for row in rows], looks)
    if not legend:
        _drop_legends(spec)
    return spec


def _colour(spec: Any, rows: Sequence[Mapping[str, Any]], looks: Looks) -> None:
    """Give every nominal colour without a scale of its own, however deep, the looks of the arms."""
    for part in (spec, *spec.get("layer", ())):
        encoding = part.get("encoding", {})
        colour = encoding.get("color", {})
        if colour.get("type") == "nominal" and "scale" not in colour:
            titles = list(dict.fromkeys(row[colour["field"]] for row in rows if colour["field"] in row))
            colours, dashes = zip(*looks.of(titles), strict=True) if titles else ((), ())
            colour["scale"] = {"domain": titles, "range": list(colours)}
            marks = {str(_type(one.get("mark"))) for one in (part, *part.get("layer", ()))}
            if marks & {"line", "rule"} and "strokeDash" not in encoding:
                scale = {"domain": titles, "range": [list(dash) for dash in dashes]}
                encoding["strokeDash"] = {**colour, "scale": scale}


def _type(mark: Any) -> Any:
    return mark.get("type") if isinstance(mark, dict) else mark


def _by_arm(rows: list[dict[str, Any]], looks: Looks) -> list[dict[str, Any]]:
    """The rows with the arm that they are about, where that can be told, for whoever switches it off."""
    for row in rows:
        key = looks.keys.get(row.get("optimizer", ""))
        if key in looks.styles and "arm" not in row:
            row["arm"] = key
    return rows


def _drop_legends(spec: Any) -> None:
    """Make every encoding, however deep, do without a legend."""
    for key, value in spec.items() if isinstance(spec, dict) else enumerate(spec) if isinstance(spec, list) else ():
        if key == "legend":
            spec[key] = None
        elif key != "datasets":
            _drop_legends(value)


def files(figure: Figure, looks: Looks) -> tuple[bytes, bytes]:
    """The figure as an SVG and as a PNG file, on white."""
    text = json.dumps(specification(figure.chart, looks) | {"background": LIGHT["paper"], "padding": 8})
    colours = LIGHT | {f"hue-{i}": light for i, (light, _) in enumerate(HUES)}
    colours |= {f"arm-{i}": style.light for i, style in enumerate(looks.styles.values())}
    text = re.sub(r"var\(--([\w-]+)\)", lambda match: colours[match[1]], text)
    svg = vl_convert.vegalite_to_svg(text)
    return svg.encode(), vl_convert.svg_to_png(svg, scale=2)


def inline(svg: str, name: str) -> str:
    """An SVG to stand in a page: as wide as there is room, hidden from readers of text, who get the alternative.

    Args:
        svg: the text of the file.
        name: stands before all its identifiers; unique on the page.
    """
    head, _, rest = svg[svg.index("<svg") :].partition(">")
    size = re.search(r'viewBox="0 0 ([\d.]+) ', head)
    width = f' style="max-width:{float(size[1]) * 1.25:.0f}px"' if size else ""
    head = re.sub(r' (?:width|height|version|xmlns(?::\w+)?|class)="[^"]*"', "", head)
    rest = re.sub(r'(\bid="|href="#|url\(#)', lambda match: f"{match[0]}{name}-", rest)
    return f'{head} aria-hidden="true" focusable="false"{width}>{_shorter(rest)}'


def _shorter(svg: str) -> str:
    """The same with two decimals of a pixel, which is more than can be seen."""
    return re.sub(r"(?<=[ ,LMHVC\"-])(\d+\.\d{2})\d+", r"\1", svg)


def packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as columns, a text that repeats as a number into a list: a fifth of the bytes; `script.js` unpacks it."""
    columns: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        if any(isinstance(value, str) for value in values):
            levels = list(dict.fromkeys(values))
            places = {value: i for i, value in enumerate(levels)}
            columns[key] = {"levels": levels, "codes": [places[value] for value in values]}
        else:
            columns[key] = [_rounded(value) for value in values]
    return columns


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None
