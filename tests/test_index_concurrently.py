"""CREATE INDEX CONCURRENTLY that comes to an end before its time: the index is left invalid, and the server as it was."""

import threading
import time

import psycopg

ROWS = 46_000  # whose TIDs are more than 1 MB to sort


def wait_until(db, condition):
    give_up = time.monotonic() + 60
    while not db.execute(f"SELECT {condition}").fetchone()[0]:
        assert time.monotonic() < give_up, condition
        time.sleep(0.05)


def test_disk_full_in_validation(database):
    """Its last pass asks the index for all TIDs and sorts them: each is handed to PostgreSQL by a bulk delete's callback, which
    may fail (here at the limit of temporary files) while a page of the index is locked."""
    db, before, meanwhile, builder = (database.connect() for _ in range(4))
    db.execute("CREATE TABLE t (id int, v vector(4))")
    builder.execute("SET maintenance_work_mem = '1MB'; SET temp_file_limit = '128kB'")
    errors = []

    def build():
        try:
            builder.execute("CREATE INDEX CONCURRENTLY t_v ON t USING ivflsh (v vector_l2_ops) WITH (bits = 0)")
        except psycopg.Error as error:
            errors.append(error.sqlstate)

    # It is held up before it builds (an empty index), and again before it validates; rows are inserted in between.
    waits = f"(SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {builder.info.backend_pid})"
    before.execute("BEGIN; LOCK t IN ROW EXCLUSIVE MODE")
    thread = threading.Thread(target=build)
    thread.start()
    wait_until(db, waits)
    meanwhile.execute("BEGIN; LOCK t IN ROW EXCLUSIVE MODE")
    before.execute("COMMIT")
    wait_until(db, f"EXISTS (SELECT FROM pg_index WHERE indexrelid = 't_v'::regclass AND indisready) AND {waits}")
    db.execute(f"INSERT INTO t SELECT i, ARRAY[i % 7, i % 11, i % 13, i % 101] FROM generate_series(1, {ROWS}) i")
    meanwhile.execute("COMMIT")
    thread.join()
    assert errors == ["53400"], "temporary files are limited"

    assert not db.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_v'::regclass").fetchone()[0]
    assert not db.execute("SELECT count(*) FROM pg_locks WHERE locktype IN ('tuple', 'page', 'extend')").fetchone()[0]
    # The backend goes on, and no page of the index is left locked or pinned: these would wait for it.
    for connection in (builder, db):
        connection.execute("SET statement_timeout = '60s'")
        connection.execute("INSERT INTO t SELECT id, v FROM t LIMIT 100")
        connection.execute("DELETE FROM t WHERE id % 50 = 0")
        connection.execute("VACUUM t")
    builder.execute("RESET temp_file_limit")
    builder.execute("REINDEX INDEX CONCURRENTLY t_v")
    assert db.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_v'::regclass").fetchone()[0]
    db.execute("SELECT ivflsh_check('t_v')")
