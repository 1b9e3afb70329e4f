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
        shown: whether people see it; else it is for programs alone, as a spread that stands beside its mean.
    """

    header: str
    name: str
    numeric: bool = True
    shown: bool = True


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
        columns = [Column(header, slug(header), numeric=i > 0) for i, header in enumerate(headers)]
        lines = [Row(row[0], [Cell(text, text, _mark(text)) for text in row]) for row in rows]
        return cls(slug(title), title, columns, lines, notes, headline)

    @property
    def visible(self) -> "Table":
        """The table without the columns that are for programs alone."""
        shown = [i for i, column in enumerate(self.columns) if column.shown]
        rows = [Row(row.key, [row.cells[i] for i in shown]) for row in self.rows]
        return dataclasses.replace(self, columns=[self.columns[i] for i in shown], rows=rows)

    @property
    def headers(self) -> list[str]:
        """The headers of the columns that people see."""
        return [column.header for column in self.columns if column.shown]

    @property
    def texts(self) -> list[list[str]]:
        """The rows as people read them."""
        return [[cell.text for cell in row.cells] for row in self.visible.rows]

    def cell(self, key: str, column: str) -> Cell:
        """The cell of a row, by the header or the name of its column."""
        row = next(row for row in self.rows if row.key == key)
        place = next(i for i, one in enumerate(self.columns) if column in (one.header, one.name))
        return row.cells[place]

    def markdown(self) -> str:
        """The table in Markdown."""
        from tabulate import tabulate

        align = ["left", *["right"] * (len(self.headers) - 1)]
        texts = [[_one_cell(text) for text in row] for row in self.texts]
        body = tabulate(texts, self.headers, tablefmt="pipe", disable_numparse=True, colalign=align)
        return "\n\n".join([f"### {self.title}", body, *self.notes]) + "\n"


def _one_cell(text: str) -> str:
    """The text without what would end its cell or its row, and so put numbers under the headings of others."""
    return " ".join(text.split()).replace("|", r"\|")


def slug(text: str) -> str:
    """A text in snake case: the name of a file or column."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())


def _mark(text: str) -> Mark:
    return "better" if text == "better" else "worse" if text == "worse" else "diverged" if text == "diverged" else ""
