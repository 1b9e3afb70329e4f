"""The command line: ``python -m benchmarks list | run STUDY | report STUDY… | steptime | profile``."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from benchmarks import cluster, distributed, estimate, optimizers, profile, runner, steptime, studies, tuning, workloads
from benchmarks.cluster import ClusterError
from benchmarks.data import DataError
from benchmarks.distributed import DistributedError
from benchmarks.engine import train
from benchmarks.regret import command as theory
from benchmarks.runner import Outcome, Settings, Stop
from benchmarks.store import Store, StoreError
from benchmarks.study import Run, Study, StudyError
from benchmarks.workloads import fingerprint
from partial_adaptive import MEMBERS

DONE, FAILED, BAD_INPUT, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130

_EPILOG = (
    f"exit codes: {DONE} done, {FAILED} a run failed, {BAD_INPUT} bad input, {STOPPED} stopped by the time budget, "
    f"{INTERRUPTED} interrupted; after the last two the same command goes on where it stopped"
)


_BAD_INPUT = (
    StudyError,
    optimizers.OptimizerError,
    workloads.WorkloadError,
    DataError,
    StoreError,
    ClusterError,
    DistributedError,
    profile.ProfileError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if distributed.launched() and options.command is not _run:
            raise DistributedError("torchrun is for `run` alone: call this command by `python -m benchmarks`")
        code: int = options.command(options)
        return code
    except _BAD_INPUT as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, epilog=_EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="studies, workloads and optimizers")
    command.set_defaults(command=_list)

    command = commands.add_parser("run", help="run what is missing of a study, then report", epilog=_EPILOG)
    command.set_defaults(command=_run)
    command.add_argument("study", help="a name of `list`, or the path of a .toml file")
    command.add_argument("--only", action="append", metavar="GLOB", help="runs of this label, optimizer or workload")
    command.add_argument("--seeds", type=_seeds, metavar="N|A,B,…", help="how many seeds, or which; a lone one: 'A,'")
    command.add_argument("--device", type=_devices, metavar="D,…", help="e.g. cpu, cuda, cuda:0,cuda:1")
    command.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="data sets (data/)")
    command.add_argument("--time-budget", type=_positive, metavar="SECONDS", help="stop, resumably, after so long")
    command.add_argument("--jobs-per-device", type=_count, default=1, metavar="K", help="runs side by side (1)")
    command.add_argument("--threads", type=_count, metavar="N", help="CPU threads of each run")
    command.add_argument("--ray", nargs="?", const="local", metavar="ADDRESS", help="spread over a Ray cluster")
    command.add_argument("--dry-run", action="store_true", help="say what would run, and for how long")
    command.add_argument("--force", action="store_true", help="run again what is done, from the beginning")
    _add_places(command)

    command = commands.add_parser("report", help="tables, figures and a page of finished runs")
    command.set_defaults(command=_report)
    command.add_argument("studies", nargs="+", metavar="study", help="names of `list`, or paths of .toml files")
    _add_places(command)

    command = commands.add_parser("steptime", help="how long a step of each member takes, beside torch.optim's")
    command.set_defaults(command=_steptime)
    _add_measuring(command)
    command.add_argument(
        "--lists",
        type=_names(steptime.LISTS),
        default=list(steptime.LISTS),
        metavar="L,…",
        help=f"of tensors: {', '.join(steptime.LISTS)} (all)",
    )
    command.add_argument(
        "--members",
        type=_names(MEMBERS),
        default=list(MEMBERS),
        metavar="M,…",
        help="of the family, as `list` names them (all)",
    )
    command.add_argument("--rounds", type=_count, default=20, metavar="N", help="how often each is timed (20)")

    command = commands.add_parser("profile", help="how long an epoch takes, in every mode, 1 to 4 runs side by side")
    command.set_defaults(command=_profile)
    _add_measuring(command)
    command.add_argument(
        "--workloads",
        type=_names(workloads.REGISTRY),
        default=list(profile.WORKLOADS),
        metavar="W,…",
        help="as `list` names them (the paper's three networks on CIFAR-10)",
    )
    command.add_argument(
        "--modes",
        type=_names(profile.MODES),
        metavar="M,…",
        help=f"{', '.join(profile.MODES)} (all that the device has)",
    )
    command.add_argument("--jobs", type=_counts, default=[1, 2, 4], metavar="K,…", help="runs side by side (1,2,4)")
    command.add_argument("--steps", type=_count, default=100, metavar="N", help="timed steps of each run (100)")
    command.add_argument("--optimizer", default="padam", metavar="O", help="as `list` names it (padam)")
    command.add_argument("--batch-size", type=_count, default=128, metavar="B", help="(128)")
    command.add_argument("--width", type=_positive, default=1.0, metavar="F", help="factor on all channels (1)")
    command.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="data sets (data/)")
    return parser


def _add_measuring(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", type=_devices, metavar="D", help="cpu, cuda or cuda:N")
    command.add_argument("--threads", type=_count, metavar="N", help="CPU threads")
    command.add_argument("--output", type=_markdown, metavar="FILE.md", help="the tables; JSON goes beside it")


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument("--results", type=Path, default=Path("runs"), metavar="DIR", help="the results store (runs/)")
    command.add_argument("--output", type=Path, metavar="DIR", help="where the report goes (report/ in the store)")


def _list(options: argparse.Namespace) -> int:
    for title, entries in (
        ("studies", {name: studies.load(name).title for name in studies.names()} | theory.TITLES),
        ("workloads", {name: workload.description for name, workload in workloads.REGISTRY.items()}),
        ("optimizers", {name: entry.title for name, entry in optimizers.REGISTRY.items()}),
    ):
        print(f"{title}:")
        for name, text in entries.items():
            print(f"  {name:24} {text}")
    return DONE


def _report(options: argparse.Namespace) -> int:
    trained = [studies.load(name) for name in options.studies if name not in theory.TITLES]
    for name in theory.TITLES:
        if name in options.studies:
            theory.report(name, options)
    if trained:
        _write_report(trained, options)
    return DONE


def _run(options: argparse.Namespace) -> int:
    if options.study in theory.TITLES:
        theory.run(options)
        return DONE
    study, store = studies.load(options.study), Store(options.results)
    devices = options.device or _default_devices()
    threads = options.threads or study.threads
    settings = Settings(options.data_dir, devices, options.jobs_per_device, threads, options.time_budget, options.ray)
    if distributed.launched():
        _check_alone(settings)
    with distributed.session(torch.device(devices[0])) as device:
        if distributed.active():
            settings = dataclasses.replace(settings, devices=(str(device),))
        if options.dry_run:
            return _dry_run(study, store, settings, options) if distributed.rank() == 0 else DONE
        code = _stages(study, store, settings, options)
        if code != INTERRUPTED and distributed.rank() == 0:
            _write_report([study], options)
        if code != FAILED:
            distributed.barrier()  # an exit code that is not 0 makes torchrun end the first process at once
        return code


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


def _stages(study: Study, store: Store, settings: Settings, options: argparse.Namespace) -> int:
    """Run what is missing of a study; of a tuned one the trials, then what they chose."""
    distributed.agreed(store.prepare)
    stop = Stop(options.time_budget)
    code = _stage(_selected(study.runs(options.seeds), options), store, settings, stop, options)
    if study.tuning is not None and (code == DONE or (code == FAILED and not distributed.active())):
        chosen = distributed.agreed(lambda: _final_runs(study, store, options))
        code = max(code, _stage(_selected(chosen, options), store, settings, stop, options))
    return code


def _final_runs(study: Study, store: Store, options: argparse.Namespace) -> list[Run]:
    """The runs of the settings that the trials chose."""
    planned = runner.plan(study.runs(), store, options.data_dir, fingerprint)
    results = {one.run.label: store.read(one.identity) for one in planned if one.state == "done"}
    tuned, waiting = tuning.select(study, results)
    for group in waiting:
        print(f"{group}: not all trials are in, so no setting is chosen")
    return tuned.runs(options.seeds)


def _steptime(options: argparse.Namespace) -> int:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    steptime.run(_one_device(options), options.lists, options.members, options.rounds, options.output)
    return DONE


def _profile(options: argparse.Namespace) -> int:
    device = _one_device(options)
    configs = [
        profile.configure(name, options.optimizer, options.batch_size, options.width) for name in options.workloads
    ]
    chosen = options.modes or profile.modes(device)
    profile.run(device, configs, chosen, options.jobs, options.data_dir, options.steps, options.threads, options.output)
    return DONE


def _one_device(options: argparse.Namespace) -> torch.device:
    names = options.device or _default_devices()
    if len(names) > 1:
        raise profile.ProfileError(f"--device {','.join(names)}: time is measured on one device")
    return torch.device(names[0])


def _default_devices() -> tuple[str, ...]:
    return ("cuda",) if torch.cuda.is_available() else ("cpu",)


def _selected(runs: Sequence[Run], options: argparse.Namespace) -> list[Run]:
    """The runs that --only asks for."""
    if not options.only:
        return list(runs)
    chosen = [run for run in runs if any(run.matches(pattern) for pattern in options.only)]
    if runs and not chosen:
        known = sorted({run.arm.label for run in runs})
        raise StudyError(f"--only {' '.join(options.only)} matches no run{optimizers.nearest(options.only[0], known)}")
    return chosen


def _stage(runs: Sequence[Run], store: Store, settings: Settings, stop: Stop, options: argparse.Namespace) -> int:
    """Run what is missing of these, and say what became of it."""

    def prepare() -> list[runner.Planned]:
        planned = runner.plan(runs, store, settings.data_dir, fingerprint)
        for one in planned if options.force else ():
            store.checkpoint(one.identity).unlink(missing_ok=True)
        return planned

    planned = distributed.agreed(prepare)
    todo = [one for one in planned if options.force or one.state != "done"]
    print(f"{len(todo)} of {len(planned)} runs to do, {len(planned) - len(todo)} done before")
    if not todo:
        return DONE
    execute = runner.execute if settings.ray is None else cluster.execute
    return _settle(execute(todo, store, settings, stop, train), len(todo))


def _settle(outcome: Outcome, asked: int) -> int:
    """Say how a stage ended, and its exit code."""
    for label, trace in outcome.failed.items():
        print(f"\n{label} failed:\n{trace}", file=sys.stderr)
    if outcome.fatal is not None:
        raise StoreError(outcome.fatal)
    left = asked - len(outcome.finished) - len(outcome.failed)
    if outcome.interrupted or left:
        why = "interrupted" if outcome.interrupted else "time budget spent"
        print(f"{why}: {len(outcome.finished)} runs finished, {left} left; the same command goes on from here")
        return INTERRUPTED if outcome.interrupted else STOPPED
    return FAILED if outcome.failed else DONE


def _dry_run(study: Study, store: Store, settings: Settings, options: argparse.Namespace) -> int:
    """Say what `run` would do."""
    missing: dict[str, str] = {}

    def known(workload: str, data_dir: Path) -> str:
        try:
            return fingerprint(workload, data_dir)
        except DataError as error:
            missing[workloads.find(workload).dataset] = str(error)
            return "missing"

    planned = runner.plan(_selected(study.runs(options.seeds), options), store, settings.data_dir, known)
    estimator = estimate.Estimator(store.results(), torch.device(settings.devices[0]))
    parts = []
    for one in planned:
        if one.state == "done" and not options.force:
            print(f"skip    {one.run.label}")
            continue
        seconds, source = estimator.seconds(one.run.config)
        parts.append((seconds, source))
        length = "unknown time" if seconds is None else f"{estimate.duration(seconds)}, from {source}"
        print(f"{'resume ' if one.state == 'begun' else 'run    '} {one.run.label} ({length})")
    lanes = len(settings.devices) * settings.jobs
    print(f"{len(parts)} of {len(planned)} runs to do, {len(planned) - len(parts)} done before")
    if study.tuning is not None:
        groups = {run.arm.group for run in study.runs()}
        print(f"these are the trials; {len(groups)} chosen settings × {len(options.seeds or study.seeds)} seeds follow")
    if parts:
        print(f"expected: {estimate.total(parts, lanes)}")
    for dataset, why in missing.items():
        print(f"data missing: {why}; what is done of {dataset} cannot be told without it")
    return DONE


def _write_report(chosen: Sequence[Study], options: argparse.Namespace) -> None:
    """Write the report, print its tables and its path."""
    try:
        from benchmarks import report
    except ImportError as error:
        print(f"no report: {error}; pip install 'partial-adaptive[bench]'", file=sys.stderr)
        return
    path, tables = report.write(chosen, Store(options.results), options.output or options.results / "report")
    for table in tables:
        if table.headline:
            print(f"\n{table.markdown()}")
    print(f"report: {path.resolve()}")


def _seeds(text: str) -> tuple[int, ...]:
    try:
        values = [int(part) for part in text.split(",") if part]
        return studies.seeds(values if "," in text else values[0])
    except (ValueError, IndexError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a count of at least 1 nor a list like 0,3,5") from error


def _devices(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        try:
            kind = torch.device(name).type
        except RuntimeError as error:
            raise argparse.ArgumentTypeError(f"unknown device {name!r}: cpu, cuda or cuda:N") from error
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
            raise argparse.ArgumentTypeError(f"device {name!r} is not available here")
    return names


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Reads names separated by commas, of those that are known."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}{optimizers.nearest(name, known)}")
        return names

    return read


def _markdown(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".md":
        raise argparse.ArgumentTypeError(f"must end in .md, got {text!r}")
    return path


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return value
