"""Verdicts that were wrong once: arms are told apart by their labels, and what is said of them holds."""

import dataclasses

import msgspec
import pytest
from stored import ENVIRONMENT, HEAD, fill, load, records

from benchmarks import session
from benchmarks.base.records import Evaluation
from benchmarks.base.store import Store
from benchmarks.report.results import collect
from benchmarks.report.sections import tables, verdicts
from benchmarks.studies.study import StudyError

TWO = (
    HEAD.replace('"sgd"', '"adam-high"')
    + """
[[runs]]
optimizer = "adam"
label = "adam-high"
hyper.lr = 0.01
[[runs]]
optimizer = "adam"
label = "adam-low"
hyper.lr = 1e-5
[[runs]]
optimizer = "sgd"
"""
)
TWO_SCORES = {"adam-high": (95.0, 95.3, 95.6), "adam-low": (10.5, 11.0, 11.5), "sgd": (96.5, 96.7, 96.9)}
THREE = HEAD + '[[runs]]\noptimizer = ["sgd", "adam", "padam"]\n'
TUNED = (
    HEAD.replace('"sgd"', '"free"')
    + """
[tuning]
trials = 2
[[runs]]
optimizer = "padam"
label = "free"
hyper.lr = 0.1
hyper.partial = [0.125, 0.25]
[[runs]]
optimizer = "padam"
label = "fixed"
hyper.partial = 0.125
hyper.lr = [0.1, 0.3]
"""
)


@pytest.fixture
def results(tmp_path):
    return Store(tmp_path / "runs")


def headline(report):
    """What is said of a study."""
    return " ".join(verdicts.headlines(report))


def against(report):
    return next(table for table in tables.build(report) if table.name == "against_reference")


def test_two_entries_of_one_optimizer_are_two_arms(tmp_path, results):
    """Neither takes the other's row, and the reference is the one that is named: +1.40 for SGD, not +85.70."""
    study = load(tmp_path, TWO)
    fill(study.runs(), results, TWO_SCORES)
    report = collect(study, results)
    first, table = tables.build(report)[:2]
    assert [row.key for row in first.rows] == ["adam-high", "adam-low", "sgd"]
    assert [row.key for row in table.rows] == ["adam-low", "sgd"]
    assert first.cell("adam-high", "final_mean").value == pytest.approx(95.3)
    assert table.cell("sgd", "difference").text == "+1.40"
    assert table.cell("adam-low", "difference").text == "−84.30"
    assert table.cell("adam-low", "verdict").text == "worse"
    assert len({arm.title for arm in study.arms}) == 3
    assert study.arms[0].title == "Adam [adam-high]"


def test_the_reference_may_be_either(tmp_path, results):
    """By its label, whichever comes first."""
    study = load(tmp_path, TWO.replace('reference = "adam-high"', 'reference = "adam-low"'))
    fill(study.runs(), results, TWO_SCORES)
    table = against(collect(study, results))
    assert table.title == "Against Adam [adam-low]"
    assert table.cell("sgd", "difference").text == "+85.70"
    assert table.cell("adam-high", "difference").text == "+84.30"


def test_a_reference_of_several_runs_is_refused(tmp_path):
    """An entry that stands for a grid is no reference; one of its points is."""
    text = HEAD.replace('"sgd"', '"adam"') + '[[runs]]\noptimizer = "adam"\nhyper.lr = [0.1, 0.01]\n'
    with pytest.raises(StudyError, match=r"'adam' means 2 runs; name one of 'adam,lr=0.1', 'adam,lr=0.01'"):
        load(tmp_path, text)
    assert (
        load(tmp_path, text.replace('"adam"\n[run]', '"adam,lr=0.1"\n[run]')).base("digits-mlp").label == "adam,lr=0.1"
    )


def test_two_labels_for_one_run_are_refused(tmp_path):
    """They would be compared with themselves, and counted twice."""
    text = HEAD + '[[runs]]\noptimizer = "sgd"\n[[runs]]\noptimizer = "sgd"\nlabel = "again"\n'
    with pytest.raises(StudyError, match="'sgd' and 'again' are the same run"):
        load(tmp_path, text)


def test_two_arms_with_one_label_are_refused(tmp_path):
    """Both are named."""
    study = load(tmp_path, TWO)
    twice = (study.arms[0], dataclasses.replace(study.arms[1], label="adam-high"))
    with pytest.raises(StudyError, match=r"label 'adam-high', 'Adam \[adam-high\]' and 'Adam \[adam-low\]'"):
        dataclasses.replace(study, arms=twice)


def test_tuned_p_against_tuned_p(tmp_path, results):
    """Two entries of one optimizer, whose grids share a point, are both chosen, told apart and compared."""
    study = load(tmp_path, TUNED)
    assert len({run.config.identity("") for run in study.runs()}) == 3
    fill(study.runs(), results, lambda run: 80.0 + 10 * run.config.hyper["partial"] + run.config.hyper["lr"])
    report = collect(study, results)
    assert [arm.label for arm in report.study.arms] == ["free", "fixed"]
    assert [arm.title for arm in report.study.arms] == ["Padam [free]", "Padam [fixed]"]
    assert report.missing == 6
    fill(report.study.runs(), results, {"free": (90.0, 90.1, 90.2), "fixed": (91.0, 91.1, 91.2)})
    report = collect(study, results)
    table = against(report)
    assert [row.key for row in table.rows] == ["fixed"]
    assert table.cell("fixed", "verdict").text == "better"
    chosen = next(one for one in tables.build(report) if one.name == "chosen_settings")
    assert [chosen.cell(label, "setting").text for label in ("free", "fixed")] == ["partial=0.25", "lr=0.3"]


def test_tuned_entries_that_share_a_point_both_finish(tmp_path, results):
    """Trained end to end: the shared trial is made once, both entries are chosen, and the chosen runs are made."""
    study = load(tmp_path, TUNED.replace("seeds = 3", "seeds = 2").replace("epochs = 2", "epochs = 1\nmax_steps = 2"))
    outcome = session.run(study, results, settings=session.Settings(threads=1), say=lambda text: None)
    assert outcome.status == "done"
    report = collect(study, results)
    assert report.missing == 0
    assert report.waiting == ()
    assert [one.arm.label for one in report.series] == ["free", "fixed"]


def test_tuned_entries_that_choose_the_same_point(tmp_path, results):
    """They are shown as the same run, not compared with themselves."""
    study = load(tmp_path, TUNED)
    fill(study.runs(), results, lambda run: 80.0 - 10 * run.config.hyper["partial"] - run.config.hyper["lr"])
    report = collect(study, results)
    assert report.study.arms[0].config == report.study.arms[1].config
    fill(report.study.runs(), results, {"free": (90.0, 90.1, 90.2), "fixed": (90.0, 90.1, 90.2)})
    report = collect(study, results)
    assert against(report).cell("fixed", "verdict").text == "same run"
    assert len({one.arm.title for one in report.series}) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('label = "fixed"', 'label = "free"', "label 'free' in common"),
        ('reference = "free"', 'reference = "free,partial=0.125"', "'free,partial=0.125' is no entry"),
    ],
)
def test_entries_of_a_tuned_study_are_told_apart(tmp_path, old, new, message):
    """Two with one label would be one entry with twice the trials; a trial is no reference."""
    with pytest.raises(StudyError, match=message):
        load(tmp_path, TUNED.replace(old, new))


def test_what_is_trained_on_other_things_is_not_compared(tmp_path, results):
    """Runs of one workload with another model or other data have tables of their own."""
    study = load(tmp_path, THREE)
    other = dataclasses.replace(study.arms[2], config=dataclasses.replace(study.arms[2].config, model="mine:Net"))
    study = dataclasses.replace(study, arms=(*study.arms[:2], other))
    assert study.subjects == ("digits-mlp", "digits-mlp, model mine:Net")
    fill(study.runs(), results, lambda run: 90.0 + run.config.seed)
    report = collect(study, results)
    assert [one.arm.label for one in report.of("digits-mlp")] == ["sgd", "adam"]
    names = [table.name for table in tables.build(report)]
    assert len(set(names)) == len(names)


def test_only_a_decided_difference_is_claimed(tmp_path, results):
    """Adam is better, Padam undecided; the best arm is named only if it beats every other one."""
    study = load(tmp_path, THREE)
    scores = {"sgd": (90.0, 90.2, 90.4), "adam": (95.0, 95.1, 95.2), "padam": (90.1, 90.3, 90.6)}
    fill(study.runs(), results, scores)
    report = collect(study, results)
    table = against(report)
    assert table.cell("adam", "verdict").text == "better"
    assert table.cell("adam", "verdict").mark == "better"
    assert table.cell("padam", "verdict").text == "undecided"
    assert table.cell("padam", "difference").text == "+0.13"
    assert table.notes[-1].startswith("Best: Adam;")
    for row in table.rows:
        low, high = (table.cell(row.key, name).value for name in ("interval_low", "interval_high"))
        assert (low > 0 or high < 0) == (table.cell(row.key, "verdict").text in ("better", "worse"))
    assert headline(report) == (
        "Adam is better than SGD (momentum) by 4.90 points [4.26, 5.54], Holm p < 0.001, 3 seeds; "
        "nothing else is told apart."
    )


def test_a_headline_where_nothing_is_decided(tmp_path, results):
    """It says what could have been found; of an unfinished study that it is one."""
    study = load(tmp_path, THREE)
    scores = {"sgd": (90.0, 91.0, 92.0), "adam": (90.5, 91.5, 92.5), "padam": (90.1, 91.3, 92.6)}
    fill(study.runs(), results, scores)
    said = headline(collect(study, results))
    assert said.startswith(
        "Nothing is decided: no arm is told from SGD (momentum); this study finds differences of 6 points and more."
    )
    further = load(tmp_path, THREE.replace("seeds = 3", "seeds = 4"))
    assert headline(collect(further, results)).startswith("So far: Nothing is decided")
    empty = Store(tmp_path / "empty")
    assert headline(collect(study, empty)) == ""


@pytest.mark.parametrize(("smallest", "words"), [(20.09, "21"), (20.0, "20"), (0.0123, "0.013"), (1.5, "1.5")])
def test_what_can_be_found_is_rounded_up(tmp_path, results, monkeypatch, smallest, words):
    """A headline claims no smaller difference than the table's."""
    monkeypatch.setattr(verdicts, "smallest_detectable", lambda *given: smallest)
    study = load(tmp_path, THREE)
    fill(study.runs(), results, {"sgd": (90.0, 91.0, 92.0), "adam": (90.5, 91.5, 92.5), "padam": (90.1, 91.3, 92.6)})
    assert f"finds differences of {words} points and more" in headline(collect(study, results))


def test_lower_is_better_for_a_loss(tmp_path, results):
    """A smaller perplexity is better, and the headline's size is positive."""
    study = load(tmp_path, THREE.replace("digits-mlp", "text-lstm"))
    for run in study.runs():
        end = {"sgd": 5.0, "adam": 3.0, "padam": 7.0}[run.config.optimizer] + 0.01 * run.config.seed
        results.write(run.config, "data", ENVIRONMENT, records(9.0, end, key="perplexity"))
    report = collect(study, results)
    assert against(report).cell("adam", "verdict").text == "better"
    assert headline(report).startswith("Adam is better than SGD (momentum) by 2.00 [1.9")
    assert "Padam is worse by 2.00 [1.9" in headline(report)


@pytest.mark.parametrize(
    ("sgd", "adam", "padam", "words"),
    [
        ((90.0, 90.2, None), (95.0, 95.1, 95.2), (80.0, 80.2, 80.1), ("better", "reference diverged")),
        ((90.0, 90.2, 90.4), (95.0, 95.1, None), (80.0, 80.2, None), ("diverged", "worse")),
        ((90.0, 90.2, 90.4), (None, None, None), (90.0, 90.2, None), ("diverged", "diverged")),
        ((90.0, None, None), (95.0, 95.1, 95.2), (90.0, 90.2, 90.1), ("not compared", "not compared")),
    ],
)
def test_a_divergence_can_only_count_against(tmp_path, results, sgd, adam, padam, words):
    """It takes no table away: of the reference it rules out "worse", of an arm "better", and the headline has it."""
    study = load(tmp_path, THREE)
    fill(study.runs(), results, {"sgd": sgd, "adam": adam, "padam": padam})
    report = collect(study, results)
    table = against(report)
    assert tuple(table.cell(label, "verdict").text for label in ("adam", "padam")) == words
    assert "diverged" in headline(report)
    assert "diverged" in " ".join(table.notes)


def test_what_the_last_step_has_ruined_is_no_result(tmp_path, results):
    """Its training loss was finite to the end; the run diverged all the same, and the others do not stand for it."""
    study = load(tmp_path, THREE)
    scores = {"sgd": (90.0, 90.2, 90.4), "adam": (95.0, 95.1, 95.2), "padam": (95.0, 95.1, 95.2)}
    fill(study.runs(), results, scores)
    for arm, ruined in ((study.arms[1], {"top1": None}), (study.arms[2], {"top1": 9.7, "loss": None})):
        last = msgspec.structs.replace(records(70.0, 1.0)[-1], test=Evaluation(ruined))
        results.write(dataclasses.replace(arm.config, seed=2), "data", ENVIRONMENT, [*records(70.0), last])
    report = collect(study, results)
    for label in ("adam", "padam"):
        assert against(report).cell(label, "verdict").text == "diverged"
        assert tables.build(report)[0].cell(label, "runs").text == "3 (1 diverged)"
    assert "Adam diverged in 1 of 3 runs" in " ".join(verdicts.headlines(report))


def test_no_interval_where_there_is_no_spread(tmp_path, results):
    """One run, or equal ones, have no interval; the whole range is not theirs."""
    study = load(tmp_path, THREE.replace('"padam"]', '"padam", "adamw"]'))
    scores = {"sgd": (100.0,) * 3, "adam": (50.0,) * 3, "padam": (90.0, 90.1, 90.2), "adamw": (None,) * 3}
    fill(study.runs(), results, scores)
    table = against(collect(study, results))
    for label in ("adam", "adamw"):
        assert table.cell(label, "interval_low").text == "–"
        assert table.cell(label, "interval_high").value is None
    assert table.cell("padam", "interval_low").text.startswith("[")


def test_a_headline_counts_the_diverged_arms_that_it_does_not_name(tmp_path, results):
    """Five of six are not three."""
    study = load(tmp_path, HEAD + '[[runs]]\noptimizer = ["sgd", "adam", "padam", "adamw", "radam", "nadam"]\n')
    fill(study.runs(), results, lambda run: 90.0 + run.config.seed if run.config.optimizer == "sgd" else None)
    said = " ".join(verdicts.headlines(collect(study, results)))
    assert said.count("diverged in 3 of 3 runs") == 3
    assert said.endswith("; so did 2 more.")


def test_titles_that_look_alike_are_told_apart(tmp_path):
    """A space more is not to be seen in a table."""
    study = load(
        tmp_path,
        THREE.replace('optimizer = ["sgd", "adam", "padam"]', 'optimizer = "sgd"\ntitle = "A"')
        + '[[runs]]\noptimizer = "adam"\ntitle = "A "\n',
    )
    assert [arm.title.split()[-1] for arm in study.arms] == ["[sgd]", "[adam]"]
