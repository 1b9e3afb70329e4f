"""The study that `new` writes, and the commands that must be there at once."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks import cli, studies
from benchmarks.studies import schema, template
from benchmarks.studies.study import StudyError

ROOT = Path(__file__).parent.parent.parent
HEAVY = {"torch", "scipy", "pandas", "altair", "matplotlib", "sklearn", "partial_adaptive"}


@pytest.mark.parametrize("tuned", [False, True])
def test_it_runs_as_it_is(tuned, tmp_path, monkeypatch, capsys):
    """From the command line, on the embedded digits, in seconds."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "mine", *(["--tuned"] if tuned else [])]) == cli.DONE
    assert "python -m benchmarks run mine.toml" in capsys.readouterr().out
    assert cli.main(["run", "mine.toml", "--seeds", "0,1"]) == cli.DONE
    assert "| Padam" in capsys.readouterr().out
    assert len(list(Path("runs").glob("*.jsonl"))) == (12 + 6 if tuned else 8)


@pytest.mark.parametrize("tuned", [False, True])
def test_what_is_commented_out_is_right_as_well(tuned, tmp_path):
    """Every setting that it offers can be switched on by removing the mark, all of them together."""
    text = template.write("mine", tuned=tuned, path=tmp_path / "mine.toml").read_text()
    uncommented = re.sub(r"^# (?=\[\[|[\w.]+ = )", "", text, flags=re.MULTILINE)
    assert uncommented != text
    (tmp_path / "all.toml").write_text(uncommented)
    assert studies.load(str(tmp_path / "all.toml")).arms[0].config.schedules["lr"]["kind"] == "cosine"


def test_editors_find_the_schema(tmp_path):
    """Its first line leads from the file to the schema, wherever the file is."""
    (tmp_path / "deep").mkdir()
    path = template.write("mine", path=tmp_path / "deep" / "mine.toml")
    first = path.read_text().splitlines()[0]
    assert (path.parent / first.removeprefix("#:schema ")).resolve() == schema.FILE
    assert json.loads(schema.FILE.read_text())["$defs"]["StudyFile"]


def test_any_title_will_do(tmp_path):
    """Where the file has a name of its own."""
    for i, title in enumerate(['say "p"', r"a\1 \n $x$", "部分"]):
        path = template.write(title, path=tmp_path / f"{i}.toml")
        assert tomllib.loads(path.read_text(encoding="utf-8"))["title"] == title
        assert studies.load(str(path)).title == title


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("mine", None, "mine.toml exists already"),
        ("../mine", None, r"letters, digits, '.', '-' and '_'"),
        ("", None, "letters, digits"),
        ("quick", None, "the benchmark has a study 'quick' already"),
        ("mine", "mine.txt", "ends in .toml, got 'mine.txt'"),
        ("mine", "nowhere/mine.toml", "cannot write nowhere/mine.toml: No such file or directory"),
    ],
)
def test_nothing_is_overwritten_and_what_is_wrong_is_said(name, path, message, tmp_path, monkeypatch):
    """By an error in one line, before anything is written."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("precious")
    with pytest.raises(StudyError, match=message):
        template.write(name, path=path and Path(path))
    assert [path.name for path in Path().iterdir()] == ["mine.toml"]
    assert Path("mine.toml").read_text() == "precious"


@pytest.mark.parametrize("command", ["--help", "run --help", "new mine", "schema", "list"])
def test_quick_commands_import_nothing_heavy(command, tmp_path):
    """Torch alone takes a second; what needs it imports it."""
    code = (
        "import sys; from benchmarks.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('imported:', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *_, imported = done.stdout.splitlines()
    assert HEAVY & set(imported.split()) == set()
