"""The tables of a report as CSV, LaTeX and Parquet, and a folder of files that is written as a whole or not at all."""

import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.base.errors import BenchmarkError
from benchmarks.report.display.table import Table

# What the usual fonts of LaTeX lack; the text is escaped before.
_MATHEMATICS = str.maketrans(
    {
        "−": "$-$",
        "–": "--",
        "±": r"$\pm$",
        "×": r"$\times$",
        "‖": r"$\|$",
        "√": r"$\sqrt{}$",
        "∞": r"$\infty$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "→": r"$\to$",
        "·": r"$\cdot$",
        "Σ": r"$\Sigma$",
        "α": r"$\alpha$",
        "β": r"$\beta$",
        "γ": r"$\gamma$",
        "ε": r"$\varepsilon$",
        "θ": r"$\theta$",
        "λ": r"$\lambda$",
        "₀": "$_0$",
        "₁": "$_1$",
        "₂": "$_2$",
        "²": "$^2$",
    }
)


class ReportError(BenchmarkError, RuntimeError):
    """A report that cannot be written."""


def frame(table: Table) -> pd.DataFrame:
    """The table for programs: all of its columns, with numbers where it has numbers, and else what people read."""
    columns: dict[str, list[object]] = {}
    for i, column in enumerate(table.columns):
        cells = [row.cells[i] for row in table.rows]
        values = [cell.value for cell in cells]
        numeric = any(value is not None for value in values) and not any(isinstance(value, str) for value in values)
        name = _free(column.name or f"column_{i}", columns)
        columns[name] = [cell.value if numeric else cell.text for cell in cells]
    return pd.DataFrame(columns)


def _free(name: str, taken: Mapping[str, object]) -> str:
    """The name, with a number behind it where it is taken."""
    count = 1
    while (found := name if count == 1 else f"{name}_{count}") in taken:
        count += 1
    return found


def csv(table: Table) -> str:
    """The table as CSV."""
    text: str = frame(table).to_csv(index=False, lineterminator="\n")
    return text


def parquet(table: Table) -> bytes:
    """The table as Parquet, its title and notes in the metadata of the frame."""
    buffer = io.BytesIO()
    data = frame(table)
    data.attrs = {"title": table.title, "notes": list(table.notes)}
    data.to_parquet(buffer, index=False)
    return buffer.getvalue()


def latex(table: Table) -> str:
    """The table as people read it, as a LaTeX table in the style of the package booktabs."""
    shown = pd.DataFrame(table.texts, columns=table.headers)
    align = "".join("r" if column.numeric else "l" for column in table.visible.columns)
    styler = shown.style.format(escape="latex").format_index(escape="latex", axis=1).hide(axis="index")
    body: str = styler.to_latex(hrules=True, column_format=f"l{align[1:]}")
    return body.translate(_MATHEMATICS)


def tables(found: Sequence[Table], folder: str) -> dict[str, bytes]:
    """Every table in every format, by path."""
    made = {}
    for table in found:
        made[f"{folder}/{table.name}.csv"] = csv(table).encode()
        made[f"{folder}/{table.name}.tex"] = latex(table).encode()
        made[f"{folder}/{table.name}.parquet"] = parquet(table)
    return made


def publish(made: Mapping[str, bytes], directory: Path) -> None:
    """Write files below a directory: all of them first beside their places, then each into its place.

    Raises:
        ReportError: it cannot be done; what was there before is still there then.
    """
    aside: Path | None = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".report-", dir=directory))
        for name, content in made.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name in made:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
        for name in made:
            (aside / name).replace(directory / name)
    except OSError as error:
        why = error.strerror or error
        raise ReportError(f"cannot write the report to {directory}: {why}; what was there before is kept") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
