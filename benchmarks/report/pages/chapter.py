"""What a report says of one study, or of several together: as a section of the page, in Markdown, and as files."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from benchmarks.report import groups, published
from benchmarks.report.display import drawing, palette
from benchmarks.report.display.drawing import Drawing
from benchmarks.report.display.figure import Figure
from benchmarks.report.display.palette import Style
from benchmarks.report.display.table import Table
from benchmarks.report.pages import export
from benchmarks.report.pages.page import Arm, Content, Section
from benchmarks.report.results import Report, Series
from benchmarks.report.sections import charts, compared, settings, tables, underway, verdicts

Part = TypeVar("Part", Table, Figure)
_LONGEST = 150  # bytes of a name; file systems end at 255, with the folder and the suffix aside


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chapter(Content):
    """All that a report says of a study.

    Args:
        name: of the study, and of its files.
        figures: in their order.
        titles: what each arm is called, by `palette.key`.
        settings: what each was run with, by the same key.
    """

    name: str
    figures: Sequence[Figure] = ()
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def looks(self) -> drawing.Looks:
        """The looks of the arms, for charts."""
        return drawing.Looks(self.styles, {title: key for key, title in self.titles.items()} | dict(self.keys))

    def section(self, drawings: Sequence[Drawing] | None = None) -> Section:
        """The chapter on a page, with these drawings or else its own."""
        name = identifier(self.name)
        if drawings is None:
            drawings = [drawing.drawing(figure, name, self.looks) for figure in self.figures]
        arms = [Arm(key, self.titles[key], one.dash, self.settings.get(key, "")) for key, one in self.styles.items()]
        return Section(id=name, drawings=drawings, arms=arms, **self.content)

    def files(self) -> dict[str, bytes]:
        """Markdown, the tables and the figures, by path."""
        made = {f"{self.name}.md": self.markdown().encode()}
        made |= export.tables([*self.tables, *([self.deviations] if self.deviations else [])], self.name)
        for figure in self.figures:
            svg, png = drawing.files(figure, self.looks)
            made |= {f"{self.name}/{figure.name}.svg": svg, f"{self.name}/{figure.name}.png": png}
        return made

    def markdown(self) -> str:
        """The chapter in Markdown, with links to the figures in the folder beside it."""
        parts = [f"## {self.title}", *self.verdict, self.description, self.state]
        parts += [table.markdown() for table in self.tables if table.headline]
        for one in self.figures:
            parts.append(f"![{self.title}: {one.name}](<{self.name}/{one.name}.svg>)\n\n{one.caption}")
        parts += [table.markdown() for table in self.tables if not table.headline]
        parts += [self.deviations.markdown()] if self.deviations else []
        if self.notes:
            parts += ["### Left out", "\n".join(f"- {note}" for note in self.notes)]
        if self.environment:
            parts += ["### Environment", "\n".join(f"- {key}: {value}" for key, value in self.environment.items())]
        if self.commands:
            parts += ["### Commands", "\n".join(["```", *self.commands, "```"])]
        return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def of_study(report: Report, unfinished: Sequence[Series], styles: Mapping[str, Style], points: int) -> Chapter:
    """The chapter of a study.

    Args:
        report: what there is of it.
        unfinished: its arms with runs in progress.
        styles: the look of each arm that is `shown`.
        points: of all its curves together.
    """
    series = shown(report, unfinished)
    found = tables.build(report)
    found += [underway.table(unfinished)] if unfinished else []
    figures = [*charts.draw(report, styles, series[len(report.series) :], points), *compared.figures(report)]
    found, figures = _named(found), _named(figures)
    keys = _entries(report) | {one.arm.title: palette.key(one) for one in reversed(series)}
    keys |= {name: palette.key(one) for one in series for name in (one.arm.label, palette.key(one))}
    return Chapter(
        name=report.study.name,
        title=report.study.title,
        verdict=verdicts.headlines(report),
        description=report.study.description.strip(),
        state=report.state,
        tables=found,
        figures=figures,
        deviations=_deviations(report),
        notes=report.notes,
        environment=report.environment,
        commands=report.commands,
        styles=styles,
        titles={palette.key(one): one.arm.title for one in reversed(series)},
        settings={palette.key(one): settings.listed(one.arm.config.hyper) for one in reversed(series)},
        keys=keys,
    )


def _named(parts: Sequence[Part]) -> list[Part]:
    """Tables or figures under names that are theirs alone and short enough for a file: subjects give long ones."""
    taken: set[str] = set()
    named = []
    for one in parts:
        short = one.name.encode()[:_LONGEST].decode(errors="ignore")
        name = next(
            name for count in itertools.count(1) if (name := f"{short}_{count}" if count > 1 else short) not in taken
        )
        taken.add(name)
        named.append(dataclasses.replace(one, name=name))
    return named


def _entries(report: Report) -> dict[str, str]:
    """By the title of each entry of a tuned study the arm that was chosen for it: they look the same in all charts."""
    if not report.trials:
        return {}
    chosen = {one.arm.group: palette.key(one) for one in report.series}
    return {one.title: chosen[one.key] for one in groups.groups(report) if one.key in chosen}


def of_all(reports: Sequence[Report], chapters: Sequence[Chapter]) -> Chapter | None:
    """The chapter over the workloads of several studies; None where there is nothing to say."""
    found, figures = compared.overall(reports)
    if not found:
        return None
    name = "overall"
    while name in [chapter.name for chapter in chapters]:
        name = f"{name}-studies"
    return Chapter(
        name=name,
        title="All studies together",
        tables=found,
        figures=figures,
        styles={key: style for chapter in chapters for key, style in chapter.styles.items()},
        titles={key: title for chapter in chapters for key, title in chapter.titles.items()},
        keys={name: key for chapter in chapters for name, key in chapter.keys.items()},
    )


def shown(report: Report, unfinished: Sequence[Series]) -> list[Series]:
    """The arms with curves: those with finished runs, then those that have unfinished ones alone."""
    there = {one.arm.label for one in report.series}
    others = [one for one in unfinished if one.arm.label not in there]
    return [
        *report.series,
        *(Series(dataclasses.replace(one.arm, title=f"{one.arm.title} (in progress)"), one.runs) for one in others),
    ]


def identifier(name: str) -> str:
    """The name of a study as an identifier of HTML and CSS."""
    return "study-" + re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{ord(match[0]):x}_", name)


def _deviations(report: Report) -> Table | None:
    """The settings that are not the paper's; None where there are none."""
    found = published.deviations([(one.arm.title, one.arm.config) for one in report.series])
    rows = [[one.setting, one.paper, one.ours, one.arms] for one in found]
    headers = ["setting", "paper", "here", "in"]
    return Table.plain("Deviations from the paper", headers, rows) if rows else None
