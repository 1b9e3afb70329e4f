"""The figure of the page "On a GPU", from the runs on record."""

import hashlib
from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from benchmarks.report.evidence import archive, on_gpu
from benchmarks.report.evidence.claims import READINGS
from benchmarks.report.results import Report, Series
from benchmarks.workloads import metrics

STUDY = "paper-bn"
TITLES = ("Running statistics, as most code tests", "Recalibrated, as the authors test")


def source() -> str:
    """A digest of the runs that are drawn: it goes into the file."""
    return hashlib.sha256((on_gpu.RECORDS / f"{STUDY}{archive.SUFFIX}").read_bytes()).hexdigest()


def batch_norm(found: Report) -> Figure:
    """The test error over the epochs, by both statistics of batch norm: each run, and the mean."""
    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, statistics, title in zip(panels, READINGS, TITLES, strict=True):
        for tint, series in enumerate(found.series):
            curves = np.array([*_errors(series, statistics)])
            epochs = np.arange(1, curves.shape[1] + 1)
            for curve in curves:
                panel.plot(epochs, curve, color=f"C{tint}", linewidth=0.7, alpha=0.4)
            panel.plot(epochs, curves.mean(0), color=f"C{tint}", linewidth=1.8, label=series.arm.title)
        panel.set_title(title)
        panel.set_xlabel("epoch")
        panel.set_ylim(8, 60)
    panels[0].set_ylabel("test error, %")
    panels[1].legend(frameon=False)
    return figure


def _errors(series: Series, statistics: str) -> Iterator[list[float]]:
    workload = series.arm.config.workload
    for run in series.sound.values():
        yield [100 - metrics.score(record, workload, statistics) for record in run.epochs]
