"""Reports: the numbers of the tables, what they claim, the deviations, and a page that needs nothing else."""

import dataclasses
import html.parser
import re

import pytest

from benchmarks import report, studies
from benchmarks.base.store import Store, StoreError
from benchmarks.report import published, tables
from benchmarks.report.results import collect

STUDY = """
title = "Three & more"
seeds = 3
reference = "sgd"
target = 80.0
figures = ["train_loss", "error", "distance"]
[run]
workload = "digits-mlp"
epochs = 2
recalibrate = 0
[[runs]]
optimizer = ["sgd", "adam", "padam"]
"""
SCORES = {"sgd": (90.0, 90.2, 90.4), "adam": (95.0, 95.1, 95.2), "padam": (90.1, 90.3, 90.6)}


@pytest.fixture
def load(tmp_path):
    """Loads a study from text."""

    def load(text, name="study"):
        (tmp_path / f"{name}.toml").write_text(text)
        return studies.load(str(tmp_path / f"{name}.toml"))

    return load


@pytest.fixture
def results(tmp_path):
    return Store(tmp_path / "runs")


def records(run, *scores, recalibrated=None):
    """Epochs with these scores."""
    return [
        {
            "epoch": epoch,
            "train": {"online_loss": 1 / epoch, "clean_loss": 0.5 / epoch},
            "test": {
                "running": {"top1": score, "top5": 99.0},
                "recalibrated": None if recalibrated is None else {"top1": recalibrated},
            },
            "distance": float(epoch),
            "effective_step": {"q01": 1e-4, "q50": 1e-3, "q99": 1e-2},
            "floor_share": 0.25,
            "time": {"train_s": 2.0, "eval_s": 9.0, "step_ms": 3.0, "peak_memory_bytes": 2**20, "mode": "eager"},
        }
        for epoch, score in enumerate(scores, start=1)
    ]


def fill(study, results, scores=SCORES):
    """Stores a run for each seed: 70 % in the first epoch, then the score."""
    for run in study.runs():
        epochs = records(run, 70.0, scores[run.config.optimizer][run.config.seed])
        results.write(run.config, "data", {"torch": "2", "command": "python -m benchmarks run study"}, epochs)


def cells(table, title):
    """The row of an optimizer by header."""
    return dict(zip(table.headers, next(row for row in table.rows if row[0] == title), strict=True))


def test_results_state_final_and_best(load, results):
    """Mean ± sd with the interval, the best epoch, and the clean train loss."""
    study = load(STUDY)
    fill(study, results)
    first = tables.build(collect(study, results))[0]
    assert cells(first, "SGD (momentum)") == {
        "optimizer": "SGD (momentum)",
        "runs": "3",
        "final, mean ± sd": "90.20 ± 0.20",
        "95 % interval": "[89.70, 90.70]",
        "best epoch, mean ± sd (epoch)": "90.20 ± 0.20 (2)",
        "final train loss": "0.2500 ± 0.0000",
    }


def test_only_a_decided_difference_is_claimed(load, results):
    """Adam is better, Padam undecided; the best arm is named only if it beats every other one."""
    study = load(STUDY)
    fill(study, results)
    table = tables.build(collect(study, results))[1]
    assert cells(table, "Adam")["verdict"] == "better"
    assert cells(table, "Padam")["verdict"] == "undecided"
    assert cells(table, "Padam")["difference"] == "+0.13"
    assert "Smallest detectable difference: 0." in table.notes[0]
    assert table.notes[-1].startswith("Best: Adam;")
    close = load(STUDY.replace("epochs = 2", "epochs = 2\ngamma = 0.5"))
    fill(close, results, {**SCORES, "adam": (90.0, 90.5, 90.4)})
    assert tables.build(collect(close, results))[1].notes[-1].startswith("Best: not decided.")


def test_a_diverged_run_stays_in_the_table(load, results):
    """It counts as a run, without a score, and its arm is not compared."""
    study = load(STUDY)
    fill(study, results)
    run = study.runs()[2]
    results.write(run.config, "data", {}, [{**records(run, 10.0)[0], "diverged": True}])
    first, second = tables.build(collect(study, results))[:2]
    assert cells(first, "Padam")["runs"] == "3 (1 diverged)"
    assert cells(first, "Padam")["final, mean ± sd"] == "90.45 ± 0.21"
    assert cells(second, "Padam")["verdict"] == "diverged"


def test_one_seed_makes_no_comparison(load, results):
    """A single run is shown without spread, interval or verdict."""
    study = load(STUDY.replace("seeds = 3", "seeds = 1"))
    fill(study, results)
    found = tables.build(collect(study, results))
    assert cells(found[0], "Adam")["final, mean ± sd"] == "95.00"
    assert cells(found[0], "Adam")["95 % interval"] == "–"
    assert not any(table.title.startswith("Against") for table in found)


def test_time_to_target_leaves_evaluation_out(load, results):
    """The epoch that reaches the target, and the seconds of training until then; how many runs did if not all."""
    study = load(STUDY)
    fill(study, results, {**SCORES, "padam": (79.0, 81.0, 82.0)})
    cost = next(table for table in tables.build(collect(study, results)) if table.title == "Cost")
    assert cells(cost, "Adam")["epochs to 80"] == "2.0"
    assert cells(cost, "Adam")["seconds to 80"] == "4.0"
    assert cells(cost, "Padam")["epochs to 80"] == "2.0 (2 of 3)"


def test_published_numbers_stand_beside_ours(results):
    """Paper, replication, and both of our columns at the published epochs, for the paper's protocol alone."""
    study = studies.load("paper-table1")
    run = next(run for run in study.runs() if run.arm.label == "padam")
    epochs = records(run, *[80.0] * 49, 88.0, *[93.0] * 150, recalibrated=93.5)
    results.write(run.config, "data", {}, epochs)
    table = next(table for table in tables.build(collect(study, results)) if "published" in table.title)
    assert table.rows[0] == ["Padam", "50", "88.47 ± 0.55", "67.92", "88.00", "93.50"]
    assert table.rows[3] == ["Padam", "200", "93.45 ± 0.12", "93.06", "93.00", "93.50"]
    short = studies.load("cifar10-vgg16-short").arms[0].config
    assert not published.accuracy(short, "paper")


def test_deviations_are_computed():
    """Every setting that differs from the paper's is listed, with both values and where; nothing else is."""
    arm = next(arm for arm in studies.load("paper-table1").arms if arm.label == "padam")
    exact = dataclasses.replace(arm.config, precision="fp32", recalibrate=391)
    assert [one.setting for one in published.deviations([("Padam", exact)])] == ["classifier"]
    other = dataclasses.replace(exact, epochs=50, hyper={**exact.hyper, "weight_decay": 0.1})
    found = {one.setting: one for one in published.deviations([("Padam", exact), ("Other", other)])}
    assert (found["epochs"].paper, found["epochs"].ours, found["epochs"].arms) == ("200", "50", "Other")
    assert (found["weight_decay"].paper, found["weight_decay"].ours) == ("0.0005", "0.1")
    assert found["classifier"].arms == "all"


def test_the_same_run_on_two_data_sets_is_an_error(load, results):
    """Results on different data must not meet in one table."""
    study = load(STUDY)
    fill(study, results)
    results.write(study.runs()[0].config, "other data", {}, records(None, 1.0, 2.0))
    with pytest.raises(StoreError, match="on different data"):
        collect(study, results)


class Checker(html.parser.HTMLParser):
    """Collects ids and references, and that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.outside = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for key, value in attributes:
            if key == "id":
                self.ids.append(value)
            if key in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.outside.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(load, results, tmp_path):
    """Well-formed, no outside reference, ids unique over all figures, text in the reader's colour, titles escaped."""
    several = [load(STUDY), load(STUDY.replace("Three", "Four"), "again")]
    fill(several[0], results)
    path, _ = report.write(several, results, tmp_path / "report")
    text = path.read_text()
    checker = Checker()
    checker.feed(text)
    assert path.name == "index.html"
    assert checker.open == []
    assert checker.outside == []
    assert len(checker.ids) == len(set(checker.ids))
    assert not re.search(r"url\((?!#)|@import", text)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(checker.ids)
    assert "currentColor" in text
    assert "Three &amp; more" in text
    assert "prefers-color-scheme: dark" in text
    assert "python -m benchmarks run study" in text


def test_every_file_of_a_report(load, results, tmp_path):
    """Markdown with its tables and links to figures that are there, in SVG and PNG."""
    study = load(STUDY)
    fill(study, results)
    report.write([study], results, tmp_path / "report")
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"study.html", "study.md", "study-curves.svg", "study-curves.png"}
    text = (tmp_path / "report/study.md").read_text()
    assert "(study-curves.svg)" in text
    assert re.search(r"\| Padam +\| +3 \| +90\.33 ± 0\.25 \|", text)


def test_a_report_of_nothing(load, results, tmp_path):
    """A study that has not been run yet says so."""
    path, found = report.write([load(STUDY)], results, tmp_path / "report")
    assert found == []
    assert "9 of the study still to come" in path.read_text()


def test_a_learning_rate_map(load, results, tmp_path):
    """Learning rate × p with a cell that diverged."""
    study = load(
        STUDY.replace('["train_loss", "error", "distance"]', '["map"]')
        .replace('["sgd", "adam", "padam"]', '"padam"\nhyper = { lr = [0.1, 1.0], partial = [0.125, 0.25] }')
        .replace('reference = "sgd"\n', "")
    )
    for run in study.runs():
        epochs = records(run, 90.0)
        if run.config.hyper["lr"] == 1.0:
            epochs[-1]["diverged"] = True
        results.write(run.config, "data", {}, epochs)
    report.write([study], results, tmp_path / "report")
    assert (tmp_path / "report/study-map.png").is_file()
