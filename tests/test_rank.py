"""BM25 as an inner product, fused rankings, diverse results."""

import json
import re
from pathlib import Path

import bm25s
import numpy as np
import psycopg
import pytest
from psycopg import errors

WORDS = [f"word{i}" for i in range(400)]


def texts(count, seed, words=WORDS):
    """Texts of few to many words, of which the first are frequent."""
    random = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, len(words) + 1)
    lengths = random.integers(1, 60, count)
    return [" ".join(random.choice(words, length, p=frequency / frequency.sum())) for length in lengths]


def value(db, query, *parameters):
    return db.execute(query, parameters).fetchone()[0]


@pytest.fixture
def documents(db):
    """A table of texts, and their stats in a table of their own."""
    bodies = texts(500, 1)
    db.execute("CREATE TABLE documents (id integer PRIMARY KEY, body text, words tsvector)")
    with db.cursor().copy("COPY documents (id, body) FROM STDIN") as copy:
        for row in enumerate(bodies):
            copy.write_row(row)
    db.execute("UPDATE documents SET words = to_tsvector('simple', body)")
    return bodies


@pytest.mark.parametrize("k1, b", [(1.2, 0.75), (0.9, 0.4), (2.0, 0.0), (1.5, 1.0)])
def test_scores_equal_a_library_of_bm25(db, documents, k1, b):
    db.execute("CREATE TABLE stats AS SELECT bm25_stats(words, %s, %s) AS stats FROM documents", (k1, b))
    corpus = [body.split() for body in documents]
    reference = bm25s.BM25(method="lucene", k1=k1, b=b)
    reference.index(corpus, show_progress=False)
    for query in ["word0", "word3 word50 word7", "word1 word399 word20 word21", "word9 word9 word2"]:
        want = reference.get_scores(query.split())
        got = np.array(
            db.execute(
                "SELECT -(bm25_document(words, stats) <#> bm25_query(to_tsvector('simple', %s), stats))"
                " FROM documents, stats ORDER BY id",
                (query,),
            ).fetchall()
        )[:, 0]
        assert np.abs(got - want).max() <= 1e-4 * want.max()
        assert (got == 0).sum() == (want == 0).sum() < len(corpus)


def test_a_tsquery_scores_its_words_that_are_not_negated(db, documents):
    db.execute("CREATE TABLE stats AS SELECT bm25_stats(words) AS stats FROM documents")

    def query(text, function="to_tsquery"):
        return value(db, f"SELECT bm25_query({function}('simple', %s), stats)::text FROM stats", text)

    one, two = query("word5"), query("word6")
    assert query("word5 & !word6") == one == query("!(!word5 | word6)") == query("word5:AB")
    both = query("word5 | word6")
    assert both == query("word5 & word6") == query("word5 <-> word6")
    assert both == query("word5 word6", "plainto_tsquery") == query("word5 word6 -word7", "websearch_to_tsquery")
    elements = {part for text in (one, two) for part in re.findall(r"\d+:[0-9.]+", text)}
    assert set(re.findall(r"\d+:[0-9.]+", both)) == elements and len(elements) == 2
    assert query("") == query("!word5") == "{}/1000000000"
    with pytest.raises(errors.FeatureNotSupported, match="cannot score a prefix") as caught:
        query("word:*")
    assert "whole words" in caught.value.diag.message_detail


def test_words_that_nobody_has_counted_find_the_documents_that_come_later(db, documents):
    db.execute("CREATE TABLE stats AS SELECT bm25_stats(words) AS stats FROM documents")
    best = db.execute(
        "WITH more AS (SELECT id, words FROM documents UNION ALL SELECT -1, to_tsvector('simple', 'word0 unheard'))"
        " SELECT id FROM more, stats"
        " ORDER BY bm25_document(words, stats) <#> bm25_query(to_tsquery('simple', 'unheard | word0'), stats) LIMIT 1"
    ).fetchone()
    assert best == (-1,)


def test_weights_of_classes(db):
    db.execute(
        "CREATE TABLE documents AS SELECT setweight(to_tsvector('simple', title), 'A') || to_tsvector('simple', body) AS words"
        " FROM (VALUES ('one two', 'three four'), ('three', 'one one one four')) AS t (title, body)"
    )
    plain, weighted = (
        value(db, f"SELECT bm25_stats(words{more}) FROM documents") for more in ("", ", 1.2, 0.75, '{1, 1, 1, 10}'")
    )
    assert json.loads(plain)["length"] == 9 and json.loads(weighted)["length"] == 2 * 10 + 2 + 10 + 4

    def order(stats):
        rows = db.execute(
            "SELECT words FROM documents ORDER BY bm25_document(words, %s) <#> bm25_query(to_tsquery('one'), %s)", (stats, stats)
        )
        return ["two" in row[0] for row in rows]

    assert order(plain) == [False, True], "three occurrences"
    assert order(weighted) == [True, False], "one of class A"
    nothing = value(db, "SELECT bm25_stats(words, 1.2, 0.75, '{0, 0, 0, 0}') FROM documents")
    assert json.loads(nothing)["frequencies"] == {}
    assert value(db, "SELECT bm25_document(words, %s)::text FROM documents LIMIT 1", nothing) == "{}/1000000000"
    assert value(db, "SELECT bm25_document('one two', %s)::text", plain).count(":") == 2, "without positions"


def test_a_generated_column_needs_the_parameters_only(db, documents):
    db.execute("CREATE TABLE stats AS SELECT bm25_stats(words) AS stats FROM documents")
    parameters = value(db, "SELECT bm25_parameters(stats)::text FROM stats")
    assert "frequencies" not in parameters
    db.execute(
        "ALTER TABLE documents ADD terms sparsevec GENERATED ALWAYS AS"
        f" (bm25_document(to_tsvector('simple', body), '{parameters}')) STORED"
    )
    same = "SELECT bool_and(terms = bm25_document(words, stats)) FROM documents, stats"
    assert value(db, same)
    with pytest.raises(errors.InvalidParameterValue, match="has no frequencies") as caught:
        value(db, "SELECT bm25_query(to_tsquery('one'), %s)", parameters)
    assert "bm25_parameters" in caught.value.diag.message_detail


def test_a_large_vocabulary_is_counted_exactly_and_read_in_parts(db):
    db.execute("CREATE TABLE documents (words tsvector)")
    db.execute("ALTER TABLE documents SET (parallel_workers = 2)")
    # 600,000 different words; 1,000 of them in two documents each.
    db.execute(
        "INSERT INTO documents SELECT array_to_tsvector(array_agg('w' || (300 * d + w)))"
        " FROM generate_series(0, 1999) d, generate_series(0, 299) w GROUP BY d"
    )
    db.execute("INSERT INTO documents SELECT array_to_tsvector(array_agg('w' || w)) FROM generate_series(0, 999) w")
    alone = value(db, "SELECT bm25_stats(words)::text FROM documents")
    for setting in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        db.execute(f"SET {setting} = 0")
    plan = "\n".join(row[0] for row in db.execute("EXPLAIN SELECT bm25_stats(words) FROM documents"))
    assert "Partial Aggregate" in plan
    db.execute("CREATE TABLE stats AS SELECT bm25_stats(words) AS stats FROM documents")
    assert value(db, "SELECT stats::text FROM stats") == alone
    counted = json.loads(alone)
    assert (counted["documents"], counted["length"]) == (2001, 601_000)
    frequencies = counted["frequencies"]
    # Two words have one number now and then: 600,000 of 10⁹ numbers, so 180 pairs on average.
    assert 0 <= 600_000 - len(frequencies) < 260
    assert sum(frequencies.values()) == 601_000 or 0 < 601_000 - sum(frequencies.values()) < 5
    assert value(db, "SELECT pg_column_size(stats) FROM stats") > 4_000_000
    # Out of line, a query reads a few pages of it; in memory it is the same.
    query = "bm25_query(to_tsquery('simple', 'w5 | w599999 | w300000 | unknown'), stats)::text"
    parts = value(db, f"SELECT {query} FROM stats")
    whole = value(db, f"SELECT {query} FROM (SELECT %s::bm25_stats AS stats) s", alone)
    assert parts == whole and parts.count(":") == 4
    idf = sorted(float(number) for number in re.findall(r":([0-9.]+)", parts))
    want = sorted(np.log(1 + (2001 - n + 0.5) / (n + 0.5)) for n in (2, 1, 1, 0))
    assert np.allclose(idf, want, rtol=1e-6)
    buffers = value(db, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT {query} FROM stats")
    shared = buffers[0]["Plan"]["Shared Hit Blocks"] + buffers[0]["Plan"]["Shared Read Blocks"]
    assert shared < 100, "of some 700"


def test_stats_are_text_and_binary(db, documents):
    db.execute("CREATE TABLE stats AS SELECT bm25_stats(words, 1.5, 0.5, '{0.1, 0.2, 0.4, 1}') AS stats FROM documents")
    db.execute("CREATE TABLE copies (stats bm25_stats)")
    for form in ("text", "binary"):
        with db.cursor().copy(f"COPY stats TO STDOUT (FORMAT {form})") as copy:
            data = b"".join(copy)
        with db.cursor().copy(f"COPY copies FROM STDIN (FORMAT {form})") as copy:
            copy.write(data)
    assert db.execute("SELECT count(*), count(DISTINCT c.stats::text) FROM copies c, stats s WHERE c.stats::text = s.stats::text"
                      ).fetchone() == (2, 1)


@pytest.mark.parametrize(
    "text, code",
    [
        ("", "22P02"),
        ("{}", "22P02"),
        ('{"documents": 1, "length": 1, "more": 1}', "22P02"),
        ('{"documents": -1, "length": 1}', "22P02"),
        ('{"documents": 1, "length": 1e999}', "22P02"),
        ('{"documents": 1, "length": -1}', "22023"),
        ('{"documents": 18014398509481984, "length": 1}', "22023"),
        ('{"documents": 1, "length": 1, "k1": -1}', "22023"),
        ('{"documents": 1, "length": 1, "b": 1.5}', "22023"),
        ('{"documents": 1, "length": 1, "weights": [1, 1, 1]}', "22P02"),
        ('{"documents": 1, "length": 1, "weights": [1, 1, 1, -1]}', "22023"),
        ('{"documents": 1, "length": 1, "frequencies": {"0": 1}}', "22P02"),
        ('{"documents": 1, "length": 1, "frequencies": {"1000000001": 1}}', "22P02"),
        ('{"documents": 1, "length": 1, "frequencies": {"5": 2}}', "22P02"),
        ('{"documents": 1, "length": 1, "frequencies": {"a": 1}}', "22P02"),
        ("[" * 100_000, "22P02"),
        ("é" * 99 + "x" * 3, "22P02"),
    ],
)
def test_bad_stats_are_refused(db, text, code):
    with pytest.raises(psycopg.Error) as caught:
        db.execute("SELECT %s::bm25_stats", (text,))
    assert caught.value.sqlstate == code and "bm25_stats" in caught.value.diag.message_primary


def test_bad_calls_are_refused(db, documents):
    cases = {
        "SELECT bm25_stats(words, -1, 0.5) FROM documents": errors.InvalidParameterValue,
        "SELECT bm25_stats(words, 'NaN', 0.5) FROM documents": errors.InvalidParameterValue,
        "SELECT bm25_stats(words, id, 0.5) FROM documents": errors.InvalidParameterValue,
        "SELECT bm25_stats(words, NULL, 0.5) FROM documents": errors.NullValueNotAllowed,
        "SELECT bm25_stats(words, 1, 0.5, '{1,1}') FROM documents": errors.InvalidParameterValue,
        "SELECT bm25_stats(words, 1, 0.5, '{1,1,NULL,1}') FROM documents": errors.NullValueNotAllowed,
        "SELECT mmr('[1,2]', ARRAY['[1,2,3]']::vector[], 1)": errors.DataException,
        "SELECT mmr('[1,2]', ARRAY['[1,2]', NULL]::vector[], 1)": errors.NullValueNotAllowed,
        "SELECT mmr('[1,2]', ARRAY['[1,2]']::vector[], -1)": errors.InvalidParameterValue,
        "SELECT mmr('[1,2]', ARRAY['[1,2]']::vector[], 1, 'NaN')": errors.InvalidParameterValue,
        "SELECT mmr('[1,2]', ARRAY['[1,2]']::vector[], 1, 1.5)": errors.InvalidParameterValue,
        "SELECT deduplicate(ARRAY['[1,2]', '[1]']::vector[], 1)": errors.DataException,
        "SELECT deduplicate(ARRAY['[1,2]']::vector[], 'NaN')": errors.InvalidParameterValue,
    }
    for statement, error in cases.items():
        with pytest.raises(error):
            db.execute(statement)
    assert value(db, "SELECT bm25_stats(NULL)") is None
    assert value(db, "SELECT bm25_stats(words) FROM documents WHERE false") is None
    assert value(db, "SELECT bm25_document(NULL, bm25_stats(words)) FROM documents") is None
    with_null = value(db, "SELECT bm25_stats(w)::text FROM (SELECT words w FROM documents UNION ALL SELECT NULL) d")
    assert with_null == value(db, "SELECT bm25_stats(words)::text FROM documents")


def test_stats_over_a_window(db):
    rows = db.execute(
        "SELECT (bm25_stats(words) OVER (ORDER BY id))::text FROM (VALUES (1, 'a b'::tsvector), (2, 'a'), (3, 'c')) t (id, words)"
    ).fetchall()
    counts = [json.loads(row[0]) for row in rows]
    assert [(count["documents"], len(count["frequencies"])) for count in counts] == [(1, 2), (2, 2), (3, 3)]


def test_fused_rankings(db):
    assert value(db, "SELECT rrf_score(1)") == 1 / 61
    assert value(db, "SELECT rrf_score(3, 10)") == 1 / 13
    assert value(db, "SELECT rrf_score(NULL)") == 0
    fused = db.execute(
        "SELECT id, sum(rrf_score(rank)) AS score FROM (VALUES ('a', 1), ('b', 2), ('c', 3), ('c', 1), ('b', 2)) t (id, rank)"
        " GROUP BY id ORDER BY score DESC"
    ).fetchall()
    assert [row[0] for row in fused] == ["c", "b", "a"]
    assert "rrf_score" not in str(db.execute("EXPLAIN VERBOSE SELECT rrf_score(id) FROM generate_series(1, 3) id").fetchall())


def reference_mmr(query, vectors, k, lam):
    def cosine(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b)) if a.any() and b.any() else 0.0

    chosen = []
    while len(chosen) < min(k, len(vectors)):
        def worth(i):
            relevance = cosine(query, vectors[i])
            return relevance if not chosen else lam * relevance - (1 - lam) * max(cosine(vectors[i], vectors[j]) for j in chosen)

        chosen.append(max((i for i in range(len(vectors)) if i not in chosen), key=worth))
    return [i + 1 for i in chosen]


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_mmr_is_the_papers(db, kind):
    random = np.random.default_rng(5)
    vectors = random.normal(size=(30, 8)).astype(np.float16).astype(np.float64)
    vectors[7] = 0
    query = vectors[3] + 0.5
    texts = [str(list(map(float, v))) for v in vectors]
    for lam in (0, 0.3, 0.5, 1):
        got = value(db, f"SELECT mmr(%s::{kind}, %s::{kind}[], 12, %s)", str(list(map(float, query))), texts, lam)
        assert got == reference_mmr(query.astype(np.float16 if kind == "halfvec" else float).astype(float), vectors, 12, lam)
    assert len(value(db, f"SELECT mmr(%s::{kind}, %s::{kind}[], 1000)", texts[0], texts)) == 30
    assert value(db, f"SELECT mmr(%s::{kind}, %s::{kind}[], 0)", texts[0], texts) == []


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_near_copies_are_left_out(db, kind):
    call = f"SELECT deduplicate('{{\"[1,0]\",\"[2,0.01]\",\"[0,1]\",\"[0,0]\",\"[0,0]\"}}'::{kind}[], %s)"
    assert value(db, call, 0.01) == [1, 3, 4, 5], "what has no direction is like nothing"
    assert value(db, call, 0) == [1, 2, 3, 4, 5]
    assert value(db, call, 1.5) == [1]
    assert value(db, f"SELECT deduplicate('{{}}'::{kind}[], 1)") == []


def test_statements_of_the_guide(db):
    guide = (Path(__file__).resolve().parent.parent / "docs" / "hybrid.md").read_text()
    blocks = re.findall(r"^```sql\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    results = []
    db.execute("SET enable_seqscan = off")  # of four rows
    for block in blocks:
        if "ORDER BY" in block and "INDEX" in "".join(blocks[:blocks.index(block)]):
            plan = "\n".join(row[0] for row in db.execute(f"EXPLAIN {block}"))
            assert all(f"Index Scan using articles_{column}_idx" in plan for column in ("terms", "embedding") if f"{column} <" in block)
        statement, executes, _ = block.partition(r"\gexec")
        cursor = db.execute(statement)
        if executes:
            cursor = db.execute(cursor.fetchone()[0])
        while cursor.nextset():
            pass
        results.append(cursor.fetchall() if cursor.description else None)
    by_words, both, diverse = (result for result in results if result)
    assert [row[0] for row in by_words[:2]] == [1, 2] and by_words[0][1] > by_words[1][1] > 0 == by_words[2][1]
    assert [row[0] for row in both][:2] == [3, 4]
    assert [row[0] for row in diverse][:2] == [2, 3]
    assert value(db, "SELECT bool_and(own_terms = terms) FROM articles")
