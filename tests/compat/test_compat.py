"""vector_ext answers every statement as pgvector does (golden outputs in expected/), but for differences.toml.

Needs a PostgreSQL with vector_ext installed; pgvector need not be. Environment: PG_CONFIG, or COMPAT_DSN for a server
that is already running (a superuser's).
"""

import os

import pytest

from compat import compare, corpus, execute, golden
from harness.installation import Installation

TOPICS = corpus.read_all()
STATEMENTS = [s for t in TOPICS for s in t.statements]
EXTENSIONS = ["vector_ext", "vector", "ivflsh"]  # vector: in pgvector's place; ivflsh: pgvector with the add-on


@pytest.fixture(scope="module", params=EXTENSIONS)
def server(request):
    if os.environ.get("COMPAT_DSN"):
        if request.param != "vector_ext":
            pytest.skip("COMPAT_DSN names a server with vector_ext")
        yield execute.Server(os.environ["COMPAT_DSN"], request.param)
    else:
        pg_config = request.getfixturevalue("drop_in").pg_config if request.param == "vector" else None
        if request.param == "ivflsh":
            if not os.environ.get("PGVECTOR_CONFIG"):
                pytest.skip("needs pgvector: make test-clients")
            peer = Installation(request.getfixturevalue("tmp_path_factory").mktemp("peer"), os.environ["PGVECTOR_CONFIG"])
            peer.add(request.getfixturevalue("drop_in"), "vector_ext*", "ivflsh*")
            pg_config = peer.pg_config
        with execute.new_cluster(pg_config) as cluster:
            yield execute.Server(cluster.url(), request.param)


@pytest.fixture(scope="module")
def result(server):
    topics = corpus.read_all(server.name)
    explained = compare.read_explained(server.name)
    comparison = compare.Comparison(topics, golden.read(topics), server.run_all(topics), explained)
    comparison.same_major = compare.same_major(server.version_text, golden.recorded()["postgresql"])
    return comparison


def test_golden_outputs_are_of_pgvector():
    about = golden.recorded()
    assert about["pgvector"] and about["postgresql"]
    assert len(STATEMENTS) >= 220


def test_explained_differences_name_statements():
    for ext in EXTENSIONS:
        assert set(compare.read_explained(ext)) <= {s.id for s in STATEMENTS}


def test_numbers_may_differ_in_their_last_digits_only():
    assert compare.close("[0.1,0.30000001]", "[0.1,0.3]")
    assert not compare.close("[0.1,0.3001]", "[0.1,0.3]")
    assert not compare.close("16777216", "16777217")
    assert not compare.close("{1:0.5}/3", "{2:0.5}/3")
    assert not compare.close("NaN", "1.0") and not compare.close("Infinity", "-Infinity")
    assert not compare.close("[1.0]", "[1.0,2.0]")
    assert not compare.close("\\x3f800000", "\\x3f800001")
    assert compare.close("1.7e-08", "0.0", absolute=1e-7) and not compare.close("1.7e-08", "0.0")


def test_errors_may_differ_in_the_wording_of_their_detail_only():
    def outcome(**error):
        return {"results": [{"error": {"state": "22000", "message": "no"} | error}]}

    def classes(a, b):
        return compare.classify(STATEMENTS[0], a, b)

    assert classes(outcome(), outcome()) == compare.EQUAL
    assert classes(outcome(detail="a"), outcome(detail="b")) == compare.WORDING
    assert classes(outcome(), outcome(detail="backtrace")) == compare.DIFFERENT
    assert classes(outcome(), outcome(state="22P02")) == compare.DIFFERENT
    assert classes(outcome(), outcome(message="No")) == compare.DIFFERENT
    assert classes(outcome(), {"results": [{"crash": True}]}) == compare.DIFFERENT


@pytest.mark.parametrize("statement", [s.id for s in STATEMENTS])
def test_same_as_pgvector(result, statement):
    if statement not in result.statements:
        pytest.skip("pgvector's words for indexes are not vector_ext's")
    verdict = result.verdict(statement)
    if verdict and not result.same_major and compare.SHOWN_BY_SERVER.search(result.statements[statement].sql):
        pytest.skip("PostgreSQL's own output is compared on the major version that it was recorded on")
    assert verdict is None, f"{verdict}\n{result.statements[statement].shown()}\n{result.diff(statement)}"
