"""What docs/privacy.md says of rows that are hidden and rows that are deleted."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

PAGE = 8192
SECRET = [round(1.25 + i * 0.0625, 4) * (-1) ** i for i in range(8)]
PATTERN = struct.pack("<8f", *SECRET)  # how a row has it


def files(connection, cluster, relation):
    """What is on disk of a relation."""
    connection.execute("CHECKPOINT")
    path = cluster.data / connection.execute("SELECT pg_relation_filepath(%s)", (relation,)).fetchone()[0]
    return b"".join(part.read_bytes() for part in sorted(path.parent.glob(f"{path.name}*")) if re.fullmatch(r"\d+(\.\d+)?", part.name))


@pytest.fixture
def items(db):
    db.execute("""CREATE TABLE items (id int, owner text, embedding vector(8));
        SELECT setseed(0.5);
        INSERT INTO items SELECT i, 'owner_' || i % 3, (SELECT array_agg(random() + 0 * (i + j)) FROM generate_series(1, 8) j) FROM generate_series(1, 3000) i""")
    return db


def test_rows_of_others(items, refused):
    """A policy hides rows from searches, by any plan; a filter column finds one's own without a look at others'."""
    items.execute("""CREATE INDEX by_owner ON items USING ivflsh (embedding vector_l2_ops, owner); ANALYZE items;
        CREATE ROLE owner_1; GRANT SELECT ON items TO owner_1;
        ALTER TABLE items ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON items USING (owner = current_user::text COLLATE "default")""")
    try:
        query = "[.5,.5,.5,.5,.5,.5,.5,.5]"
        true = items.execute("SELECT id FROM items WHERE owner = 'owner_1' ORDER BY embedding <-> %s, id LIMIT 1000", (query,)).fetchall()
        items.execute("SET ROLE owner_1")
        plan = "\n".join(row[0] for row in items.execute("EXPLAIN (COSTS OFF) SELECT id FROM items ORDER BY embedding <-> %s LIMIT 10", (query,)))
        assert "by_owner" in plan and "Index Cond: (owner = " in plan
        for scans in ("on", "off"):
            items.execute(f"SET enable_indexscan = {scans}; SET ivflsh.enable_vector_scan = {scans}")
            assert items.execute("SELECT id FROM items ORDER BY embedding <-> %s, id LIMIT 5000", (query,)).fetchall() == true
        items.execute("RESET enable_indexscan; RESET ivflsh.enable_vector_scan")
        for function in ("ivflsh_recall('by_owner')", "ivflsh_stats('by_owner')", "ivflsh_check('by_owner')", "ivflsh_lists('by_owner')"):
            refused(items, "42501", "", f"SELECT {function}")
        assert items.execute("SELECT count(*) FROM pg_stats WHERE tablename = 'items'").fetchone() == (0,), "nor samples of them"
    finally:
        items.execute("RESET ROLE; DROP OWNED BY owner_1; DROP ROLE owner_1")


def test_what_delete_and_vacuum_leave(cluster, items):
    """A deleted row is found no more at once. Its bytes stay in the file after VACUUM; VACUUM FULL takes them away."""
    items.execute("INSERT INTO items VALUES (9999, 'owner_1', %s)", (str(SECRET),))
    items.execute("CREATE INDEX by_vector ON items USING ivflsh (embedding vector_l2_ops)")
    nearest = lambda: items.execute("SELECT id FROM items ORDER BY embedding <-> %s LIMIT 1", (str(SECRET),)).fetchone()[0]  # noqa: E731
    assert nearest() == 9999
    items.execute("DELETE FROM items WHERE id = 9999")
    assert nearest() != 9999
    items.execute("VACUUM items")
    assert PATTERN in files(items, cluster, "items"), "if this fails, docs/privacy.md can promise more"
    items.execute("VACUUM FULL items")
    assert PATTERN not in files(items, cluster, "items")
    wal = b"".join(path.read_bytes() for path in Path(cluster.data / "pg_wal").iterdir() if path.is_file())
    assert PATTERN in wal, "where it stays until the segment is written anew"


def test_statistics_have_samples(items):
    """What ANALYZE keeps of a column are vectors of rows, also of deleted ones until the next ANALYZE."""
    items.execute("DELETE FROM items WHERE id > 60")
    items.execute("INSERT INTO items VALUES (9999, 'owner_1', %s)", (str(SECRET),))
    items.execute("ANALYZE items")
    kept = lambda: items.execute("""SELECT coalesce(most_common_vals::text, '') || coalesce(histogram_bounds::text, '')
        FROM pg_stats WHERE tablename = 'items' AND attname = 'embedding'""").fetchone()[0]  # noqa: E731
    assert str(SECRET[1]) in kept()
    items.execute("DELETE FROM items WHERE id = 9999")
    items.execute("VACUUM FULL items")
    assert str(SECRET[1]) in kept()
    items.execute("ANALYZE items")
    assert str(SECRET[1]) not in kept()


def test_index_keeps_nothing_after_it_is_built_anew(cluster, items):
    """REINDEX makes the index that a table has which never had the row, byte by byte."""
    def index():
        # As a table that has only these rows has it: a row's place in the table is in the index.
        items.execute("VACUUM FULL items")
        pages = np.frombuffer(files(items, cluster, "by_vector"), np.uint8).reshape(-1, PAGE)
        return pages[:, 8:].tobytes()  # without the position in the WAL

    items.execute("CREATE INDEX by_vector ON items USING ivflsh (embedding vector_l2_ops)")
    without = index()
    items.execute("INSERT INTO items VALUES (9999, 'owner_1', %s)", (str(SECRET),))
    items.execute("REINDEX INDEX by_vector")
    assert len(files(items, cluster, "by_vector")) >= len(without)
    items.execute("DELETE FROM items WHERE id = 9999")
    assert index() == without
