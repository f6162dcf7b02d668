"""Snapshots of a standby that are older than what its primary does to the index. Without `hot_standby_feedback` nothing holds
the primary back: it must leave in the index what such a snapshot may see, until PostgreSQL itself cancels the snapshot."""

import psycopg
import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector

from harness.cluster import Cluster
from harness.search import assert_holds_exactly, by_index, clustered, insert, make_index

NAME = "standby"
ROWS = clustered(1500, 16, clusters=8)
MORE = clustered(4000, 16, seed=3, clusters=8)


def connect(server, **options):
    connection = server.connect(NAME, **options)
    register_vector(connection)
    return connection


@pytest.fixture(scope="module")
def servers():
    """A primary and its standby, which never cancels a query (first), and one that cancels at once."""
    with Cluster() as primary:
        primary.create_database(NAME, "vector_ext")
        with (primary.standby({"max_standby_streaming_delay": "-1", "max_standby_archive_delay": "-1"}) as patient,
              primary.standby({"max_standby_streaming_delay": "0", "max_standby_archive_delay": "0"}) as strict):
            yield primary, patient, strict


def make_table(connection, table, bits):
    # Pages that are half empty: PostgreSQL does not prune them (which would cancel the standby's snapshots) before VACUUM.
    connection.execute(f"""CREATE TABLE {table} (id int PRIMARY KEY, label int NOT NULL, embedding vector(16))
                           WITH (fillfactor = 50)""")
    insert(connection, ROWS, table)
    make_index(connection, table=table, options=f"WITH (bits = {bits})")


def snapshot(standby):
    """A transaction whose snapshot has been taken."""
    reader = connect(standby, autocommit=False)
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    reader.execute("SELECT count(*) FROM pg_class")
    return reader


def assert_sees_all(reader, table):
    """Each row once, by a scan of the index to its end, and no complaint by the check."""
    with by_index(reader, ivflsh__iterative_scan="relaxed_order"):
        for query in (ROWS[0], ROWS[700]):
            statement = f"SELECT id FROM {table} ORDER BY embedding <-> %b"
            found = [id for id, in reader.execute(statement, (Vector(query),))]
            assert sorted(found) == list(range(len(ROWS)))
    entries, = reader.execute(f"SELECT rows FROM ivflsh_check('{table}_embedding_idx')").fetchone()
    assert entries == len(ROWS)


@pytest.mark.parametrize("bits", [8, 4, 0])
def test_a_snapshot_older_than_splits(servers, bits):
    primary, standby, _ = servers
    table = f"split_{bits}"
    with connect(primary) as writer:
        make_table(writer, table, bits)
        standby.wait_for_replay()
        with snapshot(standby) as reader:
            reader.execute("SELECT count(*) FROM " + table)
            writer.execute(f"DELETE FROM {table} WHERE id % 3 <> 0")
            splits = f"SELECT ivflsh_stats('{table}_embedding_idx')->'splits'"
            before, = writer.execute(splits).fetchone()
            insert(writer, MORE, table, first_id=10_000)
            after, = writer.execute(splits).fetchone()
            assert after > before + 10
            standby.wait_for_replay()
            assert_sees_all(reader, table)
        # Nobody sees them any more: VACUUM removes them, there as well.
        writer.execute(f"VACUUM {table}")
        standby.wait_for_replay()
        with connect(standby) as reader:
            left, = reader.execute(f"SELECT entries FROM ivflsh_check('{table}_embedding_idx')").fetchone()
            assert left == len(ROWS) // 3 + len(MORE)
            assert_holds_exactly(reader, ROWS[0], table=table)


def test_marks_of_dead_entries_mean_nothing_on_a_standby(servers):
    """They arrive with images of whole pages."""
    primary, standby, _ = servers
    with connect(primary) as writer:
        make_table(writer, "marked", 8)
        standby.wait_for_replay()
        with snapshot(standby) as reader:
            reader.execute("SELECT count(*) FROM marked")
            writer.execute("DELETE FROM marked WHERE id % 3 <> 0")
            with by_index(writer):
                writer.execute("SELECT id FROM marked ORDER BY embedding <-> %b", (Vector(ROWS[0]),)).fetchall()
            writer.execute("CHECKPOINT")
            insert(writer, MORE[:300], "marked", first_id=10_000)
            standby.wait_for_replay()
            assert_sees_all(reader, "marked")


def test_a_snapshot_older_than_merges_is_cancelled(servers):
    """VACUUM removes what a snapshot sees: PostgreSQL cancels the query, or it has got its answer before."""
    primary, _, standby = servers
    with connect(primary) as writer:
        make_table(writer, "merged", 8)
        standby.wait_for_replay()
        reader = snapshot(standby)
        reader.execute("SELECT count(*) FROM merged")
        writer.execute("DELETE FROM merged WHERE id % 10 <> 0")
        writer.execute("VACUUM merged")
        assert writer.execute("SELECT ivflsh_stats('merged_embedding_idx')->'merges'").fetchone()[0] > 0
        standby.wait_for_replay()
        with pytest.raises(psycopg.OperationalError, match="conflict with recovery|terminating connection"):
            assert_sees_all(reader, "merged")
        reader.close()
        with connect(standby) as reader:
            assert_holds_exactly(reader, ROWS[0], table="merged")
