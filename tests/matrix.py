"""The matrix environment × mode: which members pass, written by the tests themselves.

A test that carries the marker ``environment("FSDP2")`` and has the parameters ``name``, a member, and ``mode``, the
options of a mode, is a case of that row and column; several tests may be. ``pytest --matrix FILE`` writes the outcome.
A test whose member is refused there by name, and which has checked that, says so: ``record_property("refused", why)``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

PROPERTY = "environment"
COLUMNS = ("loop", "foreach", "fused", "capturable", "differentiable")


def column(mode: Mapping[str, Any]) -> str:
    """The column of a mode's options."""
    on = [name for name, value in mode.items() if value]
    return on[0] if on else "loop" if mode else "default"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix", type=Path, help="write the matrix of environments, modes and members to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "environment(name): a case of a row of the matrix")
    path = config.getoption("--matrix")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(path))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("environment")
        params = getattr(getattr(item, "callspec", None), "params", {})
        if marker is not None and {"name", "mode"} <= params.keys():
            item.user_properties.append((PROPERTY, [marker.args[0], column(params["mode"]), params["name"]]))


class Recorder:
    """Collects what the cases come to.

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
        self._path.write_text(json.dumps({"torch": torch.__version__, "environments": rows}, indent=1) + "\n")
