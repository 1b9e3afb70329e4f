"""The tests' own record: what a matrix says of members is what came out for them."""

import json
from typing import Any

import pytest

# Cases of nobody: where the project's own are looked for they are not to be seen.
CASES = """
import pytest
from pytest import mark

LOOP = {"foreach": False}

@mark.environment("one {way}")
@mark.parametrize("way", ["a", "b"])
@mark.parametrize(("name", "mode"), [("adam", LOOP), ("muon", LOOP), ("adam", {"fused": True})])
def test_both_ways(name, mode, way):
    assert (name, way) != ("muon", "b")

@mark.environment("two")
@mark.parametrize(("name", "mode"), [("adam", LOOP), ("muon", LOOP), ("soap", LOOP), ("sign", LOOP)])
def test_first(name, mode, record_property):
    if name in ("muon", "soap"):
        record_property("refused", "a vector")
    if name == "sign":
        pytest.skip("not here")

@mark.environment("two")
@mark.parametrize(("name", "mode"), [("soap", LOOP)])
def test_second(name, mode):
    pass
"""


def cell(passing: int, total: int, refused: tuple[str, ...] = (), failed: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"passing": passing, "total": total, "refused": [*refused], "failed": [*failed]}


def test_the_matrix_is_what_came_out(pytester: pytest.Pytester) -> None:
    """A member passes where all of its cases do; one that is refused in all of them does not, nor counts a skip."""
    pytester.makepyfile(CASES)
    pytester.runpytest_inprocess("-p", "records", "-p", "no:cacheprovider", "--matrix", "matrix.json")
    record = json.loads((pytester.path / "matrix.json").read_text())
    assert record["environments"] == {
        "one a": {"loop": cell(2, 2), "fused": cell(1, 1)},
        "one b": {"loop": cell(1, 2, failed=("muon",)), "fused": cell(1, 1)},
        "two": {"loop": cell(2, 3, refused=("muon",))},
    }


def test_a_case_without_a_member_is_no_case(pytester: pytest.Pytester) -> None:
    """A test that forgets its parameters would be missing from the matrix without a word."""
    pytester.makepyfile("""
        from pytest import mark

        @mark.environment("three")
        def test_nobody():
            pass
    """)
    result = pytester.runpytest_inprocess("-p", "records", "-p", "no:cacheprovider")
    result.stderr.fnmatch_lines(["*test_nobody: a case of an environment has the parameters name and mode*"])


def test_versions_are_counted(pytester: pytest.Pytester) -> None:
    """Each test counts once, and an earlier row of the same versions gives way."""
    pytester.makepyfile("import pytest\n\ndef test_a(): pass\ndef test_b(): assert False\ndef test_c(): pytest.skip()")
    for _ in range(2):
        pytester.runpytest_inprocess("-p", "records", "-p", "no:cacheprovider", "--versions", "versions.json")
    (row,) = json.loads((pytester.path / "versions.json").read_text())
    assert (row["passed"], row["failed"], row["skipped"]) == (1, 1, 1)
