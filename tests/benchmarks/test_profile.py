"""Seconds per epoch, from a few steps of a narrow network."""

import json

import pytest
import torch
from synthetic import cifar10

from benchmarks import cli
from benchmarks.speed import profile

CPU = torch.device("cpu")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Calls the command on 96 small images in batches of 6: 16 steps an epoch, of which 8 warm up."""
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    cifar10(tmp_path)

    def run(*arguments):
        places = ["--data-dir", str(tmp_path), "--device", "cpu", "--threads", "1"]
        code = cli.main(["profile", *places, "--width", "0.0625", "--batch-size", "6", *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_eager_and_compiled_alone_and_side_by_side(call, tmp_path, monkeypatch):
    """A row for each mode and number of runs, compiled where it says so."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    compiled: list[torch.nn.Module] = []
    output = tmp_path / "profile.md"
    code, shown = call("--workloads", "cifar10-vgg16", "--jobs", "1,2", "--steps", "2", "--output", str(output))
    assert code == 0, shown
    saved = json.loads(output.with_suffix(".json").read_text())
    assert [(row["mode"], row["side by side"]) for row in saved["rows"]] == [
        ("eager", "1"),
        ("eager", "2"),
        ("compiled", "1"),
        ("compiled", "2"),
    ]
    assert len(compiled) == 3
    for row in saved["rows"]:
        assert row["workload"] == "cifar10-vgg16"
        assert row["s/epoch"] == pytest.approx(row["s/epoch/runs"] * int(row["side by side"]))
        assert row["s/epoch"] == pytest.approx(16 * row["ms/step"] / 1e3)
    assert "## cifar10-vgg16" in shown
    assert saved["environment"]["batch_size"] == 6


def test_the_network_is_compiled_inside_the_step(tmp_path, monkeypatch):
    """One graph of the whole network, which the engine then trains; without Inductor, which would take a minute."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile(module, backend=backend))
    case = profile.Case(profile.configure("cifar10-vgg16", "sgd", 6, 1 / 16), "compiled", 1)
    row = profile.measure(case, cifar10(tmp_path), CPU, 2)
    assert len(graphs) == 1
    assert row["s/epoch"] > 0


def test_what_goes_wrong_in_a_thread_is_told(tmp_path, monkeypatch):
    """The error of one run ends all of them and is the one that is raised."""
    begin = profile._begin

    def fragile(case, seed, *rest):
        if seed == 1:
            raise MemoryError("too much")
        return begin(case, seed, *rest)

    monkeypatch.setattr(profile, "_begin", fragile)
    case = profile.Case(profile.configure("cifar10-vgg16", "sgd", 6, 1 / 16), "eager", 2)
    with pytest.raises(MemoryError, match="too much"):
        profile.measure(case, cifar10(tmp_path), CPU, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--modes", "captured"), "mode captured needs CUDA graphs: on cpu there are eager, compiled"),
        (("--optimizer", "padm"), "unknown optimizer 'padm'; did you mean 'padam'?"),
        (("--workloads", "text-lstm"), "unknown option 'width' of text-lstm"),
        (("--batch-size", "20"), "an epoch has 5 steps of 20, too few to time"),
        (("--device", "cpu,cpu"), "one device"),
        (("--workloads", "cifar10-vgg"), "did you mean 'cifar10-vgg16'?"),
        (("--modes", "graph"), "unknown mode 'graph'"),
    ],
)
def test_bad_input(call, arguments, message):
    """Exit code 2 and one line."""
    code, shown = call(*arguments)
    assert code == 2
    assert message in shown


def test_bad_options(call, capsys):
    """Argparse's own exit, code 2."""
    with pytest.raises(SystemExit, match="2"):
        call("--jobs", "1,0")
    assert "at least 1" in capsys.readouterr().err
