"""What the command line needs of the studies that are one run each: names, how to run and to report on them."""

import importlib.metadata
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.base import distributed
from benchmarks.base.environment import describe
from benchmarks.base.store import Store
from benchmarks.studies.study import StudyError
from benchmarks.theory import WITH_DATA


def run(name: str, results: Path, output: Path | None = None, *, data_dir: Path, threads: int | None = None) -> None:
    """Run a study and report on it: always anew, in this process, on the CPU.

    Args:
        name: of the study, a key of `benchmarks.theory.TITLES`.
        results: the results store, which gets its record.
        output: where the report goes; ``report/`` in the store for None.
        data_dir: where the data sets lie, for the study that needs one.
        threads: CPU threads; None is one.
    """
    if distributed.launched():
        raise StudyError(f"{name} is the work of one process: call it by `python -m benchmarks`, not by torchrun")
    study, _ = _modules(name)
    Store(results).prepare()
    before = torch.get_num_threads()
    torch.set_num_threads(threads or 1)
    try:
        versions = {package: importlib.metadata.version(package) for package in ("numpy", "scipy", "scikit-learn")}
        folder = (data_dir,) if name in WITH_DATA else ()
        record = study.run(describe(torch.device("cpu")) | versions, *folder)
    finally:
        torch.set_num_threads(before)

    from benchmarks.theory.record import save

    save(results / f"{name}.json", record)
    report(name, results, output)


def report(name: str, results: Path, output: Path | None = None) -> None:
    """Write the report on what the store has of a study, print its main tables and the page's path.

    Args:
        name: of the study.
        results: the results store.
        output: where the report goes; ``report/`` in the store for None.
    """
    study, shown = _modules(name)

    from benchmarks.theory.publish import write
    from benchmarks.theory.record import load

    record = load(study.Record, results / f"{name}.json", f"`python -m benchmarks run {name}` makes it")
    tables = shown.tables(record)
    directory = output or results / "report"
    path = write(shown.report(record), tables, shown.figures(record), directory)
    for table in tables:
        if table.headline:
            print(f"\n{table.markdown()}")
    print(f"report: {path.resolve()}")


def _modules(name: str) -> tuple[ModuleType, ModuleType]:
    """What runs a study, and what reports on it; they need the packages of the extra "bench"."""
    try:
        if name == "regret":
            from benchmarks.theory.regret import study, study_report

            return study, study_report
        if name == "width":
            from benchmarks.theory.width import study as width
            from benchmarks.theory.width import study_report as width_report

            return width, width_report
        from benchmarks.theory import counterexample, counterexample_report

        return counterexample, counterexample_report
    except ImportError as error:
        raise StudyError(f"{name}: {error}; pip install 'partial-adaptive[bench]'") from error
