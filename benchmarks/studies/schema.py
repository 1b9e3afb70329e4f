"""What a study file may say: its keys, what each takes, and where in the file a mistake is.

A study file is TOML. Its keys are the fields of `StudyFile`, all optional but `title` and something to run; `[run]` is
what all runs share, `[[runs]]` one or more runs each, `[[also]]` runs beside the inherited ones.

A list where one value is expected is an axis of a grid, and an entry stands for the product of its axes. `betas`,
`milestones` and `groups` are lists themselves, so that a grid of them is a list of lists. With [tuning] an axis of
`hyper` may be a range, `{ low = 1e-4, high = 1.0 }`, or `{ choices = [...] }`; see `benchmarks.studies.spaces`.

``python -m benchmarks schema`` prints all that as a JSON Schema, for editors.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from benchmarks.base.config import Precision, Split
from benchmarks.base.errors import nearest
from benchmarks.studies.study import MAX_SEEDS, StudyError

FILE = Path(__file__).with_name("schema.json")
"""The JSON Schema that editors read."""

DEEPEST = 16  # tables and lists in each other
_LONGEST = 80  # characters of a value in a message

T = TypeVar("T")
Listed: TypeAlias = T | Annotated[list[T], Meta(min_length=1)] | UnsetType  # a value, or the axis of a grid


class Space(Struct, forbid_unknown_fields=True, kw_only=True):
    """What [tuning] draws from: numbers from `low` to `high`, or `choices`; see `benchmarks.studies.spaces`."""

    low: Annotated[float | UnsetType, Meta(description="The smallest number.")] = UNSET
    high: Annotated[float | UnsetType, Meta(description="The largest number.")] = UNSET
    log: Annotated[bool | UnsetType, Meta(description="Even in the logarithm; so by default where low > 0.")] = UNSET
    whole: Annotated[bool, Meta(description="Whole numbers alone (false).")] = False
    step: Annotated[float, Meta(description="Distance between the numbers that count; 0: none (0).")] = 0
    choices: Annotated[list[Any] | UnsetType, Meta(description="Values of any kind, each as likely.")] = UNSET


Axis: TypeAlias = T | Annotated[list[T], Meta(min_length=1)] | Space | UnsetType


def _kind(allowed: str, **limits: Any) -> Meta:
    """A kind of value; `allowed` says in messages what it is."""
    return Meta(extra={"allowed": allowed}, **limits)


Text = Annotated[str, _kind("a text of at least one character", min_length=1)]
Count = Annotated[int, _kind("a whole number of at least 1", ge=1)]
Natural = Annotated[int, _kind("a whole number of at least 0", ge=0)]
Number = Annotated[float, _kind("a number")]
NotNegative = Annotated[float, _kind("a number of at least 0", ge=0)]
Factor = Annotated[float, _kind("a number in (0, 1]", gt=0, le=1)]
Share = Annotated[float, _kind("a number in [0, 1)", ge=0, lt=1)]
Reference = Annotated[
    str,  # `pattern` of a str beside a list of such corrupts memory (msgspec 0.22); references.load looks at the form
    _kind("'module:object'", min_length=3, extra_json_schema={"pattern": r"^[\w.]+:[\w.]+$"}),
]
Table = Annotated[dict[str, Any], _kind("a table")]
Figure = Literal[
    "train_loss",
    "online_loss",
    "error",
    "error_recalibrated",
    "error_ema",
    "top5_error",
    "distance",
    "effective_step",
    "map",
]
"""The quantities that a study can ask to be drawn over the epochs; ``map``: learning rate × p, by colour."""


class Run(Struct, forbid_unknown_fields=True, kw_only=True):
    """What `[run]` may say, and every entry of `[[runs]]` and `[[also]]`."""

    workload: Annotated[
        Listed[Text], Meta(description="A workload of `list`, or 'module:object'. A list: one run each.")
    ] = UNSET
    optimizer: Annotated[
        Listed[Text], Meta(description="An optimizer of `list`, or 'module:class'. A list: one run each.")
    ] = UNSET
    preset: Annotated[Axis[Text], Meta(description="Settings of the optimizer under `hyper`'s: default, paper, ….")] = (
        UNSET
    )
    hyper: Annotated[
        Table | UnsetType,
        Meta(
            description="The optimizer's keyword arguments. A list is an axis of a grid, of betas a list of lists; "
            "with [tuning] { low, high } is a range to draw from.",
            extra_json_schema={"examples": [{"lr": [0.01, 0.1], "betas": [0.9, 0.999]}]},
        ),
    ] = UNSET
    epochs: Annotated[Axis[Count], Meta(description="Number of epochs.")] = UNSET
    batch_size: Annotated[Axis[Count], Meta(description="Examples per step (128).")] = UNSET
    milestones: Annotated[
        list[Count | list[Count]] | UnsetType,
        Meta(description="Epochs, ascending, after which the learning rate is multiplied by gamma (none)."),
    ] = UNSET
    gamma: Annotated[Axis[Factor], Meta(description="Factor at the milestones (0.1).")] = UNSET
    schedules: Annotated[
        Table | UnsetType,
        Meta(
            description="How hyperparameters move from step to step, by name: a kind, or 'module:object', and its "
            "options. That of lr excludes milestones.",
            extra_json_schema={"examples": [{"lr": {"kind": "cosine", "warmup": 0.05}}]},
        ),
    ] = UNSET
    precision: Annotated[Axis[Precision], Meta(description="Arithmetic of forward and backward (fp32).")] = UNSET
    split: Annotated[
        Axis[Split],
        Meta(description="validation holds out the last tenth of the training set and is judged by that (test)."),
    ] = UNSET
    recalibrate: Annotated[
        Axis[Natural], Meta(description="Batches that re-estimate batch norm before the second test (60).")
    ] = UNSET
    max_steps: Annotated[
        Axis[Natural], Meta(description="Steps after which an epoch stops, for rehearsals; 0: all (0).")
    ] = UNSET
    model: Annotated[
        Listed[Reference],
        Meta(description="'module:object' that builds the model, called with workload_options."),
    ] = UNSET
    workload_options: Annotated[Listed[Table], Meta(description="Keyword arguments of the model's builder.")] = UNSET
    data: Annotated[
        Listed[Reference],
        Meta(
            description="'module:object' that gives the data, called with data_options: x_train, y_train, x_test, "
            "y_test."
        ),
    ] = UNSET
    data_options: Annotated[Listed[Table], Meta(description="Keyword arguments of data.")] = UNSET
    clip_norm: Annotated[
        Axis[NotNegative],
        Meta(description="Norm of all gradients together above which they are scaled down to it; 0: none (0)."),
    ] = UNSET
    label_smoothing: Annotated[Axis[Share], Meta(description="Share of the target spread over the classes (0).")] = (
        UNSET
    )
    ema: Annotated[
        Axis[Share],
        Meta(description="Decay per step of an average of the weights that is tested as well; 0: none (0)."),
    ] = UNSET
    groups: Annotated[
        list[Table | list[Table]] | UnsetType,
        Meta(description="Parameter groups: what each takes and its own hyperparameters. No list is an axis inside."),
    ] = UNSET


class Entry(Run, forbid_unknown_fields=True, kw_only=True):
    """One or more runs: any key of `[run]`, and names."""

    label: Annotated[Text | UnsetType, Meta(description="Name in the study (the optimizer's).")] = UNSET
    title: Annotated[Text | UnsetType, Meta(description="Name in tables and figures (the optimizer's).")] = UNSET


class TuningTable(Struct, forbid_unknown_fields=True, kw_only=True):
    """How settings are chosen: trials are judged on the validation split, the best is trained on everything."""

    trials: Annotated[Count, Meta(description="Settings tried for each entry, drawn from its grid or ranges.")]
    seed: Annotated[Natural, Meta(description="Seed of the draw and of the trials (0).")] = 0
    seeds: Annotated[
        Annotated[int, _kind(f"a whole number from 1 to {MAX_SEEDS:,}", ge=1, le=MAX_SEEDS)],
        Meta(description="Runs of each trial, with consecutive seeds (1)."),
    ] = 1
    apart: Annotated[bool, Meta(description="Keep the seeds of the trials apart from the study's (false).")] = False


class StudyFile(Struct, forbid_unknown_fields=True, kw_only=True):
    """A study of the benchmark: which optimizers are compared on what, with which settings and seeds."""

    title: Annotated[Text | UnsetType, Meta(description="Heading of the report. Required.")] = UNSET
    description: Annotated[str, Meta(description="What is asked, in a sentence or two.")] = ""
    extends: Annotated[
        Text | UnsetType,
        Meta(description="Another study whose keys are inherited, [run], hyper and schedules key by key."),
    ] = UNSET
    seeds: Annotated[
        Annotated[
            Annotated[int, Meta(ge=1, le=MAX_SEEDS)] | Annotated[list[Natural], Meta(min_length=1)],
            _kind(f"a count from 1 to {MAX_SEEDS:,} or a list of different whole numbers of at least 0"),
        ],
        Meta(description="A count, or a list of seeds (1)."),
    ] = 1
    reference: Annotated[Text | UnsetType, Meta(description="Label of the run that the others are tested against.")] = (
        UNSET
    )
    target: Annotated[Number | UnsetType, Meta(description="Value of the metric for 'time to target'.")] = UNSET
    figures: Annotated[list[Figure], Meta(description="Rows of the figure.")] = []
    threads: Annotated[
        Count | UnsetType, Meta(description="CPU threads of each run, unless the command line says otherwise.")
    ] = UNSET
    run: Annotated[Run | UnsetType, Meta(description="What all runs share.")] = UNSET
    runs: Annotated[list[Entry], Meta(description="The runs; in place of inherited ones.")] = []
    also: Annotated[list[Entry], Meta(description="Runs beside the inherited ones.")] = []
    tuning: Annotated[TuningTable | UnsetType, Meta(description="Choose settings before they are compared.")] = UNSET


def json_schema() -> str:
    """The JSON Schema of a study file."""
    schema = msgspec.json.schema(StudyFile)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a study file, as messages name it: ``study mine.toml: [[runs]][3].hyper.lr``."""

    file: str
    path: tuple[str | int, ...] = ()

    def __truediv__(self, key: str | int) -> "Place":
        return Place(self.file, (*self.path, key))

    def __str__(self) -> str:
        text = ""
        for depth, key in enumerate(self.path):
            if isinstance(key, int):
                text += f"[{key}]"
                continue
            name = key if re.fullmatch(r"[\w-]+", key) else json.dumps(key, ensure_ascii=False)
            if depth == 0 and name in ("runs", "also"):
                name = f"[[{name}]]"
            elif depth == 0 and name in ("run", "tuning"):
                name = f"[{name}]"
            text += f".{name}" if text else name
        return f"study {self.file}: {text}" if text else f"study {self.file}"

    def error(self, problem: str) -> StudyError:
        """The error to raise about what is here."""
        return StudyError(f"{self}: {' '.join(problem.split())}")

    def must(self, allowed: str, got: object) -> StudyError:
        """The error about a value that is not what is allowed here."""
        shown = repr(got)
        return self.error(f"must be {allowed}, got {shown if len(shown) <= _LONGEST else shown[:_LONGEST] + '…'}")


def check(data: Mapping[str, Any], file: str) -> None:
    """Raise `StudyError` unless these are keys and values of a study file, alone or to be inherited by another.

    Args:
        data: what `tomllib` made of the file.
        file: its name, for messages.
    """
    top = Place(file)
    _check_plain(data, top)
    try:
        msgspec.convert(data, StudyFile)
    except msgspec.ValidationError as error:
        raise _explained(str(error), data, top) from error
    seeds = data.get("seeds", 1)
    if isinstance(seeds, list) and len(set(seeds)) < len(seeds):
        raise (top / "seeds").must("a count or a list of different whole numbers", seeds)
    for name in ("runs", "also"):
        for i, entry in enumerate(data.get(name, [])):
            _check_run(entry, top / name / i)
    _check_run(data.get("run", {}), top / "run")


def _check_plain(value: object, place: Place) -> None:
    """Numbers that are numbers, and nothing that JSON does not know; TOML has nan, infinity and dates."""
    if len(place.path) > DEEPEST:
        raise Place(place.file, place.path[:DEEPEST]).error("is nested too deep")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(item, place / key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_plain(item, place / i)
    elif isinstance(value, float) and not math.isfinite(value):
        raise place.must(_finite(place.path), value)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise place.must("a whole number of at most 64 bits", value)
    elif not isinstance(value, str | int | float):
        raise place.must("a text, a number, true, false, a list or a table", value)


def _finite(path: tuple[str | int, ...]) -> str:
    """What stands for nan and infinity."""
    found = "a finite number" if path[-2:-1] == ("hyper",) and path[-1] != "lr" else _allowed(path)
    return found if "number" in found else "a finite number"


def _check_run(run: Mapping[str, Any], place: Place) -> None:
    """What msgspec does not see: the order of milestones, and tables whose keys it does not know."""
    milestones = run.get("milestones", [])
    for epochs in milestones if any(isinstance(item, list) for item in milestones) else [milestones]:
        if isinstance(epochs, int) or epochs != sorted(set(epochs)):
            raise (place / "milestones").must("epochs in ascending order, or a list of such lists", milestones)
    for key, value in run.get("hyper", {}).items():
        if value == []:
            raise (place / "hyper" / key).error("is an empty grid; give at least one value")
        for number in value if isinstance(value, list) and key == "lr" else [value]:
            bad = isinstance(number, bool | str | list) or (isinstance(number, int | float) and number < 0)
            if key == "lr" and bad:
                raise (place / "hyper" / key).must(_allowed(("hyper", "lr")), number)
    for key, value in run.get("schedules", {}).items():
        axis = isinstance(value, list)
        if value == []:
            raise (place / "schedules" / key).error("is an empty grid; give at least one value")
        for i, schedule in enumerate(value if axis else [value]):
            where = place / "schedules" / key / i if axis else place / "schedules" / key
            if not isinstance(schedule, Mapping):
                raise where.must("a table such as { kind = 'cosine' }", schedule)
            if not isinstance(schedule.get("kind"), str):
                raise (where / "kind").must("the name of a schedule or 'module:object'", schedule.get("kind"))


def check_drawn(key: str, value: Any, place: Place) -> None:
    """Raise `StudyError` unless a value that was drawn is one that a key of a run can have."""
    try:
        msgspec.convert({key: value}, Run)
    except msgspec.ValidationError as error:
        raise place.must(_allowed(("run", key)), value) from error


def _explained(message: str, data: Mapping[str, Any], top: Place) -> StudyError:
    """The message of msgspec in the words of a study file."""
    problem, where = message.rsplit(" - at `$", 1) if " - at `$" in message else (message, "")
    place = top
    value: Any = data
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", where):
        key = name or int(index)
        place, value = place / key, value[key]
    if unknown := re.match(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        known = [field.name for field in msgspec.structs.fields(_struct(place.path))]
        return (place / unknown[1]).error(f"unknown key{nearest(unknown[1], known)}")
    if missing := re.match(r"Object missing required field `(\w+)`", problem):
        return (place / missing[1]).error("is missing")
    if value == []:
        return place.error("is empty; give at least one value")
    return place.must(_allowed(place.path), value)


def _struct(path: tuple[str | int, ...]) -> type[Struct]:
    """The keys that a table at this place has."""
    tables: dict[str, type[Struct]] = {"run": Run, "runs": Entry, "also": Entry, "tuning": TuningTable}
    return tables[str(path[0])] if path else StudyFile


def _allowed(path: tuple[str | int, ...]) -> str:
    """What a value at this place has to be, in words."""
    if ("hyper", "lr") in (path[-2:], path[-3:-1]):
        return "a number of at least 0"
    found: msgspec.inspect.Type = msgspec.inspect.type_info(StudyFile)
    for key in path:
        inner = next(filter(None, (_inside(one, key) for one in _members(found))), None)
        if inner is None:  # in a table whose keys are open, or where nothing can be
            return "a finite number"
        found = inner
    return _words(found)


def _inside(kind: msgspec.inspect.Type, key: str | int) -> msgspec.inspect.Type | None:
    """The type of an item of a list or of a field of a table; None for anything else."""
    if isinstance(kind, msgspec.inspect.ListType) and isinstance(key, int):
        return kind.item_type
    fields = kind.fields if isinstance(kind, msgspec.inspect.StructType) else ()
    return next((field.type for field in fields if field.name == key), None)


def _members(kind: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    """The types that a type consists of."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _members(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [member for one in kind.types for member in _members(one)]
    return [kind]


def _words(kind: msgspec.inspect.Type) -> str:
    """A type in words."""
    match kind:
        case msgspec.inspect.Metadata(type=inner, extra=extra):
            return str(extra["allowed"]) if extra else _words(inner)
        case msgspec.inspect.UnionType(types=types):
            single = [
                _words(one) for one in types if not (_is_list(one) or isinstance(one, msgspec.inspect.StructType))
            ]
            lists = [_words(one) for one in types if _is_list(one)]
            axis = ["a list of such (a grid)"] if lists and single else lists
            return " or ".join([*single, *axis])
        case msgspec.inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case msgspec.inspect.ListType(item_type=item):
            return f"a list whose items are {_words(item)}"
        case msgspec.inspect.StructType():
            return "a table"
        case msgspec.inspect.BoolType():
            return "true or false"
        case _:
            return "a text"


def _is_list(kind: msgspec.inspect.Type) -> bool:
    return all(isinstance(one, msgspec.inspect.ListType) for one in _members(kind))
