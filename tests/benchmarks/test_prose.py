"""Deduplicated prose: each paragraph once, and next to nothing of what is tested stands in the training text."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.workloads import data
from benchmarks.workloads.data import Arrays

WINDOW = 64


def _text(arrays: Arrays, part: str) -> str:
    windows: np.ndarray = getattr(arrays, f"x_{part}")
    return windows.tobytes().decode("ascii")


def _overlap(arrays: Arrays) -> float:
    """The share of the windows of 64 characters of the test text that also stand in the training text."""
    train, test = (_text(arrays, part) for part in ("train", "test"))
    seen = {train[i : i + WINDOW] for i in range(len(train) - WINDOW + 1)}
    windows = [test[i : i + WINDOW] for i in range(len(test) - WINDOW + 1)]
    return sum(window in seen for window in windows) / len(windows)


def test_what_is_tested_is_not_trained_on(tmp_path: Path) -> None:
    """Below one window in a hundred is in both parts (0.2 % on Python 3.11); of the text as it is, ten times as many.

    Python versions have different manuals; the bounds leave room for them.
    """
    prose, text = (_overlap(data.load(name, tmp_path)) for name in ("prose", "text"))
    assert prose < 0.01
    assert text > 5 * prose


def test_each_paragraph_stands_once(tmp_path: Path) -> None:
    """No paragraph comes twice, white space aside, and what is left is most of the manual."""
    arrays = data.load("prose", tmp_path)
    text = _text(arrays, "train") + _text(arrays, "test")
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    assert len(paragraphs) == len(set(paragraphs)) > 1000
    assert len(text) > 250_000


def test_windows_follow_each_other(tmp_path: Path) -> None:
    """Targets are the next characters, across windows too, and the last tenth of the windows is for testing."""
    arrays = data.load("prose", tmp_path)
    x, y = (np.concatenate([getattr(arrays, f"{letter}_{part}") for part in ("train", "test")]) for letter in "xy")
    assert x.shape[1] == 128
    np.testing.assert_array_equal(x.ravel()[1:], y.ravel()[:-1])
    assert len(arrays.x_test) == len(x) // 10


def test_another_manual_is_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manual of another Python version gives another fingerprint, so that its runs are other runs."""
    here = data.fingerprint("prose", tmp_path)
    topics = ["one paragraph " * 30 + "\n\n" + "another " * 200, "one paragraph   " * 30 + "\n\n" + "a third " * 200]
    monkeypatch.setattr(data, "_topics", lambda: topics)
    (tmp_path / "prose.npz").unlink()
    arrays = data.load("prose", tmp_path)
    assert arrays.fingerprint != here
    text = _text(arrays, "train") + _text(arrays, "test")
    assert text.count("one paragraph") == 30, "once, though the white space differs"
