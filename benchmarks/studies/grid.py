"""One [[runs]] entry of a study and the arms it stands for: the product of its axes."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import workloads
from benchmarks.base import references
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.numbers import is_number
from benchmarks.base.references import is_reference
from benchmarks.studies import foreign, schema, spaces
from benchmarks.studies.schema import Place
from benchmarks.studies.study import Arm, StudyError, Tuning
from benchmarks.training import catalogue, optimizers, settings
from benchmarks.training.optimizers import OptimizerError
from benchmarks.workloads import sources

T = TypeVar("T")
Names = tuple[str, ...]  # the keys that lead to a value
Axis = list[Any] | spaces.Range | spaces.Choices

MOST = 100_000
"""Points that the grid of an entry may have."""

_SINGLE = ("workload", "optimizer", "model", "data", "workload_options", "data_options", "groups", "schedules")
_LISTS = ("betas", "milestones", "groups")
_SUBJECTS = ("workload", "optimizer")  # what is compared, not a setting of it; named in an arm's label anyway
_MERGED = ("hyper", "schedules")  # inherited key by key; their values may be axes
_ENGINE = ("maximize", "differentiable", "capturable")  # the engine minimizes, and says itself when it captures
_FLOATS = ("clip_norm", "label_smoothing", "ema")  # 1 and 1.0 are one setting
_OF_WORKLOAD = ("workload", "model", "workload_options", "data", "data_options")


@dataclasses.dataclass(frozen=True)
class Source:
    """An entry of a study with what it inherits.

    Args:
        entry: what it says itself.
        place: where.
        shared: the `[run]` tables of the study and of those that it extends, the nearest first.
        folders: where modules are looked for besides the installed ones.
    """

    entry: Mapping[str, Any]
    place: Place
    shared: Sequence[tuple[Mapping[str, Any], Place]] = ()
    folders: Sequence[Path] = ()

    def fields(self) -> dict[str, Any]:
        """All it says and inherits, what is said nearest winning."""
        found: dict[str, Any] = {}
        for table, _ in reversed(self._layers()):
            merged = {key: {**found.get(key, {}), **table[key]} for key in _MERGED if key in table}
            found = {**found, **table, **merged}
        return found

    def where(self, *path: str) -> Place:
        """The place that sets the key of this path: the nearest that has it, else that where it is missing."""
        for table, place in self._layers():
            value: Any = table
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return Place(place.file, (*place.path, *path))
        return Place(self.place.file, (*self.place.path, *path))

    def _layers(self) -> list[tuple[Mapping[str, Any], Place]]:
        return [(self.entry, self.place), *self.shared]


def expand(source: Source, tuning: Tuning | None) -> list[Arm]:
    """The arms of one entry.

    With `tuning` each workload and optimizer of the entry gets as many as there are trials.

    Raises:
        StudyError: what it says does not make a run; the message says where that is in the file.
    """
    fields = source.fields()
    for key in ("workload", "optimizer", "epochs"):
        if key not in fields:
            raise source.where(key).error("is missing")
    if tuning is not None and "split" in fields:
        raise source.where("split").error("is set by [tuning]: validation for trials, test for the chosen settings")
    for key in _ENGINE:
        if key in fields.get("hyper", {}):
            raise source.where("hyper", key).error("is not for a study to set: the engine does")
    axes = {path: axis for path, value in _values(fields) if (axis := _axis(path, value, source)) is not None}
    subjects = {path: axis for path, axis in axes.items() if path[-1] in _SUBJECTS and isinstance(axis, list)}
    axes = {path: axis for path, axis in axes.items() if path not in subjects}
    settings = _points(axes, tuning, source, str(fields.get("label", fields["optimizer"])))
    varied = [path for path, axis in axes.items() if not isinstance(axis, list) or len(axis) > 1]
    make = _Maker(source, tuning)
    arms = []
    for subject in itertools.product(*subjects.values()):
        if _missing({**fields, **{path[-1]: value for path, value in zip(subjects, subject, strict=True)}}):
            continue
        for setting in settings:
            values = {**dict(zip(subjects, subject, strict=True)), **setting}
            arms.append(make.arm(_placed(fields, values), {path: setting[path] for path in varied}))
    return arms


def left_out(source: Source) -> list[str]:
    """Why this torch cannot build some of an entry's optimizers, which have no arms then."""
    names = source.fields().get("optimizer")
    reasons = [_missing({"optimizer": name}) for name in (names if isinstance(names, list) else [names])]
    return [reason for reason in reasons if reason]


def _missing(fields: Mapping[str, Any]) -> str:
    entry = catalogue.REGISTRY.get(str(fields.get("optimizer")))
    return entry.missing if entry is not None else ""


def _values(fields: Mapping[str, Any]) -> list[tuple[Names, Any]]:
    """The values of an entry with their paths; those of the tables that are merged, one by one, come last."""
    single = [((key,), value) for key, value in fields.items() if key not in _MERGED]
    return single + [((table, key), value) for table in _MERGED for key, value in fields.get(table, {}).items()]


def _placed(fields: Mapping[str, Any], values: Mapping[Names, Any]) -> dict[str, Any]:
    """The fields with a value at each of the paths."""
    placed = {key: dict(value) if key in _MERGED else value for key, value in fields.items()}
    for path, value in values.items():
        table = placed[path[0]] if len(path) > 1 else placed
        table[path[-1]] = value
    return placed


def _axis(path: Names, value: Any, source: Source) -> Axis | None:
    """What a value ranges over, None for a single one."""
    if isinstance(value, list) and (path[-1] not in _LISTS or any(isinstance(item, list) for item in value)):
        return value
    if path[0] in _SINGLE:
        return None
    try:
        space = spaces.parse(value, path[-1])
    except StudyError as error:
        raise source.where(*path).error(str(error).removeprefix(f"{path[-1]}: ")) from error
    if space is None and isinstance(value, Mapping) and path[0] != "hyper":
        raise source.where(*path).error(f"needs low and high, or choices, got {value!r}")
    return space


def _points(axes: Mapping[Names, Axis], tuning: Tuning | None, source: Source, label: str) -> list[dict[Names, Any]]:
    """The points of the grid, or of the trials."""
    count = math.prod(len(axis) for axis in axes.values() if isinstance(axis, list))
    if count > MOST:
        raise source.place.error(f"its grid has {count:,} points, of at most {MOST:,}")
    named = {".".join(path): axis for path, axis in axes.items()}
    try:
        points = spaces.points(named, tuning, label)
    except StudyError as error:
        raise source.place.error(str(error)) from error
    for path, axis in axes.items():
        if len(path) == 1 and not isinstance(axis, list):
            for point in points:
                schema.check_drawn(path[0], point[path[0]], source.where(*path))
    return [dict(zip(axes, point.values(), strict=True)) for point in points]


class _Maker:
    """Makes the arms of an entry; what does not change from point to point is looked at once."""

    def __init__(self, source: Source, tuning: Tuning | None) -> None:
        self.source = source
        self.tuning = tuning
        self._known: dict[str, Any] = {}
        self._tried: set[str] = set()

    def arm(self, fields: dict[str, Any], shown: Mapping[Names, Any]) -> Arm:
        """The arm at one point of the grid."""
        label, title = fields.pop("label", None), fields.pop("title", None)
        optimizer = self._optimizer(fields["optimizer"])
        group = label or fields["optimizer"]
        entry = title or optimizer.title
        values = self._values(fields)
        hyper, preset = values.pop("hyper", {}), values.pop("preset", "default")
        splits = ("validation", "test") if self.tuning else (values.pop("split", "test"),)
        configs = []
        for split in splits:
            untried = self._untried((optimizer.name, preset, values), hyper)
            resolved = self._hyper(optimizer, preset, hyper, {**values, "split": split}, trusted=not untried)
            configs.append(RunConfig(**{**values, "optimizer": optimizer.name, "hyper": resolved, "split": split}))
            if untried:
                self._check(configs[-1])
                self._tried.update(untried)
        named = [_named(path, value) for path, value in shown.items()]
        return Arm(
            label=",".join([group, *(f"{_name(path)}={_short(value)}" for path, value in shown.items())]),
            title=f"{entry} ({', '.join(named)})" if named else entry,
            config=configs[0],
            group=group,
            refit=configs[1] if self.tuning else None,
            point={_name(path): value for path, value in shown.items()},
            entry=entry,
        )

    def _untried(self, setting: tuple[str, str, Mapping[str, Any]], hyper: Mapping[str, Any]) -> set[str]:
        """What the optimizer has not yet been seen to take.

        Numbers do not restrict each other: each is tried once beside the same words and switches.
        """
        name, preset, values = setting
        numbers = {key: value for key, value in hyper.items() if _numeric(value)}
        others = {key: None if key in numbers else value for key, value in hyper.items()}
        beside = repr((name, preset, others, *(values.get(key) for key in ("schedules", "groups"))))
        return {beside, *(f"{beside} {key} {value!r}" for key, value in numbers.items())} - self._tried

    def _once(self, key: object, find: Callable[[], T]) -> T:
        """What `find` returns, asked once for each key."""
        text = repr(key)
        if text not in self._known:
            self._known[text] = find()
        found: T = self._known[text]
        return found

    def _optimizer(self, name: str) -> optimizers.Entry:
        """The optimizer that a study calls so."""

        def find() -> optimizers.Entry:
            if is_reference(name):
                found = foreign.load(name, self.source.folders, self.source.where("optimizer"))
                if not callable(found):
                    raise self.source.where("optimizer").must("the name of a class", found)
            try:
                return optimizers.find(name)
            except BenchmarkError as error:
                raise self.source.where("optimizer").error(str(error)) from error

        return self._once(("optimizer", name), find)

    def _values(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a configuration but for optimizer, hyperparameters and seed, once they fit each other."""
        values = {key: value for key, value in fields.items() if key != "optimizer"}
        values["milestones"] = tuple(values.get("milestones", ()))
        values["groups"] = tuple(values.get("groups", ()))
        values |= {key: float(values[key]) for key in _FLOATS if key in values}
        subject = {key: values[key] for key in _OF_WORKLOAD if key in values}
        values |= self._once(("workload", subject), lambda: self._workload(subject))
        if "schedules" in values:
            schedules = values["schedules"]
            values["schedules"] = self._once(("schedules", schedules), lambda: self._schedules(schedules))
            if values["milestones"] and "lr" in schedules:
                raise self.source.where("schedules", "lr").error("excludes milestones: remove one of them")
        return values

    def _workload(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that say what is learned, once they are known to do so."""
        where, folders = self.source.where, self.source.folders
        name, options = values["workload"], values.get("workload_options", {})
        reference = name if name in workloads.REGISTRY else foreign.reference(name, references.WORKLOADS)
        if is_reference(reference):
            foreign.load(reference, folders, where("workload"))
        for key, given in (("model", options), ("data", values.get("data_options", {}))):
            table = "workload_options" if key == "model" else f"{key}_options"
            if key in values:
                found = foreign.load(values[key], folders, where(key))
                foreign.check_call(values[key], found, given, where(table))
            elif key == "data" and given:
                generated = self._generated(reference)
                if not generated:
                    raise where(table).error("are options of data, which is missing")
                foreign.check_call(generated, references.load(generated), given, where(table))
        named = {**values, "workload": reference}
        options = {} if "model" in values else options
        tried: dict[Names, dict[str, Any]] = {("workload",): {}}
        tried |= {("workload_options", key): {key: value} for key, value in options.items()}
        for path, given in tried.items():
            config = RunConfig(**{**named, "workload_options": given, "optimizer": "", "hyper": {}, "epochs": 1})
            try:
                sources.source(workloads.of(config), config)
            except BenchmarkError as error:
                raise where(*path).error(str(error)) from error
        return named

    def _generated(self, workload: str) -> str:
        """The function that makes the data of a workload; empty where that has a data set, or is not known."""
        known = workload in workloads.REGISTRY or is_reference(workload)
        dataset = workloads.find(workload).dataset if known else ""
        return dataset if is_reference(dataset) else ""

    def _schedules(self, schedules: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The schedules, those of others by reference."""
        found = {}
        for name, schedule in schedules.items():
            kind = foreign.reference(schedule["kind"], references.SCHEDULES)
            if is_reference(kind):
                foreign.load(kind, self.source.folders, self.source.where("schedules", name, "kind"))
            found[name] = {**schedule, "kind": kind}
        return found

    def _hyper(
        self,
        optimizer: optimizers.Entry,
        preset: str,
        hyper: Mapping[str, Any],
        values: Mapping[str, Any],
        *,
        trusted: bool,
    ) -> dict[str, Any]:
        """The optimizer's keyword arguments, once they are known to build it."""
        where = self.source.where
        try:
            said = optimizers.preset_of(optimizer, preset)
        except OptimizerError as error:
            raise where("preset").error(str(error).removeprefix("preset ")) from error
        examples = (
            0 if {"data", "data_options"} & values.keys() else workloads.find(values["workload"]).train_examples or 0
        )
        if not examples and "normalized_weight_decay" in {**said, **hyper}:
            problem = f"is not known for {values['workload']!r}, whose size is not: give weight_decay"
            raise where("hyper", "normalized_weight_decay").error(problem)
        protocol = {
            "batch_size": values.get("batch_size", RunConfig.batch_size),
            "examples": examples - (examples // 10 if values["split"] == "validation" else 0),
            "epochs": values["epochs"],
        }

        def resolve(chosen: Mapping[str, Any]) -> dict[str, Any]:
            return optimizers.resolve(optimizer.name, preset, chosen, **protocol, trusted=trusted)

        try:
            return resolve(hyper)
        except Exception as error:  # whatever a constructor says to a value that it was not made for
            key = _culprit(resolve, hyper)
            place = where("hyper", key) if key else where("hyper")
            if isinstance(error, BenchmarkError):
                raise place.error(str(error)) from error
            got = repr(hyper[key] if key else hyper)
            raise place.error(f"{optimizer.name} does not take {got}: {error}") from error

    def _check(self, config: RunConfig) -> None:
        """Raise `StudyError` unless the settings go together, by the words of `benchmarks.training.settings`."""
        try:
            settings.check(config)
        except BenchmarkError as error:
            path, _, problem = str(error).partition(": ")
            names = re.findall(r"\w+", path) if re.fullmatch(r"(schedules|groups)[\w.\[\]]*", path) else []
            if names and names[0] == "groups":
                place = self.source.where("groups")
                for name in names[1:]:
                    place /= int(name) if name.isdigit() else name
                raise place.error(problem) from error
            place = self.source.where(*names) if names else self.source.place
            raise place.error(problem if names else str(error)) from error
        except Exception as error:  # as above
            raise self.source.place.error(f"its settings do not go together: {error}") from error


def _numeric(value: object) -> bool:
    """Whether a value is a number, or a list of numbers."""
    return all(map(_numeric, value)) if isinstance(value, list) else is_number(value)


def _culprit(resolve: Callable[[Mapping[str, Any]], object], hyper: Mapping[str, Any]) -> str | None:
    """The hyperparameter without which the others are fine, else one that is wrong alone."""

    def fails(chosen: Mapping[str, Any]) -> bool:
        try:
            resolve(chosen)
        except Exception:  # as above
            return True
        return False

    without = (key for key in hyper if not fails({name: hyper[name] for name in hyper if name != key}))
    alone = (key for key in hyper if fails({key: hyper[key]}))
    return next(itertools.chain(without, alone), None)


def _name(path: Names) -> str:
    """An axis as it stands in a label."""
    return f"{path[-1]}_schedule" if path[0] == "schedules" else path[-1]


def _short(value: Any) -> str:
    """A value as it stands in a label."""
    if isinstance(value, Mapping):
        return "-".join(_short(item) if key == "kind" else f"{key}={_short(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "-".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _named(path: Names, value: Any) -> str:
    """A setting as it stands in a title: exponents as the paper writes them, words without their key."""
    if path[-1] == "partial" and is_number(value):
        return f"p = {Fraction(value).limit_denominator(64)}"
    return value if isinstance(value, str) else f"{_name(path).replace('_', ' ')} = {_short(value)}"
