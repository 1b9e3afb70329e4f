"""The command line, ``python -m benchmarks COMMAND``.

It parses, calls, and maps what came of it to exit codes. Whatever needs torch is imported by the command that needs it,
so that help is there at once.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from benchmarks.base.errors import BenchmarkError

if TYPE_CHECKING:
    from benchmarks.scheduling.outcome import Outcome

T = TypeVar("T")
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DONE, FAILED, BAD_INPUT, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
_STARTED = time.monotonic()  # before torch is imported: a budget is of the whole command
_CODES = {"done": DONE, "failed": FAILED, "broken": BAD_INPUT, "stopped": STOPPED, "interrupted": INTERRUPTED}
_THEORY = ("study", "results", "output", "data_dir", "device", "threads")  # what means something to those studies

_ABOUT = "Compares optimizers: run a study, report what came out. docs/benchmark.md says how; begin with `new`."
_EPILOG = (
    f"exit codes: {DONE} done, {FAILED} a run failed, {BAD_INPUT} bad input, {STOPPED} stopped by the time budget "
    f"or left to another process, {INTERRUPTED} interrupted; after the last two the same command goes on from there"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ and options.command is not _run:
            raise BenchmarkError("torchrun is for `run` alone: call this command by `python -m benchmarks`")
        code: int = options.command(options)
        return code
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=_ABOUT, epilog=_EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="studies, workloads and optimizers")
    command.set_defaults(command=_list)
    for add in (_add_writing, _add_run, _add_reading, _add_speed):
        add(commands)
    return parser


def _add_writing(commands: Commands) -> None:
    """What writes or describes a study file."""
    command = commands.add_parser("new", help="write a commented study that runs as it is, to be changed")
    command.set_defaults(command=_new)
    command.add_argument("name", help="of the study; without --path it goes into NAME.toml")
    command.add_argument("--tuned", action="store_true", help="choose each optimizer's settings among trials first")
    command.add_argument("--path", type=Path, metavar="FILE.toml", help="where it goes")

    command = commands.add_parser("schema", help="print the JSON Schema of study files, for editors")
    command.set_defaults(command=_schema)


def _add_run(commands: Commands) -> None:
    """What makes runs."""
    command = commands.add_parser("run", help="run what is missing of a study, then report", epilog=_EPILOG)
    command.set_defaults(command=_run)
    command.add_argument("study", help="a name of `list`, or the path of a .toml file")
    command.add_argument(
        "--only", action="append", default=[], metavar="GLOB", help="runs of this label, optimizer or workload"
    )
    command.add_argument("--seeds", type=_seeds, metavar="N|A,B,…", help="how many seeds, or which; a lone one: 'A,'")
    command.add_argument("--device", type=_list_of(str), metavar="D,…", help="e.g. cpu, cuda, cuda:0,cuda:1")
    command.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="data sets (data/)")
    command.add_argument("--time-budget", type=_positive, metavar="SECONDS", help="stop, resumably, after so long")
    command.add_argument("--whole", action="store_true", help="begin no run that would not end within the time budget")
    command.add_argument("--jobs-per-device", type=_count, default=1, metavar="K", help="runs side by side (1)")
    command.add_argument("--threads", type=_count, metavar="N", help="CPU threads of each run")
    command.add_argument("--ray", nargs="?", const="local", metavar="ADDRESS", help="spread over a Ray cluster")
    command.add_argument("--dry-run", action="store_true", help="say what would run, and for how long")
    command.add_argument("--no-report", action="store_true", help="run, and leave the report to another time")
    command.add_argument("--force", action="store_true", help="run again what is done, from the beginning")
    command.add_argument(
        "--fresh", action="store_true", help="run again what other code, torch or device has done, and keep both"
    )
    _add_places(command)


def _add_reading(commands: Commands) -> None:
    """What reads finished runs."""
    command = commands.add_parser("report", help="tables, figures and a page of finished runs")
    command.set_defaults(command=_report)
    command.add_argument("studies", nargs="+", metavar="study", help="names of `list`, or paths of .toml files")
    command.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="two versions of the code instead: starts of commits or sources"
    )
    command.add_argument(
        "--watch",
        nargs="?",
        type=_count,
        const=10,
        metavar="SECONDS",
        help="write it anew whenever the store has changed (10), until no run is missing; the page refreshes itself",
    )
    _add_places(command)

    command = commands.add_parser("seeds", help="how many seeds a study needs to find a difference")
    command.set_defaults(command=_seeds_needed)
    command.add_argument("study", help="a name of `list`, or the path of a .toml file")
    command.add_argument("--difference", type=_positive, required=True, metavar="D", help="of final scores")
    command.add_argument("--sd", type=_positive, metavar="S", help="over seeds (that of finished runs)")
    command.add_argument("--results", type=Path, default=Path("runs"), metavar="DIR", help="the results store (runs/)")

    command = commands.add_parser("pack", help="write the finished runs of a store into one file")
    command.set_defaults(command=_pack)
    command.add_argument("store", type=Path, help="the results store")
    command.add_argument("archive", type=Path, metavar="FILE.tar.xz", help="where they go")

    command = commands.add_parser("unpack", help="put the runs of such a file into a store")
    command.set_defaults(command=_unpack)
    command.add_argument("archive", type=Path, metavar="FILE.tar.xz", help="what `pack` wrote")
    command.add_argument("store", type=Path, help="the results store")


def _add_speed(commands: Commands) -> None:
    """What measures time."""
    command = commands.add_parser("steptime", help="how long a step of each member takes, beside torch.optim's")
    command.set_defaults(command=_steptime)
    _add_measuring(command)
    command.add_argument("--lists", type=_list_of(str), metavar="L,…", help="of tensors (all)")
    command.add_argument("--members", type=_list_of(str), metavar="M,…", help="as `list` names them (all)")
    command.add_argument("--rounds", type=_count, default=20, metavar="N", help="how often each is timed (20)")

    command = commands.add_parser("kernels", help="whether every member's kernels are right and near the bandwidth")
    command.set_defaults(command=_kernels)
    _add_measuring(command)
    command.add_argument("--members", type=_list_of(str), metavar="M,…", help="as `list` names them (all)")
    command.add_argument("--rounds", type=_count, default=5, metavar="N", help="how often each is timed (5)")

    command = commands.add_parser("profile", help="how long an epoch takes, in every mode, 1 to 4 runs side by side")
    command.set_defaults(command=_profile)
    _add_measuring(command)
    command.add_argument(
        "--workloads",
        type=_list_of(str),
        metavar="W,…",
        help="as `list` names them (the paper's three networks on CIFAR-10)",
    )
    command.add_argument("--modes", type=_list_of(str), metavar="M,…", help="(all that the device has)")
    command.add_argument("--jobs", type=_list_of(_count), default=[1, 3, 6], metavar="K,…", help="side by side (1,3,6)")
    command.add_argument("--steps", type=_count, default=100, metavar="N", help="timed steps of each run (100)")
    command.add_argument("--optimizer", default="padam", metavar="O", help="as `list` names it (padam)")
    command.add_argument("--batch-size", type=_count, default=128, metavar="B", help="(128)")
    command.add_argument("--width", type=_positive, default=1.0, metavar="F", help="factor on all channels (1)")
    command.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="data sets (data/)")


def _add_measuring(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", type=_list_of(str), metavar="D", help="cpu, cuda or cuda:N")
    command.add_argument("--threads", type=_count, metavar="N", help="CPU threads")
    command.add_argument("--output", type=_markdown, metavar="FILE.md", help="the tables; JSON goes beside it")


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument("--results", type=Path, default=Path("runs"), metavar="DIR", help="the results store (runs/)")
    command.add_argument("--output", type=Path, metavar="DIR", help="where the report goes (report/ in the store)")


def _list(options: argparse.Namespace) -> int:
    from benchmarks import studies, theory, workloads
    from benchmarks.base import references
    from benchmarks.training import catalogue

    for title, own, group in (
        ("studies", studies.titles() | theory.TITLES, ""),
        ("workloads", {name: one.description for name, one in workloads.REGISTRY.items()}, references.WORKLOADS),
        ("optimizers", {name: one.title for name, one in catalogue.REGISTRY.items()}, references.OPTIMIZERS),
        ("schedules", dict[str, str](), references.SCHEDULES),  # of others alone: the kinds are in the manual
    ):
        known = references.Catalogue(title, {name: references.Item("", text) for name, text in own.items()}, group)
        if known:
            print(f"{title}:")
        for name, item in known.items():
            print(f"  {name:24} {item.title}")
    return DONE


def _new(options: argparse.Namespace) -> int:
    from benchmarks.studies import template

    path = template.write(options.name, tuned=options.tuned, path=options.path)
    print(f"{path} is written; run it: python -m benchmarks run {shlex.quote(str(path))}")
    return DONE


def _schema(options: argparse.Namespace) -> int:
    from benchmarks.studies import schema

    print(schema.json_schema(), end="")
    return DONE


def _run(options: argparse.Namespace) -> int:
    from benchmarks import theory

    if options.study in theory.TITLES:
        from benchmarks.theory import command

        _refuse(options, theory.WITH_DATA)
        places = {"data_dir": options.data_dir, "threads": options.threads}
        command.run(options.study, options.results, options.output, **places)
        return DONE

    from benchmarks import session
    from benchmarks.base import distributed
    from benchmarks.scheduling.settings import Settings, devices

    settings = Settings(
        data_dir=options.data_dir,
        devices=devices(options.device),
        jobs=options.jobs_per_device,
        threads=options.threads,
        budget=options.time_budget and max(1e-3, options.time_budget - (time.monotonic() - _STARTED)),
        whole=options.whole,
        ray=options.ray,
    )
    asked = {key: getattr(options, key) for key in ("seeds", "only", "force", "fresh")}
    if options.dry_run:
        for line in session.survey(options.study, options.results, settings=settings, **asked).lines():
            print(line)
        return DONE
    outcome = session.run(options.study, options.results, settings=settings, **asked)
    if distributed.first():
        _say(outcome)
        if outcome.status not in ("interrupted", "broken") and not options.no_report:
            _write_report([options.study], options)
    return _CODES[outcome.status]


def _refuse(options: argparse.Namespace, with_data: Sequence[str]) -> None:
    """Raise an error for an option of `run` that means nothing to a study of the theory."""
    name = options.study
    defaults = vars(_parser().parse_args(["run", name]))
    for option, value in vars(options).items():
        means = option in _THEORY and (option != "data_dir" or name in with_data)
        if not means and value != defaults[option]:
            said = f"--{option.replace('_', '-')}"
            raise BenchmarkError(f"{said} means nothing to {name}: it is one short run on fixed data, always done anew")
    if options.device not in (None, ["cpu"]):
        raise BenchmarkError(f"--device {','.join(options.device)}: {name} runs on the CPU; give cpu or nothing")


def _say(outcome: "Outcome") -> None:
    """Say how the runs ended."""
    for label, trace in outcome.failed.items():
        print(f"\n{label} failed:{' ' if chr(10) not in trace else chr(10)}{trace}", file=sys.stderr)
    for label, holder in outcome.others.items():
        print(f"{label} is left to another run command: {holder}")
    if outcome.fatal is not None:
        print(f"error: {outcome.fatal}", file=sys.stderr)
    if outcome.left:
        why = {"interrupted": "interrupted", "broken": "ended"}.get(outcome.status)
        why = why or ("nothing more to do here" if outcome.left == len(outcome.others) else "time budget spent")
        done = len(outcome.finished)
        print(f"{why}: {done} runs finished, {outcome.left} left; the same command goes on from here")


def _report(options: argparse.Namespace) -> int:
    from benchmarks import theory

    trained = [name for name in options.studies if name not in theory.TITLES]
    for name in options.studies:
        if name in theory.TITLES:
            from benchmarks.theory import command

            command.report(name, options.results, options.output)
    if options.compare is not None:
        from benchmarks import session

        for name in trained:
            for table in session.compare(name, options.results, *options.compare):
                print(table.markdown())
    elif trained and options.watch is not None:
        from benchmarks import session

        session.watch(trained, options.results, options.output, options.watch)
    elif trained:
        _write_report(trained, options)
    return DONE


def _seeds_needed(options: argparse.Namespace) -> int:
    from benchmarks import session

    for line in session.seeds(options.study, options.results, options.difference, options.sd):
        print(line)
    return DONE


def _pack(options: argparse.Namespace) -> int:
    from benchmarks import session

    print(f"{session.pack(options.store, options.archive)} runs are in {options.archive}")
    return DONE


def _unpack(options: argparse.Namespace) -> int:
    from benchmarks import session

    print(f"{session.unpack(options.archive, options.store)} runs are new in {options.store}")
    return DONE


def _write_report(studies: Sequence[str], options: argparse.Namespace) -> None:
    """Write the report, print its main tables and the page's path; without the packages it needs, say so."""
    from benchmarks import session

    try:
        path, tables = session.report(studies, options.results, options.output)
    except ImportError as error:
        print(f"no report: {error}; pip install 'partial-adaptive[bench]'", file=sys.stderr)
        return
    for table in tables:
        if table.headline:
            print(f"\n{table.markdown()}")
    print(f"report: {path.resolve()}")


def _steptime(options: argparse.Namespace) -> int:
    from benchmarks.scheduling.settings import one_device
    from benchmarks.speed import steptime

    device = one_device(options.device, options.threads)
    steptime.run(device, options.lists, options.members, options.rounds, options.output)
    return DONE


def _kernels(options: argparse.Namespace) -> int:
    from benchmarks.scheduling.settings import one_device
    from benchmarks.speed import kernels

    device = one_device(options.device, options.threads)
    wrong = kernels.run(device, options.members, options.rounds, options.output)
    if wrong:
        print(f"wrong kernels: {', '.join(wrong)}", file=sys.stderr)
    return FAILED if wrong else DONE


def _profile(options: argparse.Namespace) -> int:
    from benchmarks.scheduling.settings import one_device
    from benchmarks.speed import profile

    device = one_device(options.device)
    configs = [
        profile.configure(name, options.optimizer, options.batch_size, options.width)
        for name in options.workloads or profile.WORKLOADS
    ]
    profile.run(
        device,
        configs,
        options.modes,
        options.jobs,
        options.data_dir,
        options.steps,
        options.threads,
        options.output,
    )
    return DONE


def _seeds(text: str) -> tuple[int, ...]:
    from benchmarks.studies.study import StudyError, seeds

    try:
        values = [int(part) for part in text.split(",") if part]
        return seeds(values if "," in text else values[0])
    except (StudyError, ValueError, IndexError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a count of at least 1 nor a list like 0,3,5") from error


def _list_of(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Reads values separated by commas."""

    def read(text: str) -> list[T]:
        return [kind(part) for part in text.split(",")]

    return read


def _markdown(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".md":
        raise argparse.ArgumentTypeError(f"must end in .md, got {text!r}")
    return path


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
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value
