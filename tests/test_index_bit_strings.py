"""Indexes of `bit` by Hamming and Jaccard distance: they hold the rows themselves, so that distances are exact."""

import numpy as np
import pytest

from harness.search import settings

HAMMING, JACCARD = "<~>", "<%>"
CLASSES = {HAMMING: "bit_hamming_ops", JACCARD: "bit_jaccard_ops"}
ONLY_INDEX = {"enable_seqscan": "off", "enable_sort": "off", "enable_bitmapscan": "off"}


def strings(count, bits, seed=1, clusters=40, flip=0.15, share=0.5):
    """Bit strings around some centres; another seed gives others around the same ones."""
    centres = np.random.default_rng(bits).random((clusters, bits)) < share
    random = np.random.default_rng((seed, bits))
    rows = centres[random.integers(clusters, size=count)]
    return np.where(random.random((count, bits)) < flip, random.random((count, bits)) < share, rows)


def text(row):
    return "".join("1" if bit else "0" for bit in row)


def distances(operator, rows, query):
    rows, query = np.asarray(rows, bool), np.asarray(query, bool)
    if operator == HAMMING:
        return (rows ^ query).sum(axis=1).astype(float)
    both = (rows & query).sum(axis=1)
    return np.where(both > 0, 1 - both / np.maximum((rows | query).sum(axis=1), 1), 1.0)


def insert(db, rows, first=0):
    with db.cursor().copy("COPY items (id, label, b) FROM STDIN") as copy:
        for i, row in enumerate(rows, first):
            copy.write_row((i, i % 10, None if row is None else text(row)))


def make(db, rows, operator=HAMMING, filters="", bits=None, index_first=False, options=""):
    db.execute("DROP TABLE IF EXISTS items")
    db.execute(f"CREATE TABLE items (id int PRIMARY KEY, label int NOT NULL, b bit({bits or len(rows[0])}))")
    statement = f"CREATE INDEX items_b ON items USING ivflsh (b {CLASSES[operator]}{filters}) {options}"
    if index_first:
        db.execute(statement)
    insert(db, rows)
    if not index_first:
        db.execute(statement)
    db.execute("ANALYZE items")


def found(db, operator, query, limit=10, where="", **others):
    with settings(db, **(ONLY_INDEX | others)):
        distance = f"b {operator} B'{text(query)}'"
        statement = f"SELECT id, {distance} FROM items {where} ORDER BY {distance} LIMIT {limit}"
        plan = "\n".join(line for (line,) in db.execute("EXPLAIN " + statement))
        assert "items_b" in plan, plan
        return db.execute(statement).fetchall()


def recall(db, operator, rows, queries, limit=10, where="", of=None, **others):
    """Share of the rows found that are no farther than the true last one; rows come in order, with their distances."""
    hits = 0
    of = np.arange(len(rows)) if of is None else of
    for query in queries:
        true = distances(operator, rows, query)
        answer = found(db, operator, query, limit, where, **others)
        assert [d for _, d in answer] == pytest.approx([true[i] for i, _ in answer], abs=1e-12)
        assert [d for _, d in answer] == sorted(d for _, d in answer)
        assert len({i for i, _ in answer}) == len(answer) == min(limit, len(of))
        last = np.sort(true[of])[len(answer) - 1]
        hits += sum(d <= last + 1e-12 for _, d in answer) / len(answer)
    return hits / len(queries)


def check(db):
    assert db.execute("SELECT ivflsh_check('items_b')").fetchall() is not None


@pytest.mark.parametrize("scan", ["on", "off"], ids=["vector scan", "index scan"])
@pytest.mark.parametrize("operator", CLASSES, ids=["hamming", "jaccard"])
@pytest.mark.parametrize("bits, share", [(384, 0.5), (200, 0.05), (64, 0.5), (7, 0.5)])
def test_recall_and_order(db, operator, bits, share, scan):
    rows, queries = strings(6000, bits, share=share), strings(20, bits, seed=2, share=share)
    make(db, rows, operator)
    check(db)
    others = {"ivflsh.enable_vector_scan": scan}
    assert recall(db, operator, rows, queries, **others) >= 0.93
    assert recall(db, operator, rows, queries[:4], limit=100, **others) >= 0.93


@pytest.mark.parametrize("operator", CLASSES, ids=["hamming", "jaccard"])
def test_all_rows_in_order(db, operator):
    rows = np.concatenate([strings(1500, 100, share=0.1), np.zeros((20, 100), bool), np.ones((20, 100), bool)])
    make(db, rows, operator)
    for query in [rows[0], np.zeros(100, bool), np.ones(100, bool)]:
        answer = found(db, operator, query, limit=len(rows))
        assert [d for _, d in answer] == pytest.approx(np.sort(distances(operator, rows, query)), abs=1e-12)


@pytest.mark.parametrize("operator", CLASSES, ids=["hamming", "jaccard"])
def test_equal_rows(db, operator):
    rows = np.repeat(strings(3, 32), 1000, axis=0)
    make(db, rows, operator)
    assert recall(db, operator, rows, rows[[0, 1500, 2900]], limit=50) == 1


@pytest.mark.parametrize("operator", CLASSES, ids=["hamming", "jaccard"])
def test_ranges(db, operator):
    rows, queries = strings(5000, 96, share=0.3), strings(6, 96, seed=2, share=0.3)
    make(db, rows, operator)
    for query in queries:
        true = distances(operator, rows, query)
        for radius in [np.sort(true)[0], np.sort(true)[40], np.sort(true)[700]]:
            for compare, within in [("<", true < radius), ("<=", true <= radius)]:
                where = f"WHERE b {operator} B'{text(query)}' {compare} {float(radius)!r}"
                answer = found(db, operator, query, limit=10_000, where=where)
                assert {i for i, _ in answer} == set(np.flatnonzero(within))


@pytest.mark.parametrize("operator", CLASSES, ids=["hamming", "jaccard"])
def test_filter_columns(db, operator):
    rows, queries = strings(6000, 128), strings(10, 128, seed=2)
    make(db, rows, operator, filters=", label")
    assert recall(db, operator, rows, queries, where="WHERE label = 3", of=np.arange(3, 6000, 10)) >= 0.93
    check(db)


@pytest.mark.parametrize("operator", CLASSES, ids=["hamming", "jaccard"])
def test_life(db, operator):
    """An index that begins empty: lists are split, vacuumed, merged; each row is found throughout."""
    rows, queries = strings(8000, 384, share=0.3), strings(12, 384, seed=2, share=0.3)
    make(db, rows[:6000], operator, index_first=True)
    stats = lambda: db.execute("SELECT (s->>'lists')::int, (s->>'splits')::int, (s->>'merges')::int FROM ivflsh_stats('items_b') s").fetchone()
    lists, splits, _ = stats()
    assert lists > 6 and splits >= lists - 1
    check(db)
    assert recall(db, operator, rows[:6000], queries) >= 0.9
    db.execute("DELETE FROM items WHERE id % 4 > 0")
    db.execute("VACUUM items")
    check(db)
    left = np.arange(0, 6000, 4)
    assert recall(db, operator, rows[:6000], queries, of=left) >= 0.9
    db.execute("UPDATE items SET b = ~b WHERE id % 8 = 0")
    changed = rows[:6000].copy()
    changed[::8] = ~changed[::8]
    assert recall(db, operator, changed, queries, of=left) >= 0.9
    insert(db, rows[6000:], 6000)
    db.execute("VACUUM items")
    check(db)
    everything = np.concatenate([changed, rows[6000:]])
    of = np.concatenate([left, np.arange(6000, 8000)])
    assert recall(db, operator, everything, queries, of=of) >= 0.9
    db.execute("REINDEX INDEX items_b")
    assert recall(db, operator, everything, queries, of=of) >= 0.93
    assert db.execute("SELECT ivflsh_recall('items_b', 50)").fetchone()[0] >= 0.93


def test_merges(db):
    rows = strings(12_000, 200)
    make(db, rows)
    before = db.execute("SELECT (ivflsh_stats('items_b')->>'lists')::int").fetchone()[0]
    db.execute("DELETE FROM items WHERE id % 20 > 0")
    db.execute("VACUUM items")
    assert db.execute("SELECT (ivflsh_stats('items_b')->>'lists')::int").fetchone()[0] < before / 2
    check(db)
    assert recall(db, HAMMING, rows, strings(6, 200, seed=2), of=np.arange(0, 12_000, 20)) >= 0.9


@pytest.mark.parametrize("operator", CLASSES, ids=["hamming", "jaccard"])
@pytest.mark.parametrize("bits", [2500, 20_000, 64_000])
def test_long_strings(db, operator, bits):
    """Rows of several pages; Jaccard's quotients beyond what f32 tells apart."""
    rows = strings(120, bits, clusters=3)
    make(db, rows, operator, index_first=bits == 20_000)
    check(db)
    answer = found(db, operator, rows[7], limit=120)
    assert [d for _, d in answer] == pytest.approx(np.sort(distances(operator, rows, rows[7])), abs=1e-12)


def test_memory_beyond(db):
    """A build whose rows do not fit into memory is the same index, by the same recall."""
    rows, queries = strings(20_000, 512), strings(10, 512, seed=2)
    with settings(db, maintenance_work_mem="8MB"):
        make(db, rows)
    check(db)
    assert recall(db, HAMMING, rows, queries) >= 0.93


def test_size(db):
    """No more than a quarter more than the bits, and 16 bytes a row."""
    rows = strings(40_000, 384)
    make(db, rows)
    [(size,)] = db.execute("SELECT pg_relation_size('items_b')")
    assert size / len(rows) <= 1.25 * 48 + 16


def test_target_recall(db):
    rows, queries = strings(20_000, 256, clusters=400, flip=0.3), strings(40, 256, seed=2, clusters=400, flip=0.3)
    make(db, rows)
    for target in (0.8, 0.95, 0.99):
        assert recall(db, HAMMING, rows, queries, **{"ivflsh.target_recall": target}) >= target - 0.04


def test_two_stages(db):
    """As users write it: the nearest by their signs, then the nearest of these."""
    random = np.random.default_rng(3)
    vectors = random.normal(size=(3000, 64)).astype(np.float32)
    db.execute("CREATE TABLE documents (id int, embedding vector(64))")
    with db.cursor().copy("COPY documents FROM STDIN") as copy:
        for i, v in enumerate(vectors):
            copy.write_row((i, str(v.tolist())))
    db.execute("CREATE INDEX signs ON documents USING ivflsh ((binary_quantize(embedding)::bit(64)) bit_hamming_ops)")
    db.execute("ANALYZE documents")
    hits = 0
    for query in random.normal(size=(10, 64)).astype(np.float32):
        statement = """SELECT id FROM (SELECT * FROM documents
            ORDER BY binary_quantize(embedding)::bit(64) <~> binary_quantize(%(q)s::vector) LIMIT 400) AS candidates
            ORDER BY embedding <=> %(q)s::vector LIMIT 10"""
        q = {"q": str(query.tolist())}
        with settings(db, **ONLY_INDEX | {"enable_sort": "on"}):
            assert any("signs" in line for (line,) in db.execute("EXPLAIN " + statement, q))
            answer = [i for (i,) in db.execute(statement, q)]
        cosine = (vectors @ query) / np.linalg.norm(vectors, axis=1)
        hits += len(set(answer) & set(np.argsort(-cosine)[:10]))
    assert hits >= 85


def test_bad_input(db, refused):
    db.execute("CREATE TABLE items (id int, b bit(8), v varbit, one bit)")
    refused(db, "22023", "column does not have dimensions", "CREATE INDEX ON items USING ivflsh (v bit_hamming_ops)")
    refused(db, "42704", 'data type bit has no default operator class for access method "ivflsh"', "CREATE INDEX ON items USING ivflsh (b)")
    refused(db, "54000", "column cannot have more than 64000 dimensions for ivflsh index",
            "CREATE INDEX ON items USING ivflsh ((b::bit(64001)) bit_hamming_ops)")
    refused(db, "22023", "an index of bit strings cannot have bits = 4", "CREATE INDEX ON items USING ivflsh (b bit_hamming_ops) WITH (bits = 4)")
    db.execute("INSERT INTO items VALUES (1, B'00000001', '1', '1'), (2, NULL, NULL, NULL)")
    db.execute("CREATE INDEX items_b ON items USING ivflsh (b bit_hamming_ops)")
    with settings(db, **ONLY_INDEX):
        refused(db, "22000", "different bit lengths 3 and 8", "SELECT * FROM items ORDER BY b <~> B'101' LIMIT 1")
        assert len(db.execute("SELECT * FROM items ORDER BY b <~> NULL").fetchall()) == 2
