"""Measurements as tables in Markdown, with the same numbers as JSON beside them; needs nothing but Python."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.base.files import replacing

Row = Mapping[str, Any]


class Sheet:
    """Tables that are shown and written as they come, so that whatever ends the measuring leaves what was measured.

    Args:
        title: the heading.
        facts: what the numbers depend on: device, versions, settings.
        output: a Markdown file; the JSON goes beside it. None writes nothing.
    """

    def __init__(self, title: str, facts: Mapping[str, Any], output: Path | None) -> None:
        self.rows: list[dict[str, Any]] = []
        self._facts = dict(facts)
        self._output = output
        self._text = [f"# {title}", "\n".join(f"- {key}: {value}" for key, value in facts.items() if value is not None)]
        print("\n\n".join(self._text), flush=True)

    def add(self, rows: Sequence[Row], **keys: str) -> None:
        """Show and write a table; `keys` tell its rows from those of the other tables, and make its heading."""
        self.rows += [{**keys, **row} for row in rows]
        self.say(f"## {', '.join(keys.values())}\n\n{table(rows)}")

    def say(self, text: str) -> None:
        """Show and write a paragraph."""
        self._text.append(text)
        print(f"\n{text}", flush=True)
        if self._output is not None:
            content = json.dumps({"environment": self._facts, "rows": self.rows}, indent=1)
            for path, text in ((self._output, "\n\n".join(self._text)), (self._output.with_suffix(".json"), content)):
                with replacing(path) as file:
                    file.write(f"{text}\n".encode())


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, the first column to the left, numbers with three digits."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        " | ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in cells
    ]
    rule = " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(f"| {line} |" for line in (lines[0], rule, *lines[1:]))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "–" if value is None else str(value)
