"""Studies as TOML files, beside this one or anywhere.

A study file has these keys, all optional but `title` and something to run:

    title, description      what is asked, for people
    extends                 another study, whose keys are inherited (`[run]` and `[run.hyper]` key by key)
    seeds                   a count, or a list of seeds
    reference               label of the run that the others are tested against
    target                  value of the workload's metric for "time to target"
    figures                 rows of the figure, keys of `benchmarks.report.quantities.QUANTITIES`
    threads                 CPU threads of each run, unless the command line says otherwise
    [run]                   what all runs share: `preset`, `hyper`, and the fields of `RunConfig`
    [[runs]]                one or more runs: `optimizer`, `label`, `title`, and any key of `[run]`
    [[also]]                runs beside the inherited ones; `[[runs]]` replaces those
    [tuning]                `trials` points are drawn from the space of each entry with `seed`, run with `seeds` seeds
                            each (other ones than the study's with `apart = true`) and judged on the validation split;
                            the best is then trained on the whole training set, once per seed

A list where one value is expected is an axis of a grid, and an entry stands for the product of its axes. `betas` and
`milestones` are lists themselves, so that a grid of them is a list of lists. With [tuning] an axis may be a range,
`{ low = 1e-4, high = 1.0 }`, or `{ choices = [...] }`; see `benchmarks.studies.spaces`.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.base.errors import nearest
from benchmarks.studies import grid
from benchmarks.studies.study import Study, StudyError, Tuning, seeds
from benchmarks.training import optimizers

DIRECTORY = Path(__file__).parent

_KEYS: grid.Types = {
    "title": (str,),
    "description": (str,),
    "extends": (str,),
    "seeds": (int, list),
    "reference": (str,),
    "target": (int, float),
    "figures": (list,),
    "threads": (int,),
    "run": (dict,),
    "runs": (list,),
    "also": (list,),
    "tuning": (dict,),
}


def names() -> list[str]:
    """The studies that come with the benchmark."""
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def titles() -> dict[str, str]:
    """Their titles by name, read without checking the rest of them."""
    return {name: tomllib.loads((DIRECTORY / f"{name}.toml").read_text())["title"] for name in names()}


def load(name: str) -> Study:
    """The study called `name`, or the one in the file of that path, which then ends in ``.toml``."""
    path = Path(name) if name.endswith(".toml") else DIRECTORY / f"{name}.toml"
    if not path.is_file():
        raise StudyError(f"unknown study {name!r}{nearest(name, names())} (or the path of a .toml file)")
    try:
        return _study(path.stem, _read(path))
    except (StudyError, optimizers.OptimizerError) as error:
        raise StudyError(f"study {path.stem}: {error}") from error


def _read(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a file, those it inherits included."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path.name} is not valid TOML: {error}") from error
    grid.check_types(data, _KEYS, "key")
    also = data.pop("also", [])
    if "extends" in data:
        parent = data.pop("extends")
        candidates = (path.parent / f"{parent}.toml", DIRECTORY / f"{parent}.toml")
        source = next((candidate for candidate in candidates if candidate.is_file()), None)
        if source is None:
            raise StudyError(f"extends names an unknown study {parent!r}{nearest(parent, names())}")
        if source in (path, *children):
            raise StudyError(f"extends leads back to {parent!r}")
        inherited = _read(source, (path, *children))
        run, own = inherited.get("run", {}), data.get("run", {})
        hyper = {**run.get("hyper", {}), **own.get("hyper", {})}
        data = {**inherited, **data, "run": {**run, **own, **({"hyper": hyper} if hyper else {})}}
    data["runs"] = [*data.get("runs", []), *also]
    return data


def _study(name: str, data: Mapping[str, Any]) -> Study:
    """The study that inherited and own keys describe."""
    from benchmarks.report.quantities import QUANTITIES

    if "title" not in data:
        raise StudyError("title is missing")
    for quantity in data.get("figures", []):
        if quantity not in QUANTITIES:
            raise StudyError(f"unknown figure {quantity!r}{nearest(str(quantity), QUANTITIES)}")
    tuning = _tuning(data["tuning"]) if "tuning" in data else None
    arms = [arm for entry in data["runs"] for arm in grid.expand(entry, data.get("run", {}), tuning)]
    if not arms:
        raise StudyError("there is nothing to run: give at least one [[runs]]")
    known = {name for arm in arms for name in (arm.label, arm.group)}
    reference = data.get("reference")
    if reference is not None and reference not in known:
        raise StudyError(f"reference names an unknown run {reference!r}{nearest(reference, known)}")
    if len({arm.config.workload for arm in arms}) > 1:
        arms = [
            dataclasses.replace(
                arm, label=f"{arm.config.workload}/{arm.label}", group=f"{arm.config.workload}/{arm.group}"
            )
            for arm in arms
        ]
    labels = [arm.label for arm in arms]
    for label in labels:
        if labels.count(label) > 1:
            raise StudyError(f"two runs have the label {label!r}: give one of them another `label`")
    return Study(
        name=name,
        title=data["title"],
        description=" ".join(data.get("description", "").split()),
        arms=tuple(arms),
        seeds=seeds(data.get("seeds", 1)),
        reference=reference,
        target=data.get("target"),
        figures=tuple(data.get("figures", ())),
        threads=data.get("threads"),
        tuning=tuning,
    )


def _tuning(data: Mapping[str, Any]) -> Tuning:
    grid.check_types(data, {"trials": (int,), "seed": (int,), "seeds": (int,), "apart": (object,)}, "key of [tuning]")
    if "trials" not in data:
        raise StudyError("[tuning] trials is missing: how many settings each entry gets")
    if not isinstance(data.get("apart", False), bool):
        raise StudyError(f"[tuning] apart must be true or false, got {data['apart']!r}")
    return Tuning(**data)
