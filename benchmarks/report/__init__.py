"""Reports: tables in Markdown, figures in SVG and PNG, and one HTML page that holds everything."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.base import files
from benchmarks.base.store import Store
from benchmarks.report import figures, page, tables, verdicts
from benchmarks.report.published import Deviation, deviations
from benchmarks.report.results import Report, collect
from benchmarks.report.table import Table
from benchmarks.studies.study import Study


def write(studies: Sequence[Study], store: Store, directory: Path) -> tuple[Path, list[Table]]:
    """Write the report of some studies.

    Args:
        studies: what to report on.
        store: where the results are.
        directory: gets ``<study>.md`` and the figures of each study, and the page: ``<study>.html`` for one study,
            ``index.html`` for several.

    Returns:
        The page's path, and the tables of all studies.
    """
    reports = [collect(study, store) for study in studies]
    sections, everything = [page.contents(reports)], []
    for report in reports:
        found, drawn = tables.build(report), figures.draw(report)
        everything += found
        for kind, figure in drawn.items():
            stem = directory / f"{report.study.name}-{kind}"
            files.write(stem.with_suffix(".svg"), page.svg(figure))
            with files.replacing(stem.with_suffix(".png")) as file:
                figure.savefig(file, format="png", dpi=160, facecolor="white")
        differences = deviations([(one.arm.title, one.arm.config) for one in report.series])
        files.write(directory / f"{report.study.name}.md", _markdown(report, found, list(drawn), differences))
        sections.append(page.section(report, found, drawn, differences, heading=len(reports) > 1))
    name, title = studies[0].name, studies[0].title
    if len(studies) > 1:
        name, title = "index", "Benchmark of partially adaptive optimizers"
    path = directory / f"{name}.html"
    files.write(path, page.render(sections, title, f"partial_adaptive, {datetime.now(UTC):%d %B %Y, %H:%M} UTC"))
    return path, everything


def _markdown(report: Report, found: Sequence[Table], drawn: Sequence[str], differences: Sequence[Deviation]) -> str:
    """The study's section in Markdown, with links to the figures beside it."""
    study = report.study
    parts = [f"## {study.title}", verdicts.headline(report), study.description, report.state, _lines(report.notes)]
    links = [f"![{study.title}: {kind}]({study.name}-{kind}.svg)" for kind in drawn]
    parts += [table.markdown() for table in found if table.headline] + links
    parts += [table.markdown() for table in found if not table.headline]
    if differences:
        rows = [[one.setting, one.paper, one.ours, one.arms] for one in differences]
        parts.append(Table.plain("Deviations from the paper", ["setting", "paper", "here", "in"], rows).markdown())
    parts += ["### Environment", _list(report.environment), "### Commands"]
    parts.append("\n".join(["```", *report.commands, "```"]))
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _list(facts: Mapping[str, str]) -> str:
    return _lines([f"{key}: {value}" for key, value in facts.items()])


def _lines(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
