"""The licence check of `make lint`."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("licenses", Path(__file__).parent.parent / "scripts" / "licenses.py")
licenses = importlib.util.module_from_spec(spec)
spec.loader.exec_module(licenses)


@pytest.mark.parametrize(("expression", "permitted"), [
    ("MIT", True), ("GPL-3.0-only", False), ("MIT OR GPL-2.0", True), ("GPL-2.0 OR MIT", True), ("MIT AND GPL-2.0", False),
    ("MIT/Apache-2.0", True), ("(MIT OR GPL-2.0) AND Unicode-3.0", True), ("(MIT AND GPL-2.0) OR AGPL-3.0", False),
    ("Apache-2.0 WITH LLVM-exception OR Apache-2.0", True), ("GPL-2.0 WITH Classpath-exception-2.0", False),
    ("MIT OR Apache-2.0 AND GPL-2.0", True)])
def test_expressions(expression, permitted):
    assert licenses.permits(expression) is permitted


@pytest.mark.parametrize("expression", ["", "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "AND", "MIT WITH"])
def test_no_expressions(expression):
    with pytest.raises(ValueError):
        licenses.permits(expression)


def test_complaints():
    fine = {"name": "a", "version": "1.0.0", "license": "MIT", "source": licenses.SOURCE}
    ours = fine | {"license": "PostgreSQL", "source": None}
    bad = [fine | {"license": "GPL-3.0-only"}, fine | {"license": None}, fine | {"source": "git+https://example.org/a"}]
    assert not list(licenses.complaints([fine, ours]))
    assert len(list(licenses.complaints([fine, *bad, ours]))) == 3
