"""What the tests write down about themselves: where which member passes, and with which versions all of them do.

``pytest --matrix FILE`` writes the matrix environment × mode. A test that carries the marker ``environment("FSDP2")``
and has the parameters ``name``, a member, and ``mode``, the options of a mode, is a case of that row and column, as
others may be. Other parameters of the test stand in braces: ``environment("checkpoint, {way}")``. One whose member is
refused there by name, and which has checked that, says so: ``record_property("refused", why)``.

``pytest --versions FILE`` enters how many tests passed with this Python and this torch into the table in that file.
"""

import json
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

PROPERTY = "environment"


def column(mode: Mapping[str, Any]) -> str:
    """The column of a mode's options."""
    on = [name for name, value in mode.items() if value]
    return on[0] if on else "loop" if mode else "default"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix", type=Path, help="write the matrix of environments, modes and members to this file")
    parser.addoption("--versions", type=Path, help="enter the outcome with this Python and torch into this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "environment(name): a case of a row of the matrix")
    if not hasattr(config, "workerinput"):
        for option, recorder in (("--matrix", Matrix), ("--versions", Versions)):
            if path := config.getoption(option):
                config.pluginmanager.register(recorder(path))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("environment")
        params = getattr(getattr(item, "callspec", None), "params", {})
        if marker is None:
            continue
        if not {"name", "mode"} <= params.keys():
            raise pytest.UsageError(f"{item.nodeid}: a case of an environment has the parameters name and mode")
        case = [marker.args[0].format(**params), column(params["mode"]), params["name"]]
        item.user_properties.append((PROPERTY, case))


class Matrix:
    """Collects what the cases of environments come to.

    Args:
        path: the file to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[tuple[str, str], dict[str, set[str]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties: dict[str, Any] = dict(report.user_properties)
        if PROPERTY not in properties or report.skipped or (report.passed and report.when != "call"):
            return
        environment, mode, member = properties[PROPERTY]
        outcome = "failed" if report.failed else "refused" if "refused" in properties else "passed"
        self._outcomes.setdefault((environment, mode), {}).setdefault(member, set()).add(outcome)

    def pytest_sessionfinish(self) -> None:
        rows: dict[str, dict[str, Any]] = {}
        for (environment, mode), members in sorted(self._outcomes.items()):
            refused = sorted(member for member, outcomes in members.items() if outcomes == {"refused"})
            failed = sorted(member for member, outcomes in members.items() if "failed" in outcomes)
            passing = len(members) - len(refused) - len(failed)
            cell = {"passing": passing, "total": len(members), "refused": refused, "failed": failed}
            rows.setdefault(environment, {})[mode] = cell
        record = {"torch": torch.__version__, "environments": rows}
        self._path.write_text(json.dumps(record, indent=1) + "\n")


class Versions:
    """Counts the outcomes of all tests.

    Args:
        path: the file of the table.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._counts[report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        rows = json.loads(self._path.read_text()) if self._path.exists() else []
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        row = versions | {outcome: self._counts[outcome] for outcome in ("passed", "skipped", "failed")}
        row["commit"] = commit.stdout.strip()
        rows = [it for it in rows if not versions.items() <= it.items()]
        text = ",\n ".join(map(json.dumps, sorted([*rows, row], key=lambda it: (it["torch"], it["python"]))))
        self._path.write_text(f"[{text}]\n")
