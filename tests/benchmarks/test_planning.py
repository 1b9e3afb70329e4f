"""How many seeds a study needs, as the command says it."""

import pytest
from stored import HEAD, fill, load

from benchmarks import cli
from benchmarks.base.store import Store
from benchmarks.report.inference.planning import PlanningError, plan
from benchmarks.report.inference.power import seeds_needed

STUDY = HEAD + '[[runs]]\noptimizer = ["sgd", "adam", "padam"]\n'


@pytest.fixture
def results(tmp_path):
    return Store(tmp_path / "runs")


def test_by_the_spread_of_the_studys_own_runs(tmp_path, results):
    """Pooled over its arms: 0.2 here, for two comparisons."""
    study = load(tmp_path, STUDY)
    fill(study.runs(), results, lambda run: 90.0 + 0.2 * run.config.seed)
    lines = plan(study, results, 0.3)
    assert lines[0] == "digits-mlp, test accuracy, %: 2 comparisons, sd 0.2 (of 3 of its own arms, pooled)"
    assert lines[1].endswith(f"needs {seeds_needed(0.3, 0.2, 2)} seeds an arm")


def test_by_the_spread_of_other_runs(tmp_path, results):
    """Of the same workload, where the study has none of its own; of two versions of the code never together."""
    other = load(tmp_path, STUDY.replace("epochs = 2", "epochs = 3"), "other")
    fill(other.runs(), results, lambda run: 90.0 + 0.2 * run.config.seed)
    fill(other.runs(), results, lambda run: 50.0 + 0.2 * run.config.seed, sources="bbbb")
    lines = plan(load(tmp_path, STUDY), results, 0.3)
    assert "sd 0.2 (of 6 other arms of digits-mlp, pooled)" in lines[0]


def test_the_command(tmp_path, results, capsys):
    """With --sd it needs no runs; without either it says what is missing."""
    load(tmp_path, STUDY)
    path, places = str(tmp_path / "study.toml"), ["--results", str(results.root)]
    assert cli.main(["seeds", path, "--difference", "0.13", "--sd", "0.1", *places]) == cli.DONE
    assert f"needs {seeds_needed(0.13, 0.1, 2)} seeds an arm" in capsys.readouterr().out
    assert cli.main(["seeds", path, "--difference", "0.13", *places]) == cli.BAD_INPUT
    assert "give --sd" in capsys.readouterr().err


def test_one_seed_finds_nothing(tmp_path, results):
    """Nor do two, where the difference would have to be larger than an accuracy can be."""
    for seeds in (1, 2):
        study = load(tmp_path, STUDY.replace("seeds = 3", f"seeds = {seeds}"))
        assert plan(study, results, 1.0, sd=5.0)[2].endswith("no difference is found")


def test_a_tuned_study_compares_its_entries(tmp_path, results):
    """Not its trials."""
    grid = '[tuning]\ntrials = 2\n[[runs]]\noptimizer = ["sgd", "adam", "padam"]\nhyper.lr = [0.1, 0.01]\n'
    lines = plan(load(tmp_path, HEAD + grid), results, 0.3, sd=0.2)
    assert ": 2 comparisons, sd 0.2 (as given)" in lines[0]


def test_what_cannot_be_planned(tmp_path, results):
    """A difference that takes more seeds than anyone has is an error that says so."""
    with pytest.raises(PlanningError, match="needs more than"):
        plan(load(tmp_path, STUDY), results, 1e-6, sd=1.0)
