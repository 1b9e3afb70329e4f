"""What the command line needs of the studies that are one run each: names, how to run and to report on them."""

import argparse
import importlib.metadata
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.base import distributed
from benchmarks.base.environment import describe
from benchmarks.base.store import Store
from benchmarks.studies.study import StudyError

_MEANINGLESS = {
    "only": None,
    "seeds": None,
    "time_budget": None,
    "jobs_per_device": 1,
    "ray": None,
    "dry_run": False,
    "force": False,
    "data_dir": Path("data"),
}
_WITH_DATA = ("width",)  # their `run` takes the folder of the data sets


def run(options: argparse.Namespace) -> None:
    """Run a study and report on it: always anew, in this process, on one thread unless told otherwise.

    Args:
        options: those of the command line's `run`; what means nothing here is refused.
    """
    name = options.study
    for option, default in _MEANINGLESS.items():
        if option == "data_dir" and name in _WITH_DATA:
            continue
        if getattr(options, option) != default:
            said = f"--{option.replace('_', '-')}"
            raise StudyError(f"{said} means nothing to {name}: it is one short run on fixed data, always done anew")
    if options.device not in (None, ("cpu",)):
        raise StudyError(f"--device {','.join(options.device)}: {name} runs on the CPU; give cpu or nothing")
    if distributed.launched():
        raise StudyError(f"{name} is the work of one process: call it by `python -m benchmarks`, not by torchrun")
    study, _ = _modules(name)
    Store(options.results).prepare()
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads or 1)
    try:
        versions = {package: importlib.metadata.version(package) for package in ("numpy", "scipy", "scikit-learn")}
        folder = (options.data_dir,) if name in _WITH_DATA else ()
        record = study.run(describe(torch.device("cpu")) | versions, *folder)
    finally:
        torch.set_num_threads(threads)

    from benchmarks.theory.record import save

    save(options.results / f"{name}.json", record)
    report(name, options)


def report(name: str, options: argparse.Namespace) -> None:
    """Write the report on what the store has of a study, print its main tables and the page's path.

    Args:
        name: of the study.
        options: those of the command line's `run` or `report`.
    """
    study, shown = _modules(name)

    from benchmarks.theory.publish import write
    from benchmarks.theory.record import load

    record = load(study.Record, options.results / f"{name}.json", f"`python -m benchmarks run {name}` makes it")
    tables = shown.tables(record)
    directory = options.output or options.results / "report"
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
