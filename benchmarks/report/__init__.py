"""Reports on studies, from what was run to pages: tables, figures, and one HTML page that holds it all.

The folders build on each other in this order: `inference`, `display`, `sections`, `pages`; `evidence` is for the
documentation of this project.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.base.store import Store
from benchmarks.report.display import palette
from benchmarks.report.display.table import Table
from benchmarks.report.pages import chapter, export, page
from benchmarks.report.pages.export import ReportError
from benchmarks.report.results import collect_all
from benchmarks.report.sections import charts, underway
from benchmarks.studies.study import Study

__all__ = ["ReportError", "write"]


def write(studies: Sequence[Study], store: Store, directory: Path, refresh: int = 0) -> tuple[Path, list[Table]]:
    """Write the report of some studies, all of it or nothing.

    Args:
        studies: what to report on, under different names.
        store: where the results are.
        directory: gets the page, ``<study>.html`` for one study, ``index.html`` for several; ``<study>.md``; and in
            ``<study>/`` every table as CSV, LaTeX and Parquet, and every figure as SVG and PNG.
        refresh: seconds after which a browser reads the page again; 0 for never.

    Returns:
        The page's path, and the tables of all studies.

    Raises:
        StoreError: there is no such store.
        ReportError: `directory` cannot be written, or two studies have the same name.
    """
    store.check_exists()
    names = [study.name for study in studies]
    for name in names:
        if names.count(name) > 1:
            raise ReportError(f"two of these studies are called {name!r}: report on them in different directories")
    reports = collect_all(studies, store)
    begun = [underway.collect(report.study, store) for report in reports]
    shown = [chapter.shown(report, unfinished) for report, unfinished in zip(reports, begun, strict=True)]
    looks = palette.shared([(arms, study.reference) for arms, study in zip(shown, studies, strict=True)])
    chapters = [
        chapter.of_study(*three, charts.POINTS // len(studies)) for three in zip(reports, begun, looks, strict=True)
    ]
    overall = chapter.of_all(reports, chapters)
    written = [*chapters, *([overall] if overall else [])]
    made = {path: content for one in written for path, content in one.files().items()}
    name, title = names[0], studies[0].title
    if len(studies) > 1:
        name, title = "index", "Benchmark of partially adaptive optimizers"
    made[f"{name}.html"] = page.render(title, stamp(), [one.section() for one in written], refresh).encode()
    export.publish(made, directory)
    return directory / f"{name}.html", [table for one in written for table in one.tables]


def stamp() -> str:
    """By what a page was made, and when."""
    return f"partial_adaptive, {datetime.now(UTC):%d %B %Y, %H:%M} UTC"
