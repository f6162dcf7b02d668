"""Options and the report of `make test-clients`."""

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clients.places import WAYS

HERE = Path(__file__).parent
outcomes = {}  # (group, client): {way: (outcome, why)}


def pytest_addoption(parser):
    group = parser.getgroup("clients", "client libraries, see `make test-clients`")
    group.addoption("--only", default="", help="groups of clients, with commas: python, frameworks, node, rust, ruby")
    group.addoption("--report", type=Path, help="where to write the table of clients and ways")


def pytest_configure(config):
    config.addinivalue_line("markers", "client(group, name, way): what a test tries, for the report")


def pytest_collection_modifyitems(config, items):
    only = {name for name in config.getoption("--only", "").split(",") if name}
    if only:
        chosen = [item for item in items if (mark := item.get_closest_marker("client")) and mark.args[0] in only]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    mark = item.get_closest_marker("client")
    if mark and (report.when == "call" or not report.passed):
        group, name, way = mark.args
        why = ""
        if report.skipped:
            why = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            why = call.excinfo.exconly().splitlines()[-1][:200]
        outcomes.setdefault((group, name), {})[way] = (report.outcome, why)
    return report


def versions():
    """What was tried, by the group of clients: name → version."""
    def python(executable):
        listed = json.loads(subprocess.run([executable, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
                                           text=True, capture_output=True, check=True).stdout)
        return {one["name"].lower(): one["version"] for one in listed}

    found = {"python": python(sys.executable)}
    if executable := os.environ.get("FRAMEWORKS_PYTHON"):
        found["frameworks"] = python(executable)
    found["node"] = json.loads((HERE / "node" / "package.json").read_text())["dependencies"]
    lock = (HERE / "rust" / "Cargo.lock").read_text()
    found["rust"] = dict(re.findall(r'\[\[package\]\]\nname = "([^"]+)"\nversion = "([^"]+)"', lock))
    if os.environ.get("CLIENTS_RUBY"):
        gems = subprocess.run(["gem", "list"], text=True, capture_output=True).stdout
        found["ruby"] = dict(re.findall(r"^(\S+) \((?:default: )?([^,)]+)", gems, re.MULTILINE))
    return found


def pytest_sessionfinish(session):
    path = session.config.getoption("--report", None)
    if not path or not outcomes:
        return
    from clients.test_clients import PACKAGES, WHAT
    known = versions()
    reasons = []

    def cell(result):
        if result is None:
            return "not run"
        outcome, why = result
        if outcome == "passed":
            return "passed"
        if why not in reasons:
            reasons.append(why)
        return f"{'not possible' if outcome == 'skipped' else '**failed**'} [{reasons.index(why) + 1}]"

    lines = ["# Clients", "", "Written by `make test-clients ARGS=\"--report docs/clients.md\"`; what is compared is said in "
             "[migration.md](migration.md#clients).", "",
             f"{datetime.date.today()}, {subprocess.run([os.environ['PG_CONFIG'], '--version'], text=True, capture_output=True).stdout.strip()}, "
             f"pgvector {os.environ.get('PGVECTOR_VERSION', '?')}", "",
             "| client | version | what | " + " | ".join(WAYS) + " |", "|---|---|---|" + "---|" * len(WAYS)]
    for (group, name), results in outcomes.items():
        package = PACKAGES.get(name, name)
        version = known.get(group, {}).get(package.lower(), "?")
        lines.append(f"| {package} | {version} | {WHAT.get(name, '')} | " + " | ".join(cell(results.get(way)) for way in WAYS) + " |")
    if reasons:
        lines += ["", *(f"{i}. {why}" for i, why in enumerate(reasons, 1))]
    path.write_text("\n".join(lines) + "\n")
