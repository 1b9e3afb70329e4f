"""A table of a report: cells that people read and numbers that programs read, in one."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

Value = str | float | int | None
Mark = Literal["", "better", "worse", "diverged", "flagged"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """What stands in one place.

    Args:
        text: as people read it.
        value: as programs read it, in exports and for sorting.
        mark: what the page sets off.
    """

    text: str
    value: Value = None
    mark: Mark = ""


@dataclasses.dataclass(frozen=True)
class Column:
    """What all cells of a column have in common.

    Args:
        header: as people read it.
        name: as programs read it, in snake case.
        numeric: whether its values are numbers.
    """

    header: str
    name: str
    numeric: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table.

    Args:
        key: what it is about: the label of an arm, unique on its page, for whoever shows or hides that arm.
        cells: one for each column.
    """

    key: str
    cells: Sequence[Cell]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under a title.

    Args:
        name: the stem of its exported files, unique among the tables of a study.
        title: as people read it.
        columns: the first one says what a row is about.
        rows: the content.
        notes: sentences below it.
        headline: whether it is printed after a run, and stands first on the page.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    headline: bool = False

    @classmethod
    def plain(
        cls,
        title: str,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        notes: Sequence[str] = (),
        headline: bool = False,
    ) -> "Table":
        """A table of text alone."""
        columns = [Column(header, _name(header), numeric=i > 0) for i, header in enumerate(headers)]
        lines = [Row(row[0], [Cell(text, text, _mark(text)) for text in row]) for row in rows]
        return cls(_name(title), title, columns, lines, notes, headline)

    @property
    def headers(self) -> list[str]:
        """The headers of the columns."""
        return [column.header for column in self.columns]

    @property
    def texts(self) -> list[list[str]]:
        """The rows as people read them."""
        return [[cell.text for cell in row.cells] for row in self.rows]

    def cell(self, key: str, header: str) -> Cell:
        """The cell of a row under a header."""
        row = next(row for row in self.rows if row.key == key)
        return row.cells[self.headers.index(header)]

    def markdown(self) -> str:
        """The table in Markdown."""
        from tabulate import tabulate

        align = ["left", *["right"] * (len(self.headers) - 1)]
        body = tabulate(self.texts, self.headers, tablefmt="pipe", disable_numparse=True, colalign=align)
        return "\n\n".join([f"### {self.title}", body, *self.notes]) + "\n"


def _name(text: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())


def _mark(text: str) -> Mark:
    return "better" if text == "better" else "worse" if text == "worse" else "diverged" if text == "diverged" else ""
