"""The command line, from the outside: what it runs, skips, prints and returns."""

import pytest
import torch

from benchmarks import cli, session
from benchmarks.training.engine import train

STUDY = """
title = "Two optimizers"
seeds = 2
reference = "sgd"
figures = ["error"]
[run]
workload = "digits-mlp"
epochs = 2
max_steps = 3
recalibrate = 0
[[runs]]
optimizer = ["sgd", "padam"]
hyper.lr = 0.1
"""
TUNED = STUDY.replace("seeds = 2", "seeds = 2\ntuning = { trials = 2 }").replace("lr = 0.1", "lr = [0.1, 0.01]")


@pytest.fixture(autouse=True)
def _threads():
    """Leave torch's number of threads as it was."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Calls the command line in an empty directory that has ``study.toml``; returns its exit code and output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "tuned.toml").write_text(TUNED)

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def run(call, *arguments, study="study.toml"):
    return call("run", study, "--device", "cpu", "--threads", 1, *arguments)


def test_list_names_everything(call):
    """Studies, workloads and optimizers."""
    code, out = call("list")
    assert code == 0
    assert all(name in out for name in ("paper-table1", "cifar10-vgg16", "partial_yogi"))


def test_run_then_run_again(call, tmp_path):
    """The first time all four runs, the table and the page; the second time everything is skipped."""
    code, out = run(call)
    assert code == 0
    assert "4 of 4 runs to do" in out
    assert "[4/4] padam/seed1" in out
    assert "| Padam" in out
    assert (tmp_path / "runs/report/study.html").is_file()
    assert str(tmp_path / "runs/report/study.html") in out
    code, out = run(call)
    assert code == 0
    assert "0 of 4 runs to do, 4 done before" in out
    assert len(list((tmp_path / "runs").glob("*.jsonl"))) == 4


def test_only_and_seeds_select(call):
    """By run, by optimizer, and seeds as a count or a list."""
    assert "1 of 1 runs to do" in run(call, "--only", "padam/seed1")[1]
    assert "3 runs to do" in run(call, "--only", "sgd", "--seeds", 3)[1]
    out = run(call, "--dry-run", "--seeds", "1,5")[1]
    assert "skip    padam/seed1" in out
    assert "run     padam/seed5" in out


def test_dry_run_runs_nothing_and_estimates(call, tmp_path):
    """A calibrated guess at first, earlier runs' records later; it says which."""
    code, out = run(call, "--dry-run")
    assert code == 0
    assert "from a calibrated guess" in out
    assert not list(tmp_path.glob("runs/*.jsonl"))
    (tmp_path / "long.toml").write_text(STUDY.replace("max_steps = 3\n", ""))
    run(call, "--only", "sgd/seed0", study="long.toml")
    out = run(call, "--dry-run", study="long.toml")[1]
    assert "skip    sgd/seed0" in out
    assert "sgd/seed1 (0 s, from earlier runs)" in out
    assert "padam/seed1 (0 s, from earlier runs of other optimizers)" in out


def test_force_runs_again(call):
    """What is done is done again."""
    run(call, "--only", "sgd/seed0")
    assert "1 of 1 runs to do" in run(call, "--only", "sgd/seed0", "--force")[1]


def test_a_spent_budget_has_its_own_exit_code(call):
    """3, and the same command goes on."""
    code, out = run(call, "--time-budget", "0.000001")
    assert code == 3
    assert "4 left" in out
    assert run(call)[0] == 0


def test_an_interrupted_study_has_its_own_exit_code(call, monkeypatch):
    """130, with the state kept, and the rest runs the next time."""

    def interrupted(config, *, should_stop, **rest):
        should_stop.interrupted = True
        should_stop.now()
        return train(config, should_stop=should_stop, **rest)

    monkeypatch.setattr(session, "train", interrupted)
    assert run(call)[0] == 130
    assert "resume  sgd/seed0" in run(call, "--dry-run")[1]
    monkeypatch.setattr(session, "train", train)
    assert run(call)[0] == 0


def test_a_failed_run_is_shown_at_the_end(call, monkeypatch):
    """Exit code 1 and its traceback, with the other runs done and reported."""

    def fragile(config, **rest):
        if config.optimizer == "sgd":
            raise RuntimeError("out of memory")
        return train(config, **rest)

    monkeypatch.setattr(session, "train", fragile)
    code, out = run(call)
    assert code == 1
    assert "sgd/seed0 failed" in out
    assert "out of memory" in out
    assert "| Padam" in out


def test_a_tuned_study_runs_both_stages(call):
    """Two trials for each optimizer, then the chosen setting over all seeds; only the latter are in the results."""
    assert "these are the trials; 4 runs of the chosen settings follow" in run(call, "--dry-run", study="tuned.toml")[1]
    code, out = run(call, study="tuned.toml")
    assert code == 0
    assert out.count("4 of 4 runs to do") == 2
    rows = [line for line in out.splitlines() if line.startswith("| Padam")]
    assert rows
    assert len({row.split("|")[1].strip() for row in rows}) == 1
    assert run(call, study="tuned.toml")[1].count("0 of 4 runs to do") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "quik"), "unknown study 'quik'; did you mean 'quick'"),
        (("report", "quik"), "unknown study 'quik'"),
        (("run", "study.toml", "--device", "gpu9"), "unknown device 'gpu9': cpu, cuda or cuda:N"),
        (("report", "study.toml", "--results", "runz"), "there are no results at runz"),
        (("run", "regret", "--seeds", "2"), "--seeds means nothing to regret"),
        (("run", "regret", "--device", "cuda"), "regret runs on the CPU"),
        (("run", "study.toml", "--only", "padm"), "matches no run; did you mean 'padam'"),
        (("run", "study.toml", "--results", "study.toml"), "cannot write results to study.toml"),
    ],
)
def test_bad_input_is_an_error_without_a_traceback(call, arguments, message):
    """Exit code 2 and one line."""
    code, out = call(*arguments)
    assert code == 2
    assert message in out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seeds", "0"),
        ("--seeds", "many"),
        ("--seeds", "1,1"),
        ("--time-budget", "-1"),
        ("--jobs-per-device", "0"),
        ("--threads", "two"),
        ("--colour",),
    ],
)
def test_bad_options_are_refused(call, arguments):
    """Argparse's own exit, code 2."""
    with pytest.raises(SystemExit, match="2"):
        call("run", "study.toml", *arguments)


@pytest.mark.parametrize(
    "study", ["paper-bn", "paper-table1", "paper-table1-short", "paper-fig1", "paper-bias-correction"]
)
def test_dry_run_says_what_data_is_missing(call, monkeypatch, study):
    """It tells all runs and names the file to bring, with no data set and no network at hand."""

    def offline(*arguments, **options):
        raise OSError("no network")

    offline.filename = "archive.tar.gz"
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(f"torchvision.datasets.{name}", offline)
    code, out = run(call, "--dry-run", study=study)
    assert code == 0
    assert "run     " in out
    assert "data missing: cifar10 is not in data" in out
    assert "put cifar10.npz there" in out
    assert ("put cifar100.npz there" in out) == (study == "paper-fig1")


def test_missing_data_is_named(call, tmp_path):
    """A data set that is there but broken is an error before anything runs."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/digits.npz").write_bytes(b"not an archive")
    code, out = run(call)
    assert code == 2
    assert "digits.npz is corrupt" in out
