"""``python -m benchmarks new``: a commented study that runs as it is, to be changed."""

import json
import os
import re
from pathlib import Path

from benchmarks.studies import loading, schema
from benchmarks.studies.study import StudyError

FOLDER = Path(__file__).with_name("templates")


def write(name: str, *, tuned: bool = False, path: Path | None = None) -> Path:
    """Write a new study file and return its path.

    Args:
        name: its title, and without `path` the name of its file.
        tuned: whether its settings are to be chosen among trials.
        path: the file, which ends in ``.toml``; ``NAME.toml`` in the current folder by default.

    Raises:
        StudyError: the name or path does not fit, the file exists, or it cannot be written.
    """
    if path is None and not re.fullmatch(r"\w[\w.-]*", name):
        raise StudyError(f"a name of letters, digits, '.', '-' and '_' is needed without --path, got {name!r}")
    if name in loading.names():
        raise StudyError(f"the benchmark has a study {name!r} already: give another name")
    path = Path(f"{name}.toml") if path is None else path
    if path.suffix != ".toml":
        raise StudyError(f"the path of a study ends in .toml, got {str(path)!r}")
    text = (FOLDER / f"{'tuned' if tuned else 'plain'}.toml").read_text(encoding="utf-8")
    text = text.replace("#:schema ../schema.json", f"#:schema {_schema_from(path)}", 1)
    text = re.sub(
        r'^title = "\w+" *', lambda _: f"title = {json.dumps(name, ensure_ascii=False):24} ", text, flags=re.M
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise StudyError(f"{path} exists already: give another name or --path") from error
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror}") from error
    return path


def _schema_from(path: Path) -> str:
    """The JSON Schema as seen from a study file."""
    try:
        return Path(os.path.relpath(schema.FILE, path.resolve().parent)).as_posix()
    except ValueError:  # on another drive
        return schema.FILE.as_posix()
