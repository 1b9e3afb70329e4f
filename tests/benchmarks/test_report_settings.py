"""A report says what its arms were run with, and draws an optimizer in one colour throughout."""

import dataclasses

from reports import arm, report, series

from benchmarks.report.display import palette
from benchmarks.report.pages import chapter
from benchmarks.report.sections import settings, tables


def test_every_setting_is_in_the_table():
    """The page of a comparison is worth little if nobody can see the learning rates and schedules behind it."""
    first, second = arm("sgd"), arm("adam,lr=0.1", "adam")
    schedules = {"lr": {"kind": "cosine", "warmup": 0.1}}
    there = dataclasses.replace(
        second, config=dataclasses.replace(second.config, schedules=schedules, milestones=(3, 5), gamma=0.5)
    )
    (table,) = (
        one for one in tables.build(report(series(first, [90.0]), series(there, [91.0]))) if one.name == "settings"
    )
    assert table.cell("sgd", "hyperparameters").text == "lr 0.1, of sgd"
    assert table.cell("sgd", "besides").text == "–"
    besides = "milestones (after epochs [3, 5], factor 0.5), schedule of lr cosine (warmup 0.1)"
    assert table.cell("adam,lr=0.1", "besides").text == besides
    assert table.notes == ["All of them: batch size 128, epochs 2, recalibrate 60."]


def test_settings_as_people_read_them():
    """Groups, switches and powers of ten."""
    groups = [{"match": "biases", "weight_decay": 0.0}]
    assert settings.listed({"groups": groups, "fused": True, "eps": 1e-8}) == (
        "groups [(match biases, weight decay 0)], fused true, eps 1e−8"
    )


def test_an_entry_and_what_was_chosen_for_it_have_one_colour():
    """Curves over the trials are drawn by entry: the reference in ink there, too, and no colour of another arm."""
    arms, trials = [], []
    for name in ("sgd", "adam"):
        chosen = dataclasses.replace(arm(name, name), title=f"{name} (lr = 0.1)")
        arms.append(series(chosen, [90.0]))
        for lr in (0.1, 0.2, 0.3):
            tried = arm(f"{name},lr={lr}", name, group=name, split="validation")
            trials.append(series(dataclasses.replace(tried, refit=chosen.config), [90.0]))
    told = report(*arms, trials=trials, reference="sgd")
    looks = chapter.of_study(told, [], palette.styles(told.series, "sgd"), 100).looks
    assert looks.of(["Sgd", "Adam"]) == looks.of(["sgd (lr = 0.1)", "adam (lr = 0.1)"])


def test_modules_are_said_in_words():
    """The environment names what a study brought along without the braces of a dictionary, and nothing for nothing."""
    made = report(
        series(arm("sgd"), [90.0], modules={}),
        series(arm("lion"), [90.0], modules={"lion_pytorch": "0.2.5", "own": "ab"}),
    )
    assert made.environment["modules"] == "lion_pytorch 0.2.5, own ab"
    assert "modules" not in report(series(arm("sgd"), [90.0], modules={})).environment
