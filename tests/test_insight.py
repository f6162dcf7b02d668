"""ivflsh_recall, ivflsh_stats, ivflsh_last_scan: what an index says of itself."""

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
    assert few < all_lists and few < default <= 1
    assert default >= 0.85
    assert all_lists >= 0.98, "only what the sketches' bounds miss"


def test_recall_of_duplicates_and_few_rows(db):
    make_table(db, np.vstack([np.ones((500, 8)), np.zeros((1, 8))]).astype(np.float32))
    make_index(db)
    assert recall(db) >= 0.99, "any of the equal rows counts"
    assert recall(db, 5, 1000) >= 0.98, "more neighbours asked for than there are rows"
    db.execute("TRUNCATE items")
    assert recall(db) == 1


def test_stats_follow_the_rows(db):
    make_table(db, ROWS[:2000])
    make_index(db)
    before = stats(db)
    assert before["rows"]["live"] == before["rows_when_built"] == 2000
    assert (before["element"], before["metric"], before["dimensions"]) == ("vector", "l2", 24)
    assert before["bytes"] == db.execute(f"SELECT pg_relation_size('{INDEX}')").fetchone()[0]
    assert sum(before["pages"].values()) * 8192 == before["bytes"]
    assert before["lists"] > 1 and before["rows"]["largest_list"] <= 2000
    insert(db, ROWS[2000:], first_id=2000)
    assert stats(db)["rows"]["live"] == 3000
    db.execute("DELETE FROM items WHERE id < 500")
    db.execute("VACUUM items")
    after = stats(db)
    assert after["rows"]["live"] == 2500 and after["rows"]["free"] >= 500
    assert [p["target_recall"] for p in after["probes"]] == sorted(p["target_recall"] for p in after["probes"])


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
        for call in (f"ivflsh_recall('{INDEX}')", f"ivflsh_stats('{INDEX}')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(f"SELECT {call}")
    finally:
        db.execute("RESET ROLE")
        db.execute("DROP ROLE insight_stranger")
