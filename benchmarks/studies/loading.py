"""Studies as TOML files, beside this one or anywhere; `benchmarks.studies.schema` says what they contain.

Nothing here needs torch but `load`, which builds every optimizer once to see that it takes its settings.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.base.errors import nearest
from benchmarks.studies import schema
from benchmarks.studies.schema import Place
from benchmarks.studies.study import Arm, Study, StudyError, Tuning, seeds

DIRECTORY = Path(__file__).parent


def names() -> list[str]:
    """The studies that come with the benchmark."""
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def titles() -> dict[str, str]:
    """Their titles by name, read without checking the rest of them."""
    return {name: tomllib.loads((DIRECTORY / f"{name}.toml").read_text("utf-8"))["title"] for name in names()}


def load(name: str) -> Study:
    """The study called `name`, or the one in the file of that path, which then ends in ``.toml``.

    Raises:
        StudyError: there is none, or a mistake is in it; the message says where in the file.
    """
    path = Path(name) if name.endswith(".toml") else DIRECTORY / f"{name}.toml"
    if not _is_file(path):
        if name.endswith(".toml"):
            raise StudyError(f"there is no study file {name!r}")
        raise StudyError(f"unknown study {name!r}{nearest(name, names())} (or the path of a .toml file)")
    return _study(path.stem, _inherit(_read(path), path))


def parse(data: Mapping[str, Any], name: str = "study", folder: Path = DIRECTORY) -> Study:
    """The study that the keys of a file describe.

    Args:
        data: what a study file says, as Python's own types.
        name: what the study is called; messages call the file that with ``.toml``.
        folder: where studies that it extends and modules that it names are looked for first.
    """
    return _study(name, _inherit(dict(data), folder / f"{name}.toml"))


@dataclasses.dataclass(frozen=True)
class Layers:
    """What a study says, with what it inherits, and where each part is said.

    Args:
        keys: the study's own keys, with their places.
        shared: the `[run]` tables that its runs inherit from, the nearest first.
        entries: the runs.
        files: all files, its own first.
    """

    keys: Mapping[str, tuple[Any, Place]]
    shared: tuple[tuple[Mapping[str, Any], Place], ...]
    entries: tuple[tuple[Mapping[str, Any], Place], ...]
    files: tuple[Path, ...]


def _is_file(path: Path) -> bool:
    """Whether there is a file; not so where the name cannot be one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read(path: Path) -> dict[str, Any]:
    """The keys of a file."""
    where = Place(path.name)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise where.error(f"is not valid TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise where.error(f"is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}") from error
    except RecursionError as error:
        raise where.error("is nested too deep") from error
    except OSError as error:
        raise where.error(f"cannot be read: {error.strerror}") from error


def _inherit(data: dict[str, Any], path: Path, children: tuple[Path, ...] = ()) -> Layers:
    """The keys of a file, once they are known to be right, and those that it inherits."""
    top = Place(path.name)
    schema.check(data, path.name)
    own = {key: (value, top / key) for key, value in data.items() if key not in ("extends", "run", "runs", "also")}
    shared = ((data["run"], top / "run"),) if "run" in data else ()
    entries, also = (
        tuple((entry, top / key / i) for i, entry in enumerate(data.get(key, []))) for key in ("runs", "also")
    )
    if "extends" not in data:
        return Layers(own, shared, entries + also, (path,))
    parent = data["extends"]
    file = parent if parent.endswith(".toml") else f"{parent}.toml"
    candidates = (path.parent / file, DIRECTORY / file)
    source = next(filter(_is_file, candidates), None)
    if source is None:
        raise (top / "extends").error(f"unknown study {parent!r}{nearest(parent, names())}")
    lineage = (*children, path.resolve())
    if source.resolve() in lineage:
        raise (top / "extends").error(f"leads back to {parent!r}")
    inherited = _inherit(_read(source), source, lineage)
    return Layers(
        {**inherited.keys, **own},
        shared + inherited.shared,
        (entries if "runs" in data else inherited.entries) + also,
        (path, *inherited.files),
    )


def _study(name: str, layers: Layers) -> Study:
    """The study that inherited and own keys describe."""
    from benchmarks.studies import grid  # it needs torch

    said = {key: value for key, (value, _) in layers.keys.items()}
    top = Place(layers.files[0].name)
    if "title" not in said:
        raise (top / "title").error("is missing")
    if not layers.entries:
        raise (top / "runs").error("there is nothing to run: give at least one [[runs]]")
    tuning = Tuning(**said["tuning"]) if "tuning" in said else None
    folders = [path.parent for path in layers.files if path.parent != DIRECTORY]
    arms: list[Arm] = []
    places: dict[str, Place] = {}
    left_out: list[str] = []
    for entry, place in layers.entries:
        source = grid.Source(entry, place, layers.shared, folders)
        left_out += grid.left_out(source)
        for arm in grid.expand(source, tuning):
            label = f"{arm.config.workload}/{arm.label}"
            if label in places:
                text = f"two runs have the label {arm.label!r}: give one of them another `label`"
                raise place.error(f"{text} (the other is {_within(places[label], place)})")
            places[label] = place
            arms.append(arm)
    if len({arm.config.workload for arm in arms}) > 1:
        arms = [
            dataclasses.replace(
                arm, label=f"{arm.config.workload}/{arm.label}", group=f"{arm.config.workload}/{arm.group}"
            )
            for arm in arms
        ]
    reference = said.get("reference")
    if reference is not None and not any(arm.answers_to(reference) for arm in arms):
        known = {name for arm in arms for name in (arm.name, arm.group)}
        raise layers.keys["reference"][1].error(f"unknown run {reference!r}{nearest(reference, known)}")
    try:
        return Study(
            name=name,
            title=said["title"],
            description=" ".join(said.get("description", "").split()),
            arms=tuple(arms),
            seeds=seeds(said.get("seeds", 1)),
            reference=reference,
            target=said.get("target"),
            figures=tuple(said.get("figures", ())),
            threads=said.get("threads"),
            tuning=tuning,
            left_out=tuple(left_out),
        )
    except StudyError as error:  # about several runs, or the reference among them
        about_reference = str(error).startswith("reference ") and "reference" in layers.keys
        raise (layers.keys["reference"][1] if about_reference else top / "runs").error(str(error)) from error


def _within(other: Place, place: Place) -> str:
    """A place as one says it beside another: without the file, if they share it."""
    return str(Place("", other.path)).removeprefix("study : ") if other.file == place.file else str(other)
