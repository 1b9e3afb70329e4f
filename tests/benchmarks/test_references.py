"""References: the object that is named is the one that comes, and what is wrong with a name is said."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.base import references
from benchmarks.base.references import Catalogue, Item, ReferenceLookupError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with modules of somebody, known to `references` until the test ends."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(references.VARIABLE, "")
    (tmp_path / "own_nets.py").write_text("class Net:\n    def make(): return 'made'\nwidth = 3\n")
    (tmp_path / "own_needs.py").write_text("import something_not_installed\n")
    (tmp_path / "own_broken.py").write_text("raise RuntimeError('not today')\n")
    references.search(tmp_path)
    yield tmp_path
    for name in ("own_nets", "own_needs", "own_broken"):
        sys.modules.pop(name, None)


def test_a_reference_is_its_object(folder):
    """Of an installed module, of one in a folder that was named, and an attribute of an object."""
    assert references.load("collections.abc:Mapping") is __import__("collections").abc.Mapping
    assert references.load("own_nets:width") == 3
    assert references.load("own_nets:Net.make")() == "made"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("padam", "'padam' is not of the form 'module:object'"),
        ("own_nets:", "'own_nets:' is not of the form"),
        (":Net", "':Net' is not of the form"),
        ("own_nets:Net()", r"'own_nets:Net\(\)' is not of the form"),
        ("own_nest:Net", "'own_nest:Net': there is no module 'own_nest' beside the study"),
        ("own_nets.deep:Net", "there is no module 'own_nets.deep'"),
        ("own_nets:Nett", "'own_nets:Nett': module 'own_nets' has no 'Nett'; did you mean 'Net'"),
        ("own_nets:Net.mak", "has no 'mak'; did you mean 'make'"),
        ("own_needs:Net", "module 'own_needs' needs 'something_not_installed', which is not installed"),
        ("own_broken:Net", "module 'own_broken' cannot be imported: RuntimeError: not today"),
    ],
)
def test_what_is_wrong_with_a_reference_is_said(folder, reference, message):
    """The reference, the module, and the nearest name; also where the module itself is at fault."""
    with pytest.raises(ReferenceLookupError, match=message):
        references.load(reference)


def test_processes_find_the_same_modules(folder):
    """Ray's workers and spawned processes inherit the folders by the environment."""
    code = "from benchmarks.base import references; print(references.load('own_nets:width'))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd="/")
    assert done.stdout == "3\n", done.stderr


def test_a_folder_does_not_hide_what_is_installed(folder):
    """It comes last, so that a file called msgspec.py beside a study changes nothing."""
    assert sys.path[-1] == str(folder)
    references.search(folder)
    assert sys.path.count(str(folder)) == 1


def distribution(folder, name, text):
    """An installed distribution with these entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(text)


def test_entry_points_join_a_catalogue(folder):
    """With the distribution's name; a name that is taken keeps its meaning, and the newcomer can still be named."""
    distribution(folder, "own", "[group.of.tests]\nnet = own_nets:Net\nold = own_nets:width\n")
    importlib.invalidate_caches()
    catalogue = Catalogue("net", {"old": Item("collections:OrderedDict", "An old one")}, "group.of.tests")
    assert list(catalogue) == ["old", "net", "old@own"]
    assert catalogue["net"].distribution == "own"
    assert catalogue.load("old") is __import__("collections").OrderedDict
    assert catalogue.load("old@own") == 3
    assert catalogue.load("own_nets:width") == 3
    with pytest.raises(ReferenceLookupError, match="unknown net 'nett'; did you mean 'net'"):
        catalogue.load("nett")
