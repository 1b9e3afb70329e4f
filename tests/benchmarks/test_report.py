"""Reports: what the tables say of the runs, in words and in numbers, and how it compares with the paper."""

import dataclasses
import math
import statistics

import pytest
from stored import ENVIRONMENT, HEAD, diverged, fill, load, records

from benchmarks import studies
from benchmarks.base.store import Store
from benchmarks.report import published, write
from benchmarks.report.evidence import documented
from benchmarks.report.results import collect
from benchmarks.report.sections import costs, tables

STUDY = HEAD.replace("[run]", "target = 80.0\n[run]") + '[[runs]]\noptimizer = ["sgd", "adam", "padam"]\n'
SCORES = {"sgd": (90.0, 90.2, 90.4), "adam": (95.0, 95.1, 95.2), "padam": (90.1, 90.3, 90.6)}


@pytest.fixture
def results(tmp_path):
    return Store(tmp_path / "runs")


def built(study, results):
    """The tables by name."""
    return {table.name: table for table in tables.build(collect(study, results))}


def test_results_state_final_and_best(tmp_path, results):
    """Mean ± sd with the interval, the best epoch, and both train losses by their names."""
    study = load(tmp_path, STUDY)
    fill(study.runs(), results, SCORES)
    table = built(study, results)["results"]
    assert dict(zip(table.headers, table.texts[0], strict=True)) == {
        "optimizer": "SGD (momentum)",
        "runs": "3",
        "final, mean ± sd": "90.20 ± 0.20",
        "95 % interval": "[89.69, 90.69]",
        "best epoch, mean ± sd (epoch)": "90.20 ± 0.20 (2)",
        "train loss, evaluated": "0.2500 ± 0.0000",
        "train loss, online": "0.5000 ± 0.0000",
    }


def test_programs_get_numbers(tmp_path, results):
    """Every cell of a numeric column is a number or nothing, rows are known by label, names are unique snake case."""
    study = load(tmp_path, STUDY)
    fill(study.runs(), results, SCORES)
    for table in built(study, results).values():
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        assert all(name.isidentifier() and name.islower() for name in [*names, table.name])
        assert {row.key for row in table.rows} <= {"sgd", "adam", "padam"}
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                assert isinstance(cell.value, (int, float, type(None)) if column.numeric else str)
    table = built(study, results)["results"]
    assert table.cell("sgd", "final_mean").value == pytest.approx(90.2)
    assert table.cell("sgd", "final_sd").value == pytest.approx(0.2)
    assert table.cell("sgd", "final_low").value < 90 < table.cell("sgd", "final_high").value


def test_intervals_stay_within_an_accuracy(tmp_path, results):
    """Two runs near 100 % have an interval that ends below 100."""
    study = load(tmp_path, STUDY)
    fill(study.runs((0, 1)), results, {"sgd": (99.0, 99.9), "adam": (100.0, 99.8), "padam": (0.2, 0.1)})
    table = built(study, results)["results"]
    for label in ("sgd", "adam", "padam"):
        assert 0 <= table.cell(label, "final_low").value < table.cell(label, "final_high").value <= 100


def test_a_diverged_run_stays_in_the_table(tmp_path, results):
    """It counts as a run, without a score."""
    study = load(tmp_path, STUDY)
    fill(study.runs(), results, {**SCORES, "padam": (90.3, 90.6, None)})
    table = built(study, results)["results"]
    assert table.cell("padam", "runs").text == "3 (1 diverged)"
    assert table.cell("padam", "diverged").value == 1
    assert table.cell("padam", "final, mean ± sd").text == "90.45 ± 0.21"


def test_one_seed_makes_no_comparison(tmp_path, results):
    """A single run is shown without spread, interval or verdict."""
    study = load(tmp_path, STUDY.replace("seeds = 3", "seeds = 1"))
    fill(study.runs(), results, SCORES)
    found = built(study, results)
    assert found["results"].cell("adam", "final, mean ± sd").text == "95.00"
    assert found["results"].cell("adam", "95 % interval").text == "–"
    assert "against_reference" not in found


def test_time_to_target_leaves_evaluation_out(tmp_path, results):
    """The epoch that reaches the target, and the seconds of training until then; how many runs did if not all."""
    study = load(tmp_path, STUDY)
    fill(study.runs(), results, {**SCORES, "padam": (79.0, 81.0, 82.0)})
    cost = built(study, results)["cost"]
    assert cost.title == "Cost"
    assert cost.cell("adam", "epochs to 80").text == "2.0 ± 0.0"
    assert cost.cell("adam", "seconds to 80").text == "4.0 ± 0.0"
    assert cost.cell("padam", "epochs to 80").text == "2.0 ± 0.0 (2 of 3)"
    assert cost.cell("padam", "runs_to_target").value == 2


@pytest.mark.parametrize(
    "other", [{"device": "another CPU"}, {"torch": "3"}, {"threads": 2}, {"side_by_side": 4}, {"side_by_side": None}]
)
def test_costs_are_compared_under_equal_conditions_alone(tmp_path, results, other):
    """What was timed elsewhere, or with other runs beside it, is in a table of its own that names its conditions."""
    study = load(tmp_path, STUDY)
    mine = [run for run in study.runs() if run.arm.label != "padam" and run.config.seed < 2]
    fill(mine, results, SCORES)
    fill([run for run in study.runs() if run not in mine], results, SCORES, **other)
    found = costs.tables(collect(study, results).series)
    assert [[row.key for row in table.rows] for table in found] == [["sgd", "adam"], ["sgd", "adam", "padam"]]
    assert [table.cell("sgd", "runs").value for table in found] == [2, 1]
    assert len({table.title for table in found}) == 2
    assert all(any("other conditions" in note for note in table.notes) for table in found)


def test_modes_are_not_compared(tmp_path, results):
    """Neither are eager and captured steps."""
    study = load(tmp_path, STUDY)
    fill([run for run in study.runs() if run.arm.label == "sgd"], results, SCORES)
    for run in study.runs():
        if run.arm.label == "adam":
            results.write(run.config, "data", ENVIRONMENT, records(90.0, mode="graph", step_ms=float(run.config.seed)))
    eager, graph = costs.tables(collect(study, results).series)
    assert "eager" in eager.title
    assert "graph" in graph.title
    assert graph.cell("adam", "step, ms").text == "1.00 ± 1.00"
    assert "alone on its device" in graph.title


def test_the_effective_step_says_what_is_missing(tmp_path, results):
    """Under bias_correction="adam" a factor is not in it; the note names it, and the arms."""
    text = STUDY + '[[runs]]\noptimizer = "padam"\nlabel = "theirs"\nhyper.bias_correction = "adam"\n'
    study = load(tmp_path, text)
    fill(study.runs(), results, lambda run: 90.0 + run.config.seed)
    notes = " ".join(built(study, results)["diagnostics"].notes)
    assert "√c₂/c₁" in notes
    assert "Padam [theirs]" in notes
    fill(load(tmp_path, STUDY).runs(), results, SCORES)
    assert "√c₂/c₁" not in " ".join(built(load(tmp_path, STUDY), results)["diagnostics"].notes)


def test_published_numbers_stand_beside_ours(results):
    """Paper, replication, and both of our columns at the published epochs, for the paper's protocol alone."""
    study = studies.load("paper-table1")
    run = next(run for run in study.runs() if run.arm.label == "padam")
    results.write(run.config, "data", {}, records(*[80.0] * 49, 88.0, *[93.0] * 150, recalibrated=93.5))
    table = built(study, results)["published"]
    assert table.texts[0] == ["Padam", "50", "88.47 ± 0.55", "67.92", "88.00", "93.50"]
    assert table.texts[3] == ["Padam", "200", "93.45 ± 0.12", "93.06", "93.00", "93.50"]
    short = studies.load("cifar10-vgg16-short").arms[0].config
    assert not published.accuracy(short, "paper")


def test_deviations_are_computed():
    """Every setting that differs from the paper's is listed, with both values and where; nothing else is."""
    arm = next(arm for arm in studies.load("paper-table1").arms if arm.label == "padam")
    exact = dataclasses.replace(arm.config, precision="fp32", recalibrate=391)
    names = [one.setting for one in published.deviations([("Padam", exact)])]
    assert names == ["classifier", "train loss", "effective step"]
    other = dataclasses.replace(exact, epochs=50, hyper={**exact.hyper, "weight_decay": 0.1})
    found = {one.setting: one for one in published.deviations([("Padam", exact), ("Other", other)])}
    assert (found["epochs"].paper, found["epochs"].ours, found["epochs"].arms) == ("200", "50", "Other")
    assert (found["weight_decay"].paper, found["weight_decay"].ours) == ("0.0005", "0.1")
    assert found["classifier"].arms == "all"


def test_the_documentations_tables(results):
    """`docs/tables.py` gets its rows of `quick` and `eight-bit` from a store."""
    for name in documented.STUDIES:
        study = studies.load(name)
        for run in study.runs():
            key = "top1" if run.config.workload == "digits-mlp" else "perplexity"
            epochs = records(70.0, 90.0 + run.config.seed, key=key, optimizer_ms=1.0)
            results.write(run.config, "data", ENVIRONMENT, epochs)
        found = documented.STUDIES[name](collect(study, results))
        assert len(found.rows) == len(study.arms)
        assert all(len(row) == len(found.header) for row in found.rows)


def test_how_far_eight_bits_are_from_float32(results):
    """In standard errors of the two means, each of its own number of sound runs, against the same p and optimizer."""
    study = studies.load("eight-bit")
    for run in study.runs():
        narrow, small = "state_dtype" in run.config.hyper, run.config.workload == "digits-mlp"
        score = run.config.seed + (80.0 if run.config.hyper["partial"] == 0.5 else 60.0) + 3 * narrow
        lost = narrow and run.config.seed == 4
        epochs = records(score, key="top1" if small else "perplexity")
        results.write(run.config, "data", ENVIRONMENT, diverged() if lost else epochs)
    table = documented.eight_bit(collect(study, results))
    wide, narrow = [0, 1, 2, 3, 4], [3, 4, 5, 6]
    error = math.sqrt(statistics.variance(wide) / 5 + statistics.variance(narrow) / 4)
    away = (statistics.fmean(narrow) - statistics.fmean(wide)) / error
    assert [row[3].endswith(f"({away:+.1f})") for row in table.rows] == [False, True, True] * 4


def test_runs_that_never_ended_sound(tmp_path, results):
    """A study in which every run diverged has its tables, without a number in them."""
    study = load(tmp_path, STUDY)
    for run in study.runs():
        results.write(run.config, "data", ENVIRONMENT, diverged())
    found = built(study, results)
    assert found["results"].cell("adam", "final_mean").value is None
    assert found["against_reference"].cell("adam", "verdict").text == "not compared"


def test_no_table_takes_the_file_of_another(tmp_path, results):
    """Subjects that differ in signs alone have files of their own, and one with a long name can be reported on."""
    study = load(tmp_path, STUDY)
    arms = [
        dataclasses.replace(
            arm, label=f"{arm.label}{i}", config=dataclasses.replace(arm.config, data="own:data", data_options=options)
        )
        for i, options in enumerate([{"shift": 5}, {"shift": -5}, {"path": "long/" * 60}])
        for arm in study.arms
    ]
    study = dataclasses.replace(study, arms=tuple(arms), reference=None)
    fill(study.runs(), results, lambda run: 90.0 + run.config.seed)
    _, written = write([study], results, tmp_path / "report")
    assert len({table.name for table in written}) == len(written)
    assert all((tmp_path / "report" / "study" / f"{table.name}.csv").exists() for table in written)


def test_a_study_may_be_called_overall(tmp_path, results):
    """What is said of all studies together is written beside it, not over it."""
    found = [load(tmp_path, STUDY, name) for name in ("overall", "other")]
    fill(found[0].runs(), results, SCORES)
    write(found, results, tmp_path / "report")
    assert "Three & more" in (tmp_path / "report" / "overall.md").read_text()
    assert "All studies together" in (tmp_path / "report" / "overall-studies.md").read_text()


def test_a_title_stays_in_its_cell(tmp_path, results):
    """A bar or a new line in a title would put the numbers under the headings of others."""
    study = load(tmp_path, HEAD + '[[runs]]\noptimizer = "sgd"\ntitle = "a | b\\nc"\n')
    fill(study.runs(), results, SCORES)
    lines = built(study, results)["results"].markdown().splitlines()
    assert lines[4].startswith(r"| a \| b c ")
    assert len({line.replace(r"\|", "").count("|") for line in lines[2:5]}) == 1
