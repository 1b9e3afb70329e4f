"""What a report has tried for each entry of its study: trials of a tuned one, points of a grid otherwise."""

import dataclasses
import math
from collections import Counter

from benchmarks.base.config import workload_of
from benchmarks.report.display.table import slug
from benchmarks.report.inference.statistics import summarize
from benchmarks.report.results import Report, Series
from benchmarks.workloads import metrics
from benchmarks.workloads.metrics import Metric


@dataclasses.dataclass(frozen=True)
class Group:
    """An entry of a study on one workload.

    Args:
        key: its label.
        title: its name in tables and figures, that of no other group of the workload.
        subject: what it was tried on.
        candidates: its arms, those without a run included.
    """

    key: str
    title: str
    subject: str
    candidates: tuple[Series, ...]

    @property
    def tried(self) -> list[Series]:
        """The candidates with at least one run."""
        return [one for one in self.candidates if one.runs]


def groups(report: Report) -> list[Group]:
    """The entries of a study in their order."""
    found: dict[str, list[Series]] = {}
    for one in report.trials or report.series:
        found.setdefault(one.arm.group, []).append(one)
    names = {key: candidates[0].arm.entry or candidates[0].arm.title for key, candidates in found.items()}
    places = {key: candidates[0].arm.config.subject for key, candidates in found.items()}
    shared = Counter((places[key], name) for key, name in names.items())
    return [
        Group(
            key,
            names[key] if shared[places[key], names[key]] == 1 else f"{names[key]} ({key})",
            places[key],
            tuple(candidates),
        )
        for key, candidates in found.items()
    ]


def subjects(report: Report) -> list[str]:
    """The subjects on which something was tried, of a tuned study also before anything is chosen."""
    return list(dict.fromkeys(group.subject for group in groups(report)))


def score(one: Series) -> float:
    """The mean of the final scores; NaN where a run diverged or there is none."""
    return math.nan if one.diverged else summarize(one.finals).mean


def metric(subject: str) -> Metric:
    """What a subject of a study is judged by."""
    return metrics.of(workload_of(subject))


def sign(subject: str) -> int:
    """`Metric.sign` of a subject's metric."""
    return metric(subject).sign


def measure(report: Report, subject: str) -> str:
    """What `score` is called: the metric, of the validation split if that is what the candidates were judged on."""
    splits = {group.candidates[0].arm.config.split for group in groups(report) if group.subject == subject}
    title = metric(subject).title
    return title.replace("test ", "validation ") if splits == {"validation"} else title


def stem(name: str, report: Report, subject: str) -> str:
    """The name of a table or figure about one workload of a report."""
    return name if len(subjects(report)) == 1 else f"{name}_{slug(subject)}"


def where(report: Report, subject: str) -> str:
    """The end of a title that says which workload it is about, where there are several."""
    return f", {subject}" if len(subjects(report)) > 1 else ""
