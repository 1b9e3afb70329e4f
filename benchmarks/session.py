"""The benchmark from Python.

    from benchmarks import session

    outcome = session.run("quick", "runs", seeds=1, settings=session.Settings(threads=1))
    frame = session.results("runs")
    page, tables = session.report("quick", "runs")

The command line parses, calls these, and maps what came of it to exit codes. They may be called from a notebook or a
thread: Ctrl-C stops politely where they are called in the main thread, and nothing is printed with ``say=None``.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from benchmarks import studies
from benchmarks.base import choice, distributed
from benchmarks.base.distributed import DistributedError
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.store import Store, read
from benchmarks.scheduling import cluster, runner
from benchmarks.scheduling import survey as surveys
from benchmarks.scheduling.estimate import Estimator
from benchmarks.scheduling.outcome import Outcome, Say, Stop
from benchmarks.scheduling.plan import Planned, distinct, plan
from benchmarks.scheduling.runner import OnEpoch
from benchmarks.scheduling.settings import Settings
from benchmarks.scheduling.survey import Survey
from benchmarks.studies import study as studied
from benchmarks.studies import tuning
from benchmarks.studies.study import Run, Study, selected
from benchmarks.training.engine import train
from benchmarks.workloads import fingerprint

if TYPE_CHECKING:
    from benchmarks.report.display.table import Table

__all__ = ["BenchmarkError", "Outcome", "Settings", "Study", "Survey"]
__all__ += ["compare", "report", "results", "run", "say", "seeds", "survey", "watch"]

AnyStudy = Study | str | Path
AnyStore = Store | str | Path
Seeds = int | Sequence[int] | None


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def run(
    study: AnyStudy,
    store: AnyStore,
    *,
    seeds: Seeds = None,
    only: Sequence[str] = (),
    settings: Settings | None = None,
    force: bool = False,
    fresh: bool = False,
    say: Say | None = say,
    on_epoch: OnEpoch | None = None,
) -> Outcome:
    """Make the runs that a store lacks of a study; of a tuned one the trials, then what they chose.

    What another process is making at the same time is left to that one. Under torchrun all processes call it together
    and share each run.

        outcome = run("quick", "runs", only=["padam"], say=None)
        if outcome.status != "done":
            print(outcome.left, outcome.failed)

    Args:
        study: a study, a name of ``list``, or the path of a ``.toml`` file.
        store: where the results are and go; made if it is not there.
        seeds: how many, or which, in place of the study's own.
        only: globs; at least one must match a run's label, entry, optimizer or workload.
        settings: where and how to run; threads left open are the study's.
        force: run again what is done, from the beginning; replaces what this code, torch and device made.
        fresh: run again what other code, another torch or another device has done; both results are kept.
        say: gets lines for people; None shows nothing, no bars either.
        on_epoch: called with a run's label and the record of each epoch, from the threads that train; where a run
            goes on from a checkpoint, with the epochs before it first. On Ray at the end of each run.

    Returns:
        What became of the runs, all stages together.

    Raises:
        BenchmarkError: the study, the data, the store or the settings are wrong; nothing has been run then.
    """
    study, store = _study(study), _store(store)
    settings = _settings(settings, study)
    chosen = _seeds(seeds)
    if distributed.launched():
        _check_alone(settings)
    with distributed.session(torch.device(settings.devices[0])) as device:
        if distributed.active():
            settings = dataclasses.replace(settings, devices=(str(device),))
        stages = _Stages(study, store, settings, chosen, tuple(only), force, fresh, say, on_epoch)
        outcome = stages.run()
        if not outcome.failed:
            distributed.barrier()  # an exit code that is not 0 makes torchrun end the first process at once
        return outcome


@dataclasses.dataclass
class _Stages:
    """One call of `run`."""

    study: Study
    store: Store
    settings: Settings
    seeds: Sequence[int] | None
    only: Sequence[str]
    force: bool
    fresh: bool
    say: Say | None
    on_epoch: OnEpoch | None

    def __post_init__(self) -> None:
        self._stop = Stop(self.settings.budget, self.say)
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Make the runs; of a tuned study, then those of the chosen settings."""
        distributed.agreed(self.store.prepare)
        outcome = self._outcome
        for reason in self.study.left_out:
            self._tell(f"left out: {reason}")
        self._make(self.study.runs(self.seeds))
        if self.study.tuning is not None and not outcome.left and not (outcome.failed and distributed.active()):
            self._make(distributed.agreed(self._final_runs))
        return outcome

    def _tell(self, text: str) -> None:
        if self.say is not None:
            self.say(text)

    def _plan(self, runs: Sequence[Run], *, force: bool = False) -> list[Planned]:
        return plan(runs, self.store, self.settings, fingerprint, fresh=self.fresh, force=force)

    def _make(self, runs: Sequence[Run]) -> None:
        """Make those of the runs that are due."""
        wanted = selected(runs, self.only)
        planned = distinct(distributed.agreed(lambda: self._plan(wanted, force=self.force)))
        todo = [one for one in planned if one.due]
        self._tell(f"{len(todo)} of {len(planned)} runs to do, {len(planned) - len(todo)} done before")
        others = sum(one.state == "done" and not one.own for one in planned)
        if others and not self.force:
            self._tell(
                f"{others} of those were done by other code, torch or device; --fresh makes them again, beside those"
            )
        for one in planned:
            for file in one.skipped:
                self._tell(f"not believed: {file.reason}")
        if todo and self.settings.whole:
            todo = distributed.agreed(lambda: self._expected(todo))
        if todo:
            execute = runner.execute if self.settings.ray is None else cluster.execute
            self._outcome.add(execute(todo, self.store, self.settings, self._stop, train, self.say, self.on_epoch))

    def _expected(self, todo: Sequence[Planned]) -> list[Planned]:
        """The runs with the seconds that earlier ones say they take; of those that are begun nobody knows the rest."""
        estimator = Estimator(self.store, torch.device(self.settings.devices[0]), self.settings)
        return [
            one if one.state == "begun" else dataclasses.replace(one, expected=estimator.known(one.run.config))
            for one in todo
        ]

    def _final_runs(self) -> list[Run]:
        """The runs of the settings that the trials chose."""
        planned = self._plan(self.study.runs(self.seeds))
        trials = choice.preferred({one.run.label: [read(file) for file in one.files] for one in planned if one.files})
        tuned, waiting = tuning.select(self.study, trials)
        for group in waiting:
            self._tell(f"{group}: not all trials are in, so no setting is chosen")
        return tuned.runs(self.seeds)


def survey(
    study: AnyStudy,
    store: AnyStore,
    *,
    seeds: Seeds = None,
    only: Sequence[str] = (),
    settings: Settings | None = None,
    force: bool = False,
    fresh: bool = False,
) -> Survey:
    """What `run` with the same arguments would do, and how long that should take; runs and writes nothing.

        for line in survey("quick", "runs").lines():
            print(line)

    Raises:
        BenchmarkError: the study or the settings are wrong. Data that is missing is told in the survey.
    """
    study = _study(study)
    settings = _settings(settings, study)
    chosen = _seeds(seeds)
    runs = selected(study.runs(chosen), only)
    final = len({run.arm.group for run in runs}) * len(chosen or study.seeds) if study.tuning is not None else 0
    return surveys.survey(runs, _store(store), settings, fingerprint, fresh=fresh, force=force, chosen=final)


def report(
    studies: AnyStudy | Sequence[AnyStudy], store: AnyStore, directory: str | Path | None = None
) -> "tuple[Path, list[Table]]":
    """Write the report on one study or several; see `benchmarks.report.write`.

        page, tables = report(["quick", "my-study.toml"], "runs")

    Args:
        studies: what to report on.
        store: where the results are.
        directory: where the report goes; ``report/`` in the store for None.

    Returns:
        The page's path, and the tables of all studies.

    Raises:
        BenchmarkError: there is no such study or store, or the report cannot be written.
        ImportError: a package of the extra ``bench`` is missing.
    """
    from benchmarks.report import write

    store = _store(store)
    loaded = [_study(one) for one in ([studies] if isinstance(studies, Study | str | Path) else studies)]
    return write(loaded, store, Path(directory or store.root / "report"))


def watch(
    studies: Sequence[AnyStudy], store: AnyStore, directory: Path | None = None, every: int = 10, say: Say = say
) -> Path:
    """Keep the report on some studies up to date until they are complete; see `benchmarks.report.watch`."""
    from benchmarks.report.watch import watch

    store = _store(store)
    store.check_exists()
    return watch([_study(one) for one in studies], store, directory or store.root / "report", every, say)


def seeds(study: AnyStudy, store: AnyStore, difference: float, sd: float | None = None) -> list[str]:
    """How many seeds a study needs to find a difference; see `benchmarks.report.inference.planning.plan`."""
    from benchmarks.report.inference.planning import plan

    return plan(_study(study), _store(store), difference, sd)


def pack(store: AnyStore, archive: str | Path) -> int:
    """Write the finished runs of a store into one file; see `benchmarks.report.evidence.archive.pack`."""
    from benchmarks.report.evidence.archive import pack

    return pack(_store(store), Path(archive))


def unpack(archive: str | Path, store: AnyStore) -> int:
    """Put the runs of such a file into a store; see `benchmarks.report.evidence.archive.unpack`."""
    from benchmarks.report.evidence.archive import unpack

    return unpack(Path(archive), _store(store))


def compare(study: AnyStudy, store: AnyStore, first: str, second: str) -> "list[Table]":
    """Tables of what two versions of the code made of a study; see `benchmarks.report.sections.compare.compare`."""
    from benchmarks.report.sections.compare import compare

    store = _store(store)
    store.check_exists()
    return compare(_study(study), store, first, second)


def results(store: AnyStore) -> Any:
    """A row for each epoch of each finished run: a pandas frame where pandas is installed, else a list of mappings.

        frame = results("runs")
        frame[frame.optimizer == "padam"].groupby("epoch")["test.top1"].mean()

    The columns, missing (NaN) where a run has no such thing:

    - ``file``, ``identity``: the run's file and the name of its configuration and data.
    - ``workload``, ``optimizer``, ``seed``, ``epochs``, ``batch_size``, ``precision``, ``split``: as configured.
    - ``model``, ``data``, ``max_steps``, ``clip_norm``, ``label_smoothing``, ``ema``: where given; ``schedules``,
      ``groups``, ``milestones``, ``workload_options``, ``data_options``: where given, as JSON, to group by.
    - ``hyper.…``: the optimizer's keyword arguments.
    - ``sources``, ``torch``, ``device``, ``processes``: what made it; ``status``: ``"done"`` or ``"diverged"``.
    - ``epoch``, ``step``: how far it was; ``lr``: the learning rate of that epoch's last step.
    - ``train.online_…``, ``train.clean_…``: on training data, see `benchmarks.base.records.Epoch`.
    - ``test.…``, ``recalibrated.…``, ``ema.…``: the metrics on the data held out, see `Evaluation` there.
    - ``distance``, ``floor_share``, ``effective_step.…``: the diagnostics; ``time.…``: seconds, milliseconds and bytes.

    Files that are no runs, or were changed since they were written, are left out.

    Raises:
        BenchmarkError: there is no such store.
    """
    store = _store(store)
    store.check_exists()
    rows = [
        {
            "file": result.path.name,
            "identity": result.path.stem.partition("-")[0],
            **{key: result.config.get(key) for key in _CONFIGURED},
            **{key: result.config[key] for key in _GIVEN if result.config.get(key)},
            **{key: json.dumps(result.config[key], sort_keys=True) for key in _TABLES if result.config.get(key)},
            **{f"hyper.{key}": value for key, value in result.config["hyper"].items()},
            **result.provenance._asdict(),
            "status": result.status,
            **{key: getattr(epoch, key) for key in ("epoch", "step", "lr")},
            **{f"train.{key}": value for key, value in epoch.train.items()},
            **{f"test.{key}": value for key, value in epoch.test.running.items()},
            **{f"{kind}.{key}": value for kind in _AGAIN for key, value in epoch.test.of(kind).items()},
            "distance": epoch.distance,
            "floor_share": epoch.floor_share,
            **{f"effective_step.{key}": value for key, value in epoch.effective_step.items()},
            **{f"time.{key}": value for key, value in msgspec.structs.asdict(epoch.time).items()},
        }
        for result in store.results()
        for epoch in result.epochs
    ]
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


_CONFIGURED = ("workload", "optimizer", "seed", "epochs", "batch_size", "precision", "split")
_GIVEN = ("model", "data", "max_steps", "clip_norm", "label_smoothing", "ema")
_TABLES = ("schedules", "groups", "milestones", "workload_options", "data_options")
_AGAIN = ("recalibrated", "ema")  # other readings of the metrics


def _study(study: AnyStudy) -> Study:
    return study if isinstance(study, Study) else studies.load(str(study))


def _seeds(seeds: Seeds) -> tuple[int, ...] | None:
    return None if seeds is None else studied.seeds(seeds if isinstance(seeds, int) else list(seeds))


def _settings(settings: Settings | None, study: Study) -> Settings:
    settings = settings or Settings()
    return settings if settings.threads is not None else dataclasses.replace(settings, threads=study.threads)


def _store(store: AnyStore) -> Store:
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
