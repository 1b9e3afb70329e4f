"""Sheets of measurements: written row by row, and gone on with where something ended them."""

import json

import pytest

from benchmarks.speed.sheet import Sheet

FACTS = {"device": "cpu", "sources": "abc", "command": "a", "commit": None}


def measured(output, facts=FACTS, stop=None, counted=None):
    """Two tables of two rows; `stop` ends it before that row."""
    counted = [] if counted is None else counted
    sheet = Sheet("Title", facts, output, ("list",))
    sheet.fact("bandwidth", lambda: len(counted) + 1)
    for key in ("a1", "a2", "b1", "b2"):
        keys = {"list": key[0], "member": key[1]}
        if not sheet.lacks(keys):
            continue
        if key == stop:
            raise KeyboardInterrupt
        counted.append(key)
        sheet.add(keys, [{"ms": float(len(counted))}])
    return sheet, counted


def test_it_goes_on_where_it_stopped(tmp_path):
    """What is in the file is not measured again, facts that were measured included; the rest is added."""
    output = tmp_path / "sheet.md"
    with pytest.raises(KeyboardInterrupt):
        measured(output, stop="b1")
    saved = json.loads((tmp_path / "sheet.json").read_text())
    assert [row["member"] for row in saved["rows"]] == ["1", "2"]
    sheet, counted = measured(output, FACTS | {"command": "another", "commit": "c"})
    assert counted == ["b1", "b2"]
    assert [(row["list"], row["member"]) for row in sheet.rows] == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    saved = json.loads((tmp_path / "sheet.json").read_text())
    assert saved["rows"] == sheet.rows
    assert saved["environment"]["bandwidth"] == 1
    text = output.read_text()
    assert text.startswith("# Title\n\n- device: cpu\n")
    assert text.count("## a") == text.count("## b") == 1
    assert text.count("| member |") == 2


@pytest.mark.parametrize("other", [{"device": "cuda"}, {"sources": "def"}, {"rounds": 3}])
def test_rows_of_other_circumstances_are_not_mixed_in(tmp_path, capsys, other):
    """Another device, other code or another setting: the sheet begins anew and says why."""
    measured(tmp_path / "sheet.md")
    _, counted = measured(tmp_path / "sheet.md", FACTS | other)
    assert len(counted) == 4
    assert f"was measured with other {next(iter(other))}" in capsys.readouterr().out


def test_a_broken_file_is_begun_anew(tmp_path, capsys):
    """It is said, and no reason to stop."""
    (tmp_path / "sheet.json").write_text('{"rows": 1')
    _, counted = measured(tmp_path / "sheet.md")
    assert len(counted) == 4
    assert "is no sheet" in capsys.readouterr().out
