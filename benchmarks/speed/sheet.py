"""Measurements as tables in Markdown, with the same numbers as JSON beside them; needs nothing but Python."""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.base.files import replacing

Row = Mapping[str, Any]

_OF_THE_CALL = frozenset({"command", "commit"})  # facts on which no number depends: `sources` stands for the code


class Sheet:
    """Tables that are written row by row, so that the next call goes on where something ended this one.

    Rows that `output` has already are kept and not measured again, if they were made under equal facts (the device, the
    sources, the settings); if not, the sheet begins anew.

    Args:
        title: the heading.
        facts: what the numbers depend on: device, versions, settings.
        output: a Markdown file; the JSON goes beside it. None writes nothing, and so keeps nothing.
        headings: the columns by which rows are put into tables; their values are a table's heading.
    """

    def __init__(self, title: str, facts: Mapping[str, Any], output: Path | None, headings: Sequence[str] = ()) -> None:
        self.rows: list[dict[str, Any]] = []
        self._title, self._headings, self._output = title, tuple(headings), output
        self._facts = dict(facts)
        self._notes: list[str] = []
        print(f"# {title}\n\n{self._list()}", flush=True)
        self._take_over()

    def fact(self, name: str, measure: Callable[[], Any]) -> Any:
        """A fact that is measured once: that of the rows that were taken over, if there are any."""
        if name not in self._facts:
            self._facts[name] = measure()
            print(f"- {name}: {self._facts[name]}", flush=True)
        return self._facts[name]

    def lacks(self, keys: Mapping[str, str]) -> bool:
        """Whether no row with these keys is there."""
        return not any(keys.items() <= row.items() for row in self.rows)

    def add(self, keys: Mapping[str, str], found: Sequence[Row]) -> None:
        """Show and write rows; `keys` are their first columns."""
        before = self.rows[-1] if self.rows else None
        rows = [{**keys, **row} for row in found]
        self.rows += rows
        lines = table([self._shown(row) for row in rows]).splitlines()
        if before is None or self._heading(before) != self._heading(rows[0]):
            print(f"\n{self._heading(rows[0])}".rstrip() + "\n", flush=True)
        else:
            lines = lines[2:]  # it goes on with the table above
        print("\n".join(lines), flush=True)
        self._write()

    def say(self, text: str) -> None:
        """Show a paragraph, and write it below the tables."""
        self._notes.append(text)
        print(f"\n{text}", flush=True)
        self._write()

    def _take_over(self) -> None:
        """Keep what an earlier call has measured."""
        path = None if self._output is None else self._output.with_suffix(".json")
        if path is None or not path.is_file():
            return
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            facts, rows = saved["environment"], [dict(row) for row in saved["rows"]]
        except (ValueError, KeyError, TypeError) as error:
            print(f"\n{path} is no sheet ({error!r}): it is begun anew", flush=True)
            return
        differing = {key for key, value in self._facts.items() if key not in _OF_THE_CALL and facts.get(key) != value}
        if differing:
            print(f"\n{path} was measured with other {', '.join(sorted(differing))}: it is begun anew", flush=True)
            return
        self.rows, self._facts = rows, facts | self._facts
        print(f"\n{path} has {len(rows)} rows, which are not measured again; remove it to start over", flush=True)

    def _list(self) -> str:
        return "\n".join(f"- {key}: {value}" for key, value in self._facts.items() if value is not None)

    def _heading(self, row: Row) -> str:
        return f"## {', '.join(str(row[name]) for name in self._headings)}" if self._headings else ""

    def _shown(self, row: Row) -> Row:
        return {key: value for key, value in row.items() if key not in self._headings}

    def _tables(self) -> Iterable[str]:
        ordered = sorted(self.rows, key=lambda row: self._first(row))
        for heading, rows in itertools.groupby(ordered, self._heading):
            yield f"{heading}\n\n{table([self._shown(row) for row in rows])}".lstrip()

    def _first(self, row: Row) -> int:
        """Where the table begins that a row belongs to: a call that goes on may add to any of them."""
        return next(i for i, other in enumerate(self.rows) if self._heading(other) == self._heading(row))

    def _write(self) -> None:
        if self._output is None:
            return
        markdown = "\n\n".join([f"# {self._title}", self._list(), *self._tables(), *self._notes])
        content = json.dumps({"environment": self._facts, "rows": self.rows}, indent=1)
        for path, text in ((self._output, markdown), (self._output.with_suffix(".json"), content)):
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
