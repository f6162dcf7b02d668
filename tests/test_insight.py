"""ivflsh_recall, ivflsh_stats, ivflsh_lists, ivflsh_last_scan: what an index says of itself."""

import numpy as np
import psycopg
import pytest

from harness.search import METRICS, by_index, clustered, insert, make_index, make_table, nearest

ROWS = clustered(3000, 24)
INDEX = "items_embedding_idx"


def recall(db, *more):
    return db.execute(f"SELECT ivflsh_recall('{INDEX}'{''.join(f', {m}' for m in more)})").fetchone()[0]


def stats(db):
    return db.execute(f"SELECT ivflsh_stats('{INDEX}')").fetchone()[0]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_recall_rises_with_the_work(db, metric):
    make_table(db, ROWS)
    make_index(db, metric)
    default = recall(db)
    db.execute("SET ivflsh.probes = 1")
    few = recall(db)
    db.execute("SET ivflsh.probes = 1000000")
    all_lists = recall(db)
    assert few < all_lists and few <= default <= 1
    assert default >= 0.85
    assert all_lists >= 0.98, "only what the sketches' bounds miss"


def test_recall_of_duplicates_and_few_rows(db):
    make_table(db, np.vstack([np.ones((500, 8)), np.zeros((1, 8))]).astype(np.float32))
    make_index(db)
    assert recall(db) >= 0.99, "any of the equal rows counts"
    assert recall(db, 5, 1000) >= 0.98, "more neighbours asked for than there are rows"
    db.execute("TRUNCATE items")
    assert recall(db) is None, "nothing to find"


def test_nothing_to_measure(db):
    """Of an index without rows nothing is told that would be a measurement."""
    db.execute("CREATE TABLE items (id int, embedding vector(3)); CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops)")
    for arguments in ("", ", 10, 5", ", ARRAY['[1,2,3]'::vector]", ", 'SELECT ''[1,2,3]''::vector'"):
        assert db.execute(f"SELECT ivflsh_recall('{INDEX}'{arguments})").fetchone() == (None,)
    assert stats(db)["rows"]["imbalance"] is None
    db.execute("INSERT INTO items VALUES (1, NULL)")
    assert recall(db) is None
    db.execute("INSERT INTO items VALUES (1, '[1,2,3]')")
    assert recall(db) is None, "a row as query finds no other row"
    assert db.execute(f"SELECT ivflsh_recall('{INDEX}', ARRAY['[1,2,3]'::vector])").fetchone() == (1,)


def test_stats_follow_the_rows(db):
    make_table(db, ROWS[:2000])
    make_index(db)
    before = stats(db)
    assert before["rows"]["live"] == before["rows_when_built"] == 2000
    assert (before["element"], before["metric"], before["dimensions"]) == ("vector", "l2", 24)
    assert before["bytes"] == db.execute(f"SELECT pg_relation_size('{INDEX}')").fetchone()[0]
    assert sum(before["pages"].values()) * 8192 == before["bytes"]
    assert before["lists"] > 1 and before["rows"]["largest_list"] <= 2000
    assert before["levels"] == [1, before["lists"]] and before["height"] == 1
    assert before["rows"]["imbalance"] == pytest.approx(before["rows"]["largest_list"] * before["lists"] / 2000)
    assert before["pages"]["free"] == before["pages"]["leaked"] == 0
    insert(db, ROWS[2000:], first_id=2000)
    assert stats(db)["rows"]["live"] == 3000
    db.execute("DELETE FROM items WHERE id < 500")
    db.execute("VACUUM items")
    after = stats(db)
    assert after["rows"]["live"] == 2500 and after["rows"]["free"] >= 500
    assert [p["target_recall"] for p in after["probes"]] == sorted(p["target_recall"] for p in after["probes"])


def test_lists_add_up(db):
    make_table(db, ROWS)
    make_index(db)
    db.execute("DELETE FROM items WHERE id < 500")
    db.execute("VACUUM items")
    described = stats(db)
    rows = db.execute(f"SELECT list, level, head, entries, free_slots, pages, radius FROM ivflsh_lists('{INDEX}')").fetchall()
    lists = [dict(zip(("list", "level", "head", "entries", "free", "pages", "radius"), row, strict=True)) for row in rows]
    root, leaves = lists[0], [one for one in lists if one["level"] == 0]
    assert root["level"] == 1 and root["entries"] == len(leaves) == described["lists"] == len(lists) - 1
    assert len({one["list"] for one in lists}) == len({one["head"] for one in lists}) == len(lists)
    assert sum(one["entries"] for one in leaves) == described["rows"]["live"] == 2500
    assert sum(one["free"] for one in leaves) == described["rows"]["free"]
    assert max(one["entries"] for one in leaves) == described["rows"]["largest_list"]
    assert sum(one["pages"] for one in leaves) == described["pages"]["lists"]
    spread = np.linalg.norm(ROWS - ROWS.mean(axis=0), axis=1)
    assert 0 < np.median([one["radius"] for one in leaves]) < 0.7 * np.sqrt(np.square(spread).mean())


def test_lists_as_a_value(db):
    make_table(db, ROWS[:100])
    make_index(db)
    assert db.execute(f"SELECT (ivflsh_lists('{INDEX}')).level FROM generate_series(1, 2)").fetchall() == [(0,), (0,)]


def test_last_scan(db):
    make_table(db, ROWS)
    make_index(db)
    with by_index(db, ivflsh__probes="2"):
        assert len(nearest(db, ROWS[7], 5)) == 5
        lists, entries, refined, returned, rechecked = db.execute("SELECT * FROM ivflsh_last_scan()").fetchone()
    assert lists == 2 and rechecked <= returned and 5 <= returned <= refined <= entries < 3000


@pytest.mark.parametrize("call, state", [
    ("ivflsh_recall('items')", "42809"),
    ("ivflsh_recall('items_pkey')", "42809"),
    ("ivflsh_stats('items_pkey')", "42809"),
    ("ivflsh_stats('nothing')", "42P01"),
    ("ivflsh_lists('items')", "42809"),
    ("ivflsh_check('items')", "42809"),
    ("ivflsh_prewarm('items')", "42809"),
    (f"ivflsh_recall('{INDEX}', 0)", "22023"),
    (f"ivflsh_recall('{INDEX}', 10, 0)", "22023"),
    (f"ivflsh_recall('{INDEX}', 10, 10001)", "22023"),
])
def test_bad_arguments(db, call, state):
    make_table(db, ROWS[:100])
    make_index(db)
    with pytest.raises(psycopg.Error) as error:
        db.execute(f"SELECT {call}")
    assert error.value.sqlstate == state


def test_only_those_who_may_read_the_table(db):
    make_table(db, ROWS[:100])
    make_index(db)
    db.execute("CREATE ROLE insight_stranger")
    try:
        db.execute("SET ROLE insight_stranger")
        for call in (f"ivflsh_recall('{INDEX}')", f"ivflsh_stats('{INDEX}')", f"ivflsh_lists('{INDEX}')",
                     f"ivflsh_check('{INDEX}')", f"ivflsh_prewarm('{INDEX}')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(f"SELECT {call}")
    finally:
        db.execute("RESET ROLE")
        db.execute("DROP ROLE insight_stranger")
