"""What CREATE INDEX makes of the same table, under which conditions."""

import threading
import time

import numpy as np
import psycopg
import pytest

from harness.search import METRICS, assert_holds_exactly, assert_recall, clustered, insert, make_index, make_table, settings

PAGE = 8192
QUERIES = clustered(40, 48, seed=2)


def content(connection, index="items_embedding_idx"):
    """The pages of an index, without what says when they were written (LSN, checksum)."""
    connection.execute("CHECKPOINT")
    path = "SELECT pg_read_binary_file(pg_relation_filepath(%s))"
    data = np.frombuffer(connection.execute(path, (index,)).fetchone()[0], np.uint8).reshape(-1, PAGE)
    return data[:, 10:].tobytes()


@pytest.mark.parametrize("bits", [0, 8])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_same_index_whatever_the_threads(db, metric, bits):
    make_table(db, clustered(9000, 48))
    contents = []
    for workers in (0, 2, 7, 0):
        with settings(db, max_parallel_maintenance_workers=workers):
            make_index(db, metric, options=f"WITH (bits = {bits})")
        contents.append(content(db))
        db.execute("DROP INDEX items_embedding_idx")
    assert all(other == contents[0] for other in contents)


@pytest.mark.parametrize("memory", ["1MB", "64MB"])
@pytest.mark.parametrize("lists", [0, 240])
def test_rows_in_order_of_cluster(db, lists, memory):
    """As a table is that was filled group by group; its index was made while it was empty, so PostgreSQL knows of no rows."""
    centres = np.random.default_rng(1).normal(size=(50, 16))
    rows = np.repeat(centres, 400, axis=0) + 0.05 * np.random.default_rng(2).normal(size=(20_000, 16))
    make_table(db, [], dimensions=16)
    make_index(db, options=f"WITH (lists = {lists})" if lists else "")
    insert(db, rows)
    with settings(db, maintenance_work_mem=memory):
        db.execute("REINDEX INDEX items_embedding_idx")
    db.execute("ANALYZE items")
    stats = db.execute("SELECT ivflsh_stats('items_embedding_idx')").fetchone()[0]
    # 1 MB holds a sample of half of the blocks only, and a block is of one cluster here.
    assert stats["rows"]["imbalance"] <= (4 if memory == "64MB" else 6)
    assert lists == 0 or stats["lists"] == lists
    assert_recall(db, rows[::400] + 0.01, 0.92)


def test_seed(db):
    """The same seed gives the same index, another one another, which finds as much."""
    make_table(db, clustered(3000, 48))
    contents = []
    for seed in (0, 0, 7):
        make_index(db, options=f"WITH (seed = {seed})")
        assert_recall(db, QUERIES, 0.93)
        assert_holds_exactly(db, QUERIES[0])
        contents.append(content(db))
        db.execute("DROP INDEX items_embedding_idx")
    assert contents[0] == contents[1] != contents[2]


def test_same_answers_whatever_the_memory(db):
    """A table that memory does not hold is sampled, read again and sorted: other lists, as good."""
    rows = clustered(30_000, 48)
    make_table(db, rows)
    connection, work = db, {}
    for memory in ("1MB", "256MB"):
        for workers in (0, 2):
            with settings(connection, maintenance_work_mem=memory, max_parallel_maintenance_workers=workers):
                make_index(connection)
            assert_recall(connection, QUERIES, 0.93)
            assert_holds_exactly(connection, QUERIES[0])
            lists = connection.execute("SELECT list, entries FROM ivflsh_lists('items_embedding_idx') WHERE level = 0").fetchall()
            assert sum(entries for _, entries in lists) == 30_000
            assert max(entries for _, entries in lists) < 5 * 30_000 / len(lists)
            work.setdefault(memory, []).append((content(connection), len(lists)))
            connection.execute("DROP INDEX items_embedding_idx")
    for (first, lists), (second, _) in work.values():
        assert first == second  # threads change nothing, whatever the memory
    assert abs(work["1MB"][0][1] - work["256MB"][0][1]) < 0.1 * work["256MB"][0][1]


def test_hint_about_memory(db):
    make_table(db, clustered(30_000, 48))
    notices = []
    db.add_notice_handler(lambda notice: notices.append((notice.message_primary, notice.message_hint)))
    with settings(db, maintenance_work_mem="1MB"):
        make_index(db)
    [(message, hint)] = notices
    assert "memory for a sample of" in message and hint.startswith("Increase maintenance_work_mem to ")
    notices.clear()
    db.execute("DROP INDEX items_embedding_idx")
    with settings(db, maintenance_work_mem=hint.split()[3] + "MB"):
        make_index(db)
    assert notices == []


PHASES = {  # what pg_stat_progress_create_index calls them, with a memory in which a build goes through them
    "64MB": ["reading rows", "clustering", "calibrating recall", "writing lists"],
    "1MB": ["reading rows", "clustering", "improving clusters", "assigning rows to lists", "writing lists"],
}


def test_stopped_in_any_phase(database):
    """A build that is cancelled, or whose session is terminated, ends within a second and leaves nothing behind."""
    db = database.connect()
    make_table(db, clustered(60_000, 64, clusters=2000, spread=0.7))
    db.execute("CHECKPOINT")
    files = used_files(db)
    for memory, phases in PHASES.items():
        for phase in phases:
            for how, state in (("cancel", "57014"), ("terminate", "57P01")):
                for _ in range(20):
                    stopped = stop_build(database, db, memory, phase, how)
                    if stopped:
                        break
                assert stopped, f"no build was stopped in time: {phase}"
                seconds, error = stopped
                assert error.sqlstate == state and seconds < 1, (phase, how)
                assert db.execute("SELECT count(*) FROM pg_class WHERE relname = 'stopped'").fetchone() == (0,)
                db.execute("CHECKPOINT")  # removes the files of what was rolled back
                assert used_files(db) == files, (phase, how)


def test_cancelled_after_any_time(db):
    """Threads of a build see that it is cancelled, and leave it to the backend's: in PostgreSQL they have no business."""
    make_table(db, clustered(5000, 32))
    outcomes = []
    for milliseconds in range(1, 2000, 4):
        with settings(db, statement_timeout=milliseconds):
            try:
                make_index(db, options="WITH (lists = 50)")
                break
            except psycopg.Error as error:
                outcomes.append(error.sqlstate)
    assert set(outcomes) == {"57014"}, outcomes
    assert len(outcomes) > 3


def stop_build(database, db, memory, phase, how):
    """Stop a build by pg_cancel_backend or pg_terminate_backend once it is in that phase. Returns the seconds that took and
    the error, or nothing if the build was over before."""
    builder, outcome = database.connect(), []
    builder.execute("SELECT set_config('maintenance_work_mem', %s, false)", (memory,))
    pid = builder.info.backend_pid

    def build():
        try:
            builder.execute("CREATE INDEX stopped ON items USING ivflsh (embedding vector_l2_ops)")
        except psycopg.Error as error:
            outcome[:] = [time.monotonic(), error]

    thread = threading.Thread(target=build)
    thread.start()
    statement = "SELECT 1 FROM pg_stat_progress_create_index WHERE pid = %s AND phase LIKE '%%' || %s"
    while thread.is_alive() and not db.execute(statement, (pid, phase)).fetchone():
        pass
    asked = time.monotonic()
    db.execute(f"SELECT pg_{how}_backend(%s)", (pid,))
    thread.join()
    builder.close()
    while db.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone():
        time.sleep(0.01)
    db.execute("DROP INDEX IF EXISTS stopped")
    return (outcome[0] - asked, outcome[1]) if outcome else None


def used_files(connection):
    """How many files of the database are not empty, and how many temporary ones there are."""
    folder = "'base/' || (SELECT oid FROM pg_database WHERE datname = current_database())"
    statement = f"""SELECT count(*) FROM pg_ls_dir({folder}) AS name, pg_stat_file({folder} || '/' || name, true) AS file
        WHERE file.size > 0 AND name ~ '^[0-9]+(\\.[0-9]+)?$'"""
    return connection.execute(statement).fetchone() + connection.execute("SELECT count(*) FROM pg_ls_tmpdir()").fetchone()
