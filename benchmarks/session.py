"""The benchmark from Python: ``run`` makes what a study lacks, ``results`` and ``report`` say what there is.

    from benchmarks import session

    outcome = session.run("quick", "runs", seeds=(0,), settings=session.Settings(threads=1))
    frame = session.results("runs")

The command line parses, calls these, and maps what came of it to exit codes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import studies
from benchmarks.base import distributed
from benchmarks.base.config import RunConfig
from benchmarks.base.distributed import DistributedError
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.store import Store
from benchmarks.scheduling import cluster, estimate, runner
from benchmarks.scheduling.runner import Outcome, Planned, Settings, Stop
from benchmarks.studies import tuning
from benchmarks.studies.study import Run, Study, selected
from benchmarks.training.engine import train
from benchmarks.workloads import fingerprint
from benchmarks.workloads.data import DataError

__all__ = ["BenchmarkError", "Outcome", "Settings", "report", "results", "run", "survey"]

Say = Callable[[str], None]


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def run(
    study: Study | str | Path,
    store: Store | str | Path,
    *,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    settings: Settings | None = None,
    force: bool = False,
    fresh: bool = False,
    say: Say = say,
) -> Outcome:
    """Make the runs that a store lacks of a study; of a tuned one the trials, then what they chose.

    Under torchrun all processes call it together and share each run.

    Args:
        study: a study, a name of ``list``, or the path of a ``.toml`` file.
        store: where the results are and go.
        seeds: in place of the study's own.
        only: globs; at least one must match a run's label, entry, optimizer or workload.
        settings: where and how to run.
        force: run again what is done, from the beginning.
        fresh: run again what other code, another torch or another device has done; both results are kept.
        say: gets lines for people.

    Returns:
        What became of the runs, all stages together.

    Raises:
        BenchmarkError: the study, the data, the store or the settings are wrong; nothing has been run then.
    """
    study, store = _study(study), _store(store)
    settings = _settings(settings, study)
    if distributed.launched():
        _check_alone(settings)
    with distributed.session(torch.device(settings.devices[0])) as device:
        if distributed.active():
            settings = dataclasses.replace(settings, devices=(str(device),))
        outcome = _stages(study, store, settings, seeds, only, force=force, fresh=fresh, say=say)
        if not outcome.failed:
            distributed.barrier()  # an exit code that is not 0 makes torchrun end the first process at once
        return outcome


def _stages(
    study: Study,
    store: Store,
    settings: Settings,
    seeds: Sequence[int] | None,
    only: Sequence[str],
    *,
    force: bool,
    fresh: bool,
    say: Say,
) -> Outcome:
    distributed.agreed(store.prepare)
    stop = Stop(settings.budget)
    outcome = Outcome()

    def stage(runs: Sequence[Run]) -> None:
        def prepare() -> list[Planned]:
            planned = runner.plan(selected(runs, only), store, settings, fingerprint, fresh=fresh)
            for one in planned if force else ():
                store.checkpoint(one.identity).unlink(missing_ok=True)
            return planned

        planned = runner.distinct(distributed.agreed(prepare))
        todo = [one for one in planned if force or one.state != "done"]
        say(f"{len(todo)} of {len(planned)} runs to do, {len(planned) - len(todo)} done before")
        others = sum(one.state == "done" and not one.own for one in planned)
        if others and not force:
            say(f"{others} of those were done by other code, torch or device; --fresh makes them again, beside those")
        outcome.asked += len(todo)
        if todo:
            execute = runner.execute if settings.ray is None else cluster.execute
            outcome.add(execute(todo, store, settings, stop, train))

    stage(study.runs(seeds))
    if study.tuning is not None and not outcome.left and not (outcome.failed and distributed.active()):
        stage(distributed.agreed(lambda: _final_runs(study, store, settings, seeds, fresh=fresh, say=say)))
    return outcome


def _final_runs(
    study: Study, store: Store, settings: Settings, seeds: Sequence[int] | None, *, fresh: bool, say: Say
) -> list[Run]:
    """The runs of the settings that the trials chose."""
    planned = runner.plan(study.runs(seeds), store, settings, fingerprint, fresh=fresh)
    trials = {one.run.label: result for one in planned if (result := one.result()) is not None}
    tuned, waiting = tuning.select(study, trials)
    for group in waiting:
        say(f"{group}: not all trials are in, so no setting is chosen")
    return tuned.runs(seeds)


def survey(
    study: Study | str | Path,
    store: Store | str | Path,
    *,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    settings: Settings | None = None,
    force: bool = False,
    fresh: bool = False,
) -> "Survey":
    """What `run` with the same arguments would do, and how long that should take."""
    study, store = _study(study), _store(store)
    settings = _settings(settings, study)
    missing: dict[str, str] = {}

    def known(config: RunConfig, data_dir: Path) -> str:
        try:
            return fingerprint(config, data_dir)
        except DataError as error:
            missing[config.workload] = str(error)
            return "missing"

    planned = runner.plan(selected(study.runs(seeds), only), store, settings, known, fresh=fresh)
    estimator = estimate.Estimator(store.results(), torch.device(settings.devices[0]))
    expected = {one.run.label: estimator.seconds(one.run.config) for one in planned if force or one.state != "done"}
    lanes = len(settings.devices) * settings.jobs
    chosen = len({one.run.arm.group for one in planned}) * len(seeds or study.seeds) if study.tuning else 0
    return Survey(planned, expected, lanes, chosen, missing)


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a run would do.

    Args:
        planned: all runs asked for.
        expected: by label of those to do the seconds they should take (None: unknown), and how that is known.
        lanes: how many would run side by side.
        chosen: of a tuned study, how many runs follow the trials.
        missing: workloads whose data is missing, and why.
    """

    planned: Sequence[Planned]
    expected: Mapping[str, tuple[float | None, str]]
    lanes: int
    chosen: int
    missing: Mapping[str, str]

    def lines(self) -> Iterable[str]:
        """The survey for people."""
        for one in self.planned:
            if one.run.label not in self.expected:
                yield f"skip    {one.run.label}"
                continue
            seconds, source = self.expected[one.run.label]
            length = "unknown time" if seconds is None else f"{estimate.duration(seconds)}, from {source}"
            yield f"{'resume ' if one.state == 'begun' else 'run    '} {one.run.label} ({length})"
        done = len(self.planned) - len(self.expected)
        yield f"{len(self.expected)} of {len(self.planned)} runs to do, {done} done before"
        if self.chosen:
            yield f"these are the trials; {self.chosen} runs of the chosen settings follow"
        if self.expected:
            yield f"expected: {estimate.total(list(self.expected.values()), self.lanes)}"
        for workload, why in self.missing.items():
            yield f"data missing: {why}; what is done of {workload} cannot be told without it"


def report(studies: Sequence[Study | str | Path], store: Store | str | Path, directory: Path | None = None) -> Any:
    """Write the report on some studies; see `benchmarks.report.write`."""
    from benchmarks.report import write

    store = _store(store)
    return write([_study(one) for one in studies], store, directory or store.root / "report")


def results(store: Store | str | Path) -> Any:
    """A row for each epoch of each finished run: a pandas frame where pandas is installed, else a list of mappings."""
    rows = [
        {
            "identity": result.path.stem,
            **{key: result.config.get(key) for key in ("workload", "optimizer", "seed", "epochs")},
            **{f"hyper.{key}": value for key, value in result.config["hyper"].items()},
            "sources": result.provenance.sources,
            "status": result.status,
            "epoch": epoch.epoch,
            "lr": epoch.lr,
            **{f"train.{key}": value for key, value in epoch.train.items()},
            **{f"test.{key}": value for key, value in epoch.test.running.items()},
            **{f"recalibrated.{key}": value for key, value in epoch.test.of("recalibrated").items()},
            "train_s": epoch.time.train_s,
        }
        for result in _store(store).results()
        for epoch in result.epochs
    ]
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


def _study(study: Study | str | Path) -> Study:
    return study if isinstance(study, Study) else studies.load(str(study))


def _settings(settings: Settings | None, study: Study) -> Settings:
    settings = settings or Settings()
    return settings if settings.threads else dataclasses.replace(settings, threads=study.threads)


def _store(store: Store | str | Path) -> Store:
    return store if isinstance(store, Store) else Store(Path(store))


def _check_alone(settings: Settings) -> None:
    """Refuse what would share out the work a second time when torchrun shares out each run."""
    if settings.ray is not None:
        raise DistributedError("--ray spreads runs over machines, torchrun each run over processes: use one of them")
    if settings.jobs > 1:
        raise DistributedError("--jobs-per-device: under torchrun the processes train one run after the other")
    if len(settings.devices) > 1 or torch.device(settings.devices[0]).index is not None:
        raise DistributedError(
            f"--device {','.join(settings.devices)}: under torchrun each process takes its own, give cuda or cpu"
        )
