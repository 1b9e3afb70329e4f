"""Step times: every member beside its references, on tensors small enough for a test."""

import json
import math

import pytest
import torch
from torch.nn import Parameter

from benchmarks import cli
from benchmarks.speed import sheet, steptime
from partial_adaptive import MEMBERS, Padam, PartialSM3


@pytest.fixture
def tiny(monkeypatch):
    """Two lists of small tensors in the place of the large ones, and a copy to match."""
    monkeypatch.setattr(steptime, "LISTS", {"pair": lambda: [(3, 4), (5,)], "one": lambda: [(7,)]})
    monkeypatch.setattr(steptime, "copy_bandwidth", lambda device, rounds: 1e9)


def parameters(shapes=((3, 4), (5,))):
    params = [Parameter(torch.randn(shape)) for shape in shapes]
    for param in params:
        param.grad = torch.randn_like(param)
    return params


@pytest.mark.usefixtures("tiny")
def test_every_member_beside_its_references(tmp_path):
    """A row for each mode and reference, with ratios where there is something to divide by; Markdown and JSON agree."""
    output = tmp_path / "new" / "steptime.md"
    rows = steptime.run(torch.device("cpu"), ["pair"], list(MEMBERS), 2, output)
    for name, member in MEMBERS.items():
        mine = {row["optimizer"]: row for row in rows if row["member"] == name}
        ours = [row for label, row in mine.items() if label.startswith(f"{name} ")]
        references = [row for row in mine.values() if row not in ours]
        settings = len(steptime.PARTIALS.get(name, [1 / 8])) * len(steptime.VARIANTS.get(name, [{}]))
        assert len(ours) == (3 if member.elementwise else 2) * settings
        assert any("fused" in row["optimizer"] for row in ours) == member.elementwise
        assert bool(references) == (member.counterpart is not None)
        assert all(row["ms"] > 0 and row["bandwidth %"] > 0 for row in ours)
        assert all((row["vs fastest"] is not None) == bool(references) for row in ours)
        assert all(row["vs same mode"] is not None for row in ours if references and "fused" not in row["optimizer"])
        assert all(row["vs fastest"] is None and row["bandwidth %"] is None for row in references)
    labels = [row["optimizer"] for row in rows]
    assert {"torch Adam(amsgrad) foreach", "torch Adam(amsgrad) fused", "the authors' loop"} <= set(labels)
    saved = json.loads(output.with_suffix(".json").read_text())
    assert saved["rows"] == rows
    assert saved["environment"]["rounds"] == 2
    text = output.read_text()
    assert all(f"| {label} " in text for label in labels)
    assert text.count("## pair, ") == len(MEMBERS)


def test_contenders_share_their_state():
    """One set of tensors serves all: the ones of the first contender."""
    params, shared = parameters(), {}
    optimizers = [one.build(params) for one in steptime.contenders(MEMBERS["padam"], (1 / 8, 0.3))]
    for optimizer in optimizers:
        optimizer.step()
        steptime._share(optimizer, shared)
        optimizer.step()
    for param in params:
        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            assert len({optimizer.state[param][name].data_ptr() for optimizer in optimizers}) == 1
        assert all(int(optimizer.state[param]["step"]) == 2 for optimizer in optimizers)


def test_a_reference_that_the_device_refuses_is_left_out():
    """A contender of the family that fails is an error; a reference is not there."""

    def refuse(params):
        raise RuntimeError("not on this device")

    sound, *_ = steptime.contenders(MEMBERS["padam"], (1 / 8,))
    broken = [steptime.Contender("broken", refuse, ours, "fused") for ours in (False, True)]
    times = steptime.measure([sound, broken[0]], parameters(), 1)
    assert list(times) == [sound.label]
    assert [row["optimizer"] for row in steptime.rows(times, [sound, broken[0]], 1, 1.0)] == [sound.label]
    with pytest.raises(RuntimeError, match="not on this device"):
        steptime.measure([sound, broken[1]], parameters(), 1)


def test_the_ratio_is_the_median_over_pairs():
    """Each round is compared with the same round of the reference."""
    own, other = steptime.Times([], [1.0, 4.0, 9.0]), steptime.Times([], [1.0, 2.0, 3.0])
    assert steptime._ratio(own, {"other": other}, ["other"], ours=True) == 2.0
    assert steptime._ratio(own, {"other": other}, ["other"], ours=False) is None


def test_extra_memory_is_the_peak():
    """What lives at the same time counts, however much is made in turns or worked in place."""
    x = torch.ones(100)
    assert steptime._extra_memory(lambda: (x + 1).mul_(2) + (x + 2), cuda=False) == 1200
    assert steptime._extra_memory(lambda: [(x + i).sum().item() for i in range(3)], cuda=False) == 404
    assert steptime._extra_memory(lambda: x.mul_(1), cuda=False) == 0


def test_the_authors_loop_is_padam_with_their_correction():
    """The yardstick computes what it claims to."""
    pair = []
    for cls, options in ((steptime.AuthorsLoop, {}), (Padam, {"bias_correction": "adam"})):
        torch.manual_seed(1)
        params = [Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 4), (5,))]
        optimizer = cls(params, lr=0.1, partial=1 / 8, **options)
        for _ in range(10):
            for param in params:
                param.grad = torch.randn_like(param)
            optimizer.step()
        pair.append(torch.cat([param.detach().flatten() for param in params]))
    torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)


def test_gpt2_is_gpt2():
    """As many tensors and parameters as the published model."""
    assert len(steptime.gpt2()) == 148
    assert sum(map(math.prod, steptime.gpt2())) == 124_439_808


@pytest.mark.parametrize(("partial", "size"), [(1 / 8, 36), (0.0, 20)])
def test_floor_bytes(partial, size):
    """Padam reads θ, g, m, v, v̂ and writes all but g; without a scale it leaves v and v̂ alone."""
    params = parameters()
    assert steptime.floor_bytes(Padam(params, lr=0.1, partial=partial), params) == 17 * size


def test_floor_bytes_of_whole_tensors():
    """SM3 reads θ and g, writes θ, and reads and writes a number for each of 3 rows, 4 columns and 5 elements."""
    params = parameters()
    assert steptime.floor_bytes(PartialSM3(params, lr=0.1), params) == 17 * 12 + (3 + 4 + 5) * 8


@pytest.mark.usefixtures("tiny")
def test_command(tmp_path, monkeypatch, capsys):
    """Only what is asked for is measured; the table is printed and written."""
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    arguments = ["--device", "cpu", "--lists", "one", "--members", "padam,partial_yogi", "--rounds", "1"]
    assert cli.main(["steptime", *arguments, "--threads", "1", "--output", str(tmp_path / "a.md")]) == 0
    shown = capsys.readouterr().out
    assert "## one, partial_yogi" in shown
    assert "pair" not in shown
    assert {row["list"] for row in json.loads((tmp_path / "a.json").read_text())["rows"]} == {"one"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds", "0"), "at least 1"),
        (("--output", "table.txt"), "must end in .md"),
    ],
)
def test_bad_options(arguments, message, capsys):
    """Argparse's own exit, code 2, and what is allowed."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["steptime", *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lists", "resnet"), "unknown list 'resnet'; did you mean 'resnet18'?"),
        (("--members", "padm"), "unknown member 'padm'; did you mean 'padam'?"),
        (("--device", "cpu,cpu"), "one device"),  # times of several devices are several tables
    ],
)
def test_unknown_names(arguments, message, capsys):
    """Exit code 2 and one line that says what was probably meant."""
    assert cli.main(["steptime", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_table_of_numbers_and_gaps():
    """Three digits, none for what is not there, columns in line."""
    text = sheet.table(
        [{"name": "a", "ms": 0.123456, "n": 1234.5, "gap": None}, {"name": "bb", "ms": 2, "n": 3.0, "gap": "x"}]
    )
    assert text.splitlines() == [
        "| name |    ms |    n | gap |",
        "| ---- | ----: | ---: | --: |",
        "| a    | 0.123 | 1234 |   – |",
        "| bb   |     2 |    3 |   x |",
    ]


def test_what_is_slower_is_said() -> None:
    """Every ratio above 1 is in the text under the tables, by list and optimizer; what is faster is not."""
    rows = [
        {"list": "small", "optimizer": "padam loop", "vs same mode": 1.25, "vs fastest": 3.0},
        {"list": "small", "optimizer": "padam fused", "vs same mode": 0.5, "vs fastest": 0.5},
        {"list": "small", "optimizer": "torch Adam", "vs same mode": None, "vs fastest": None},
    ]
    text = steptime.slower(rows)
    assert "in the same mode: small padam loop 1.25." in text
    assert "in its fastest mode: small padam loop 3." in text
    assert "fused" not in text
    assert "in the same mode: none." in steptime.slower(rows[1:])


def test_muon_beside_torchs(monkeypatch):
    """On matrices torch.optim.Muon is beside both ways of taking the power; on vectors it is left out."""
    pytest.importorskip("torch.optim._muon", reason="torch.optim.Muon came with torch 2.9")
    monkeypatch.setattr(steptime, "copy_bandwidth", lambda device, rounds: 1e9)
    monkeypatch.setattr(steptime, "LISTS", {"pair": lambda: [(3, 4), (4, 3)], "vectors": lambda: [(5,)]})
    rows = steptime.run(torch.device("cpu"), ["pair", "vectors"], ["partial_muon"], 2, None)
    pair = {row["optimizer"]: row for row in rows if row["list"] == "pair"}
    assert "torch Muon loop" in pair
    assert "torch Muon loop" not in {row["optimizer"] for row in rows if row["list"] == "vectors"}
    for p, way in ((0.5, "eigh"), (0.125, "newton_schulz_bfloat16")):
        assert pair[f"partial_muon p={p:g} {way} loop"]["vs same mode"] > 0
        assert pair[f"partial_muon p={p:g} {way} foreach"]["vs fastest"] > 0
