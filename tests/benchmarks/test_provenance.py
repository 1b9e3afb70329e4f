"""Versions of the code: one is chosen, a mixture is named, two are compared, and what is no run is listed."""

import importlib
import json
import os

import pytest
from stored import HEAD, fill, load

from benchmarks import cli
from benchmarks.base import environment
from benchmarks.base.store import Store
from benchmarks.report.results import collect
from benchmarks.report.sections import compare, tables
from benchmarks.report.sections.compare import VersionError

STUDY = HEAD + '[[runs]]\noptimizer = ["sgd", "adam"]\n'
OLD, NEW = {"sources": "aaaa", "commit": "c1"}, {"sources": "bbbb", "commit": "c2"}


@pytest.fixture
def study(tmp_path):
    return load(tmp_path, STUDY)


@pytest.fixture
def results(tmp_path):
    return Store(tmp_path / "runs")


def scored(value):
    """A score for each run, with a little spread."""
    return lambda run: value + 0.1 * run.config.seed + (run.config.optimizer == "adam")


def test_of_two_versions_that_with_more_runs_counts(study, results):
    """Even where the other is newer; runs are never mixed while one version has them."""
    fill(study.runs(), results, scored(90.0), **OLD)
    fill([run for run in study.runs() if run.config.seed == 0], results, scored(50.0), **NEW)
    report = collect(study, results)
    assert {run.provenance.sources for one in report.series for run in one.runs.values()} == {"aaaa"}
    assert not any("Warning" in note for table in tables.build(report) for note in table.notes)


def test_of_two_complete_versions_the_newer_counts(study, results):
    """By the time of the files."""
    fill(study.runs(), results, scored(90.0), **NEW)
    for path in results.root.glob("*.jsonl"):
        os.utime(path, (1e9, 1e9))
    fill(study.runs(), results, scored(91.0), **OLD)
    report = collect(study, results)
    assert {run.provenance.sources for one in report.series for run in one.runs.values()} == {"aaaa"}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (NEW, "sources bbbb, commit c2"),
        ({"torch": "9"}, "torch 9"),
        ({"device": "a GPU"}, "device a GPU"),
        ({"sources": None, "commit": "c0"}, "sources c0, commit c0"),
    ],
)
def test_a_mixture_is_named(study, results, other, named):
    """Each table of both says which arms were made by what; files from before there were sources go by their commit."""
    fill([run for run in study.runs() if run.arm.label == "sgd"], results, scored(90.0), **OLD)
    fill([run for run in study.runs() if run.arm.label == "adam"], results, scored(90.0), **{**OLD, **other})
    found = {table.name: table for table in tables.build(collect(study, results))}
    for name in ("results", "against_reference", "diagnostics"):
        warning = found[name].notes[0]
        assert warning.startswith("Warning: ")
        assert f"Adam ({named})" in warning


def test_other_data_does_not_meet_in_a_table(study, results):
    """The larger group of runs stays, the others are named, and the report is made."""
    fill(study.runs(), results, scored(90.0))
    fill(study.runs()[:1], results, scored(10.0), data="other data")
    lonely = load(results.root.parent, STUDY.replace('"adam"]', '"adam", "padam"]'), "lonely")
    fill([run for run in lonely.runs() if run.arm.label == "padam"], results, scored(20.0), data="other data")
    report = collect(lonely, results)
    assert [one.arm.label for one in report.series] == ["sgd", "adam"]
    assert len(report.series[0].runs) == 3
    (note,) = report.notes
    assert "4 runs on other data are left out" in note
    assert "other data" in note
    assert "sgd/seed0, padam/seed0" in note


def test_what_is_no_run_is_listed(study, results):
    """A file changed by hand and a foreign one are named with the reason, and the report goes by the rest."""
    fill(study.runs(), results, scored(90.0))
    path = next(results.root.glob("*.jsonl"))
    path.write_text(path.read_text().replace('"top1":9', '"top1":8'))
    (results.root / "notes.jsonl").write_text("not a run\n")
    report = collect(study, results)
    assert report.missing == 1
    assert len(report.notes) == 2
    assert any(path.name in note and "checksum" in note for note in report.notes)
    assert any("notes.jsonl" in note for note in report.notes)


def test_two_versions_side_by_side(study, results, capsys, tmp_path):
    """Means of both, the difference with its verdict, arms that one lacks; by commit or sources, and as a command."""
    fill(study.runs(), results, scored(90.0), **OLD)
    later = {"sgd": (92.0, 92.1, 92.2)}
    fill([run for run in study.runs() if run.arm.label == "sgd"], results, later, **NEW)
    (table,) = compare.compare(study, results, "c1", "bb")
    assert table.cell("sgd", "first_mean").value == pytest.approx(90.1)
    assert table.cell("sgd", "second_mean").value == pytest.approx(92.1)
    assert table.cell("sgd", "difference").text == "+2.00"
    assert table.cell("sgd", "verdict").text == "better"
    assert table.cell("adam", "verdict").text == "missing"
    assert "Adam has no run of bb." in table.notes
    places = ["--results", str(results.root)]
    assert cli.main(["report", str(tmp_path / "study.toml"), "--compare", "c1", "c2", *places]) == cli.DONE
    assert "c2 against c1" in capsys.readouterr().out
    assert cli.main(["report", str(tmp_path / "study.toml"), "--compare", "c1", "c3", *places]) == cli.BAD_INPUT
    assert "no run of 'c3'; there are c" in capsys.readouterr().err


def test_versions_must_differ(study, results):
    """A version against itself, or a start that both have, is refused."""
    fill(study.runs(), results, scored(90.0), **OLD)
    fill(study.runs(), results, scored(90.0), **NEW)
    with pytest.raises(VersionError, match="runs in common"):
        compare.compare(study, results, "c1", "c")


def test_a_commit_against_itself_with_changed_files(study, results):
    """What one has changed, against what one has started from."""
    fill(study.runs(), results, scored(90.0), **OLD)
    fill(study.runs(), results, scored(91.0), sources="bbbb", commit="c1+")
    (table,) = compare.compare(study, results, "c1", "c1+")
    assert table.cell("sgd", "difference").text == "+1.00"


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A folder whose modules can be imported, and what asks for the version of one anew."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def version(module):
        environment.version.cache_clear()
        importlib.invalidate_caches()
        return environment.version(module)

    return tmp_path, version


def test_a_module_changes_with_those_that_it_imports(beside):
    """What a study brings along is often several files; a changed one is other code, a stranger beside them is not."""
    folder, version = beside
    (folder / "brought.py").write_text("import helping\nimport json\n")
    (folder / "helping.py").write_text("from deeper.part import F\nimport brought\n")
    (folder / "deeper").mkdir()
    for name in ("__init__", "part"):
        (folder / "deeper" / f"{name}.py").write_text("F = 1\n")
    first = version("brought")
    (folder / "stranger.py").write_text("F = 1\n")
    assert version("brought") == first
    (folder / "deeper" / "part.py").write_text("F = 2\n")
    second = version("brought")
    (folder / "helping.py").write_text("from deeper.part import F\n")
    assert len({first, second, version("brought")}) == 3


@pytest.mark.parametrize("editable", [True, False])
def test_what_is_installed_to_be_worked_on_changes_without_its_version(beside, editable):
    """An editable distribution keeps its number while its code changes; others do not change."""
    folder, version = beside
    name = f"worked_on_{editable}".lower()  # distributions are looked up once
    (folder / f"{name}.py").write_text("F = 1\n")
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "top_level.txt").write_text(f"{name}\n")
    (info / "direct_url.json").write_text(json.dumps({"url": "file:///x", "dir_info": {"editable": editable}}))
    first = version(name)
    (folder / f"{name}.py").write_text("F = 2\n")
    assert first.startswith("1.5")
    assert (version(name) != first) == editable


def test_templates_of_code_are_sources(beside):
    """The kernels of the library are made from such; notes are not code."""
    folder, version = beside
    (folder / "with_kernels").mkdir()
    for name in ("__init__.py", "kernel.cpp.in", "notes.txt"):
        (folder / "with_kernels" / name).write_text("x = 1\n")
    first = version("with_kernels")
    (folder / "with_kernels" / "notes.txt").write_text("x = 2\n")
    assert version("with_kernels") == first
    (folder / "with_kernels" / "kernel.cpp.in").write_text("x = 2\n")
    assert version("with_kernels") != first
