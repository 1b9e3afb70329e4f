"""One [[runs]] entry of a study and the arms it stands for: the product of its axes."""

import itertools
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, get_args

from benchmarks import workloads
from benchmarks.base.config import Precision, RunConfig, Split
from benchmarks.base.errors import nearest
from benchmarks.studies import spaces
from benchmarks.studies.study import Arm, StudyError, Tuning
from benchmarks.training import optimizers

Types = Mapping[str, tuple[type, ...]]

_FIELDS: Types = {
    "workload": (str,),
    "optimizer": (str,),
    "preset": (str,),
    "epochs": (int,),
    "batch_size": (int,),
    "milestones": (list,),
    "gamma": (int, float),
    "precision": (str,),
    "split": (str,),
    "recalibrate": (int,),
    "max_steps": (int,),
    "workload_options": (dict,),
}
_KEYS: Types = {**dict.fromkeys(_FIELDS, (object,)), "label": (str,), "title": (str,), "hyper": (dict,)}
_LISTS = ("betas", "milestones")
_SUBJECTS = ("workload", "optimizer")  # what is compared, not a setting of it; named in an arm's label anyway
# Training examples, for a weight decay that is defined by them.
_EXAMPLES = {"cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167}


def check_types(data: Mapping[str, Any], types: Types, what: str) -> None:
    """Raise `StudyError` for a key that `types` does not have, or a value of another type."""
    for key, value in data.items():
        if key not in types:
            raise StudyError(f"unknown {what} {key!r}{nearest(key, types)}")
        if not isinstance(value, types[key]) or (isinstance(value, bool) and object not in types[key]):
            allowed = " or ".join(kind.__name__ for kind in types[key])
            raise StudyError(f"{key} must be {allowed}, got {value!r}")


def expand(entry: Mapping[str, Any], shared: Mapping[str, Any], tuning: Tuning | None) -> list[Arm]:
    """The arms of one entry, `shared` being what it does not say itself.

    With `tuning` each workload and optimizer of the entry gets as many as there are trials.
    """
    for source in (shared, entry):
        check_types(source, _KEYS, "key of a run")
    fields = {**shared, **entry}
    hyper = {**shared.get("hyper", {}), **entry.get("hyper", {})}
    label, title = fields.pop("label", None), fields.pop("title", None)
    fields.pop("hyper", None)
    subjects = {key: value for key, value in fields.items() if key in _SUBJECTS and isinstance(value, list)}
    axes = {
        (prefix, key): axis
        for prefix, source in (("", fields), ("hyper.", hyper))
        for key, value in source.items()
        if key not in _SUBJECTS and (axis := _axis(key, value)) is not None
    }
    for key, values in [*subjects.items(), *((key, axis) for (_, key), axis in axes.items())]:
        if isinstance(values, list) and not values:
            raise StudyError(f"{key} is an empty grid; give at least one value")
    names = {prefix + key: axis for (prefix, key), axis in axes.items()}
    settings = spaces.points(names, tuning, str(label or fields.get("optimizer")))
    arms = []
    for subject in itertools.product(*subjects.values()):
        fields.update(zip(subjects, subject, strict=True))
        for setting in settings:
            shown: dict[str, Any] = {}
            for (prefix, key), axis in axes.items():
                value = (hyper if prefix else fields)[key] = setting[prefix + key]
                if not isinstance(axis, list) or len(axis) > 1:
                    shown[key] = value
            arms.append(_arm(fields, hyper, label, title, shown, tuning))
    return arms


def _axis(key: str, value: Any) -> list[Any] | spaces.Range | spaces.Choices | None:
    """What a value ranges over, None for a single one."""
    if isinstance(value, list) and (key not in _LISTS or any(isinstance(item, list) for item in value)):
        return value
    return spaces.parse(value, key)


def _arm(
    fields: Mapping[str, Any],
    hyper: Mapping[str, Any],
    label: str | None,
    title: str | None,
    shown: Mapping[str, Any],
    tuning: Tuning | None,
) -> Arm:
    """The arm at one point of the grid."""
    if tuning is not None and "split" in fields:
        raise StudyError("split is set by [tuning]: validation for the trials, test for the chosen settings")
    config = _config({**fields, "split": "validation"} if tuning else fields, hyper)
    refit = _config({**fields, "split": "test"}, hyper) if tuning else None
    group = label or config.optimizer
    entry = title = title or optimizers.find(config.optimizer).title
    if shown:
        title += f" ({', '.join(_named(key, value) for key, value in shown.items())})"
    name = ",".join([group, *(f"{key}={_short(value)}" for key, value in shown.items())])
    return Arm(name, title, config, group, refit, shown, entry=entry)


def _short(value: Any) -> str:
    """A value as it stands in a label."""
    if isinstance(value, list):
        return "-".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _named(key: str, value: Any) -> str:
    """A setting as it stands in a title: exponents as the paper writes them, words without their key."""
    if key == "partial" and isinstance(value, (int, float)):
        return f"p = {Fraction(value).limit_denominator(64)}"
    return value if isinstance(value, str) else f"{key} = {_short(value)}"


def _config(fields: Mapping[str, Any], hyper: Mapping[str, Any]) -> RunConfig:
    """The run that one point of a grid stands for."""
    check_types(fields, _FIELDS, "key of a run")
    for key in ("workload", "optimizer", "epochs"):
        if key not in fields:
            raise StudyError(f"{key} is missing from a run")
    values = dict(fields)
    workload, optimizer, preset = values["workload"], values.pop("optimizer"), values.pop("preset", "default")
    try:
        dataset = workloads.find(workload, values.get("workload_options", {})).dataset
    except workloads.WorkloadError as error:
        raise StudyError(str(error)) from error
    for key, least in (("epochs", 1), ("batch_size", 1), ("recalibrate", 0), ("max_steps", 0)):
        if values.get(key, least) < least:
            raise StudyError(f"{key} must be at least {least}, got {values[key]}")
    if not 0 < values.get("gamma", 1) <= 1:
        raise StudyError(f"gamma must be in (0, 1], got {values['gamma']}")
    for key, kind in (("precision", Precision), ("split", Split)):
        if values.get(key, get_args(kind)[0]) not in get_args(kind):
            raise StudyError(f"{key} must be one of {', '.join(get_args(kind))}, got {values[key]!r}")
    milestones = values.get("milestones", [])
    if not all(isinstance(epoch, int) and epoch >= 1 for epoch in milestones) or milestones != sorted(set(milestones)):
        raise StudyError(f"milestones must be epochs in ascending order, got {milestones!r}")
    values["milestones"] = tuple(milestones)
    chosen = {**optimizers.PRESETS.get(preset, {}).get(optimizer, {}), **hyper}
    examples = _EXAMPLES.get(dataset, 0)
    if "normalized_weight_decay" in chosen and not examples:
        raise StudyError(f"normalized_weight_decay is not known for {workload!r}: give weight_decay")
    if values.get("split") == "validation":
        examples -= examples // 10
    batch_size = values.get("batch_size", RunConfig.batch_size)
    resolved = optimizers.resolve(
        optimizer, preset, hyper, batch_size=batch_size, examples=examples, epochs=values["epochs"]
    )
    return RunConfig(optimizer=optimizer, hyper=resolved, **values)
