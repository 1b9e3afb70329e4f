"""One self-contained HTML page: tables, figures, deviations and environment, for any screen, light or dark."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import verdicts
from benchmarks.report.figures import INK
from benchmarks.report.published import Deviation
from benchmarks.report.results import Report
from benchmarks.report.table import Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d8dee4; --paper: #ffffff; --tint: #f6f8fa;
  --accent: #a8324a; --good: #1a7f4b; --bad: #b3372f }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa4af; --line: #333b44; --paper: #14181d;
  --tint: #1c2127; --accent: #f0879a; --good: #5fc794; --bad: #f08c84 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", sans-serif; -webkit-text-size-adjust: 100% }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
h1 { font-size: 1.9rem; line-height: 1.25; font-weight: 650; letter-spacing: -.01em; margin: 0 0 .4rem }
h2 { font-size: 1.35rem; font-weight: 650; margin: 3.2rem 0 .4rem; padding-top: 1.4rem;
  border-top: 1px solid var(--line) }
h3 { font-size: 1rem; font-weight: 650; margin: 2.2rem 0 .6rem }
p { max-width: 46rem; margin: .4rem 0 }
a { color: var(--accent) }
nav ul { padding-left: 1.1rem; margin: .8rem 0 }
.lead, .note, figcaption, dt, .bare { color: var(--soft) }
.note, figcaption { font-size: .875rem; line-height: 1.5 }
.scroll { overflow-x: auto; margin: 0 -1.25rem; padding: 0 1.25rem }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.35; font-variant-numeric: tabular-nums;
  width: 100% }
th, td { padding: .42rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 550; white-space: normal; vertical-align: bottom; min-width: 4.5rem;
  border-bottom: 1px solid var(--soft) }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--paper);
  max-width: 15rem; white-space: normal }
.text td, .text th { text-align: left; white-space: normal; vertical-align: top }
.box table { width: auto }
.box th:first-child, .box td:first-child { background: var(--tint) }
tr.new td { border-top: 1px solid var(--soft) }
.better { color: var(--good) } .worse, .diverged { color: var(--bad) }
figure { margin: 1.4rem 0 }
figure svg { width: 100%; height: auto; color: var(--ink); min-width: 34rem }
.box { background: var(--tint); border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1.25rem 1.1rem;
  margin: 2rem 0 }
.box h3 { margin-top: .2rem } .box .scroll { margin: 0; padding: 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .9rem; margin: .6rem 0 }
dt, dd { margin: 0; overflow-wrap: anywhere }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto;
  font: .82rem/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
@media (max-width: 40rem) { main { padding-top: 1.5rem } h1 { font-size: 1.5rem } dl { grid-template-columns: 1fr }
  dd { margin-bottom: .4rem } }
@media print { body { font-size: 11pt } .scroll { overflow: visible } }
"""


def render(sections: Sequence[str], title: str, made: str) -> str:
    """The page around the studies' sections."""
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{_escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{_escape(title)}</h1>\n"
        f'<p class="lead">{_escape(made)}</p>\n{body}\n</main>\n</body>\n</html>\n'
    )


def contents(reports: Sequence[Report]) -> str:
    """Links to the sections, where there is more than one."""
    if len(reports) < 2:
        return ""
    links = "".join(f'<li><a href="#{r.study.name}">{_escape(r.study.title)}</a></li>' for r in reports)
    return f"<nav><ul>{links}</ul></nav>"


def section(
    report: Report,
    tables: Sequence[Table],
    figures: Mapping[str, Any],
    deviations: Sequence[Deviation],
    *,
    heading: bool,
) -> str:
    """Everything about one study, under a heading of its own unless it has the page to itself."""
    name = report.study.name
    parts = [f'<h2 id="{name}">{_escape(report.study.title)}</h2>'] if heading else []
    parts += [f"<p>{_escape(text)}</p>" for text in (verdicts.headline(report), report.study.description) if text]
    parts += [f'<p class="note">{_escape(text)}</p>' for text in (report.state, *report.notes)]
    drawn = [_figure(figure, f"{name}-{kind}") for kind, figure in figures.items()]
    parts += [_table(table) for table in tables if table.headline] + drawn
    parts += [_table(table) for table in tables if not table.headline]
    if deviations:
        parts.append(_deviations(deviations))
    parts.append("<h3>Environment</h3>")
    facts = "".join(f"<dt>{_escape(key)}</dt><dd>{_escape(value)}</dd>" for key, value in report.environment.items())
    parts += [f"<dl>{facts}</dl>", "<h3>Commands</h3>", f"<pre>{_escape(chr(10).join(report.commands))}</pre>"]
    return f"<section>\n{chr(10).join(parts)}\n</section>"


def _table(table: Table) -> str:
    """A table; a row opens a group where the first cell changes after it has repeated."""
    grouped = len({row[0] for row in table.texts}) < len(table.rows)
    rows, last = [], None
    for row in table.texts:
        repeated = grouped and row[0] == last
        opening = grouped and last is not None and not repeated
        cells = ["" if repeated else _escape(row[0]), *map(_escape, row[1:])]
        marks = [f' class="{cell}"' if cell in ("better", "worse", "diverged") else "" for cell in cells]
        body = "".join(f"<td{mark}>{cell}</td>" for mark, cell in zip(marks, cells, strict=True))
        rows.append(f'<tr class="new">{body}</tr>' if opening else f"<tr>{body}</tr>")
        last = row[0]
    head = "".join(f"<th>{_escape(header)}</th>" for header in table.headers)
    notes = "".join(f'<p class="note">{_escape(note)}</p>' for note in table.notes)
    return (
        f'<h3>{_escape(table.title)}</h3>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n{notes}"
    )


def _deviations(deviations: Sequence[Deviation]) -> str:
    rows = "".join(
        f"<tr><td>{_escape(one.setting)}</td><td>{_escape(one.paper)}</td><td>{_escape(one.ours)}</td>"
        f"<td>{_escape(one.arms)}</td></tr>"
        for one in deviations
    )
    return (
        '<div class="box"><h3>Deviations from the paper</h3><div class="scroll"><table class="text"><thead><tr>'
        "<th>setting</th><th>paper</th><th>here</th><th>in</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></div>"
    )


def svg(figure: Any) -> str:
    """A matplotlib figure as SVG text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _figure(figure: Any, name: str) -> str:
    """A figure inline, in the reader's text colour, its ids made unique on the page."""
    text = svg(figure)
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(\bid="|href="#|url\(#)', lambda match: f"{match[0]}{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return f'<figure><div class="scroll">{text}</div></figure>'


def _escape(text: str) -> str:
    return html.escape(text)
