"""Runs the statements on a server and notes what came back, exactly as the server wrote it.

An outcome is a dictionary as it stands in the golden files:
    {"results": [{"columns": [[name, type], …], "rows": [[text or null, …], …]} | {"tag": "INSERT 0 1"}
                 | {"copy": text} | {"error": {"state", "message", "detail", "hint"}} | {"crash": true}]}
"""

import contextlib
import os
import time

import psycopg
from psycopg import pq, sql

from compat import corpus
from harness.cluster import Cluster

SETTINGS = {
    "statement_timeout": "60s",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "datestyle": "ISO",
    "timezone": "UTC",
    "client_encoding": "UTF8",
    "client_min_messages": "warning",
    "search_path": "compat, public",
    "lc_messages": "C",
    "jit": "off",
}
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def new_cluster(pg_config=None):
    """A throwaway server as users have it: with RUST_BACKTRACE set, pgrx adds a backtrace to the detail of errors."""
    for name in ("RUST_BACKTRACE", "RUST_LIB_BACKTRACE"):
        os.environ.pop(name, None)
    return Cluster(pg_config)


class Server:
    """One extension on one server, in a database of its own that is made anew for each topic."""

    def __init__(self, dsn, ext, coverage=False):
        # The add-on is asked as the pgvector that it stands beside.
        self.dsn, self.name, self.ext, self.coverage = dsn, ext, "vector" if ext == "ivflsh" else ext, coverage
        self.database = f"compat_{ext}"
        with psycopg.connect(dsn, autocommit=True) as admin:
            self.version = admin.info.server_version
            self.version_text = admin.execute("SHOW server_version").fetchone()[0].split()[0]
            row = admin.execute(
                "SELECT default_version FROM pg_available_extensions WHERE name = %s", (ext,)
            ).fetchone()
        if row is None:
            raise LookupError(f"extension {ext} is not installed on the server at {dsn!r}")
        self.ext_version = row[0]

    def run_all(self, topics, progress=lambda topic: None):
        """{statement id: outcome}"""
        outcomes = {}
        for topic in topics:
            progress(topic)
            with Session(self, topic) as session:
                for statement in topic.statements:
                    outcomes[statement.id] = session.run(statement)
        return outcomes

    @contextlib.contextmanager
    def fresh_database(self):
        name = sql.Identifier(self.database)
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name)
        with psycopg.connect(self.dsn, autocommit=True) as admin:
            admin.execute(drop)
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'").format(name)
            )
        try:
            yield psycopg.conninfo.make_conninfo(self.dsn, dbname=self.database)
        finally:
            self.wait_until_up()
            with psycopg.connect(self.dsn, autocommit=True) as admin:
                admin.execute(drop)

    def wait_until_up(self, seconds=60):
        """Return once the server, which restarts itself after a crash, takes connections."""
        end = time.monotonic() + seconds
        while True:
            try:
                return psycopg.connect(self.dsn, autocommit=True).close()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)


class Session:
    """The connection of one topic: its statements see each other's tables and settings."""

    def __init__(self, server, topic):
        self.server, self.topic, self.types, self.calls = server, topic, {}, {}
        self.conn = self.side = self.stack = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.dsn = stack.enter_context(self.server.fresh_database())
            stack.callback(self.close)
            with psycopg.connect(self.dsn, autocommit=True) as conn:
                conn.execute(sql.SQL("CREATE EXTENSION {} SCHEMA public").format(sql.Identifier(self.server.ext)))
                if self.server.name != self.server.ext:
                    conn.execute(sql.SQL("CREATE EXTENSION {} SCHEMA public").format(sql.Identifier(self.server.name)))
                conn.execute("CREATE SCHEMA compat")
            self.open()
            if self.topic.setup:
                self.conn.execute(corpus.substitute(self.topic.setup, self.server.ext).encode(), prepare=False)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        return self.stack.__exit__(*exc)

    def open(self):
        self.conn = psycopg.connect(self.dsn, autocommit=True)
        self.side = psycopg.connect(self.dsn, autocommit=True)  # for questions that must not disturb the session
        for conn in (self.conn, self.side):
            for name, value in SETTINGS.items():
                conn.execute("SELECT set_config(%s, %s, false)", (name, value))
        if self.server.coverage:
            self.conn.execute("SET track_functions = 'all'")
            self.side.execute("SET stats_fetch_consistency = 'none'")

    def close(self):
        for conn in (self.conn, self.side):
            if conn is not None:
                conn.close()

    def reopen_after_crash(self):
        """When a backend crashes the server ends all others as well, a moment later: wait for that, then for its return."""
        with contextlib.suppress(psycopg.OperationalError):
            for _ in range(30):
                self.side.execute("SELECT 1")
                time.sleep(0.1)
        self.close()
        self.server.wait_until_up()
        self.open()

    def run(self, statement):
        try:
            if statement.copy_in:
                results = self.copy_in(*statement.copy_in)
            else:
                results = self.simple_query(statement.for_extension(self.server.ext))
        except psycopg.OperationalError:
            results = [{"crash": True}]
        pgconn = self.conn.pgconn
        if pgconn.status != pq.ConnStatus.OK:
            results = [{"crash": True}]
            self.reopen_after_crash()
        elif pgconn.transaction_status != pq.TransactionStatus.IDLE:
            pgconn.exec_(b"ROLLBACK")
        outcome = {"results": results}
        if self.server.coverage:
            outcome["calls"] = self.called_functions()
        return outcome

    def simple_query(self, text):
        pgconn = self.conn.pgconn
        pgconn.send_query(text.encode())
        results = []
        while result := pgconn.get_result():
            if result.status == pq.ExecStatus.COPY_OUT:
                results.append({"copy": self.read_copy()})
            elif result.status == pq.ExecStatus.COPY_IN:
                pgconn.put_copy_end()
            else:
                results.append(result)
        return [self.note(result) for result in results]

    def read_copy(self):
        data = b""
        while True:
            size, chunk = self.conn.pgconn.get_copy_data(0)
            if size < 0:
                break
            data += bytes(chunk)
        return "\\x" + data.hex() if data.startswith(b"PGCOPY") else data.decode()

    def copy_in(self, kind, data):
        pgconn = self.conn.pgconn
        pgconn.exec_(f"DROP TABLE IF EXISTS pg_temp.received; CREATE TEMP TABLE received (v {kind})".encode())
        opened = pgconn.exec_(b"COPY received FROM STDIN (FORMAT BINARY)")
        if opened.status != pq.ExecStatus.COPY_IN:
            return [self.note(opened)]
        row = (1).to_bytes(2, "big") + len(data).to_bytes(4, "big") + data
        pgconn.put_copy_data(COPY_HEADER + row + b"\xff\xff")
        pgconn.put_copy_end()
        results = []
        while result := pgconn.get_result():
            results.append(self.note(result))
        if any("error" in r for r in results):
            return results
        return results + self.simple_query("SELECT v FROM received")

    def note(self, result):
        if isinstance(result, dict):
            return result
        if result.status == pq.ExecStatus.TUPLES_OK:
            columns = [
                [result.fname(i).decode(), self.type_name(result.ftype(i), result.fmod(i))]
                for i in range(result.nfields)
            ]
            rows = [
                [None if (v := result.get_value(r, c)) is None else v.decode() for c in range(result.nfields)]
                for r in range(result.ntuples)
            ]
            return {"columns": columns, "rows": rows}
        if result.status == pq.ExecStatus.FATAL_ERROR:
            field = pq.DiagnosticField
            names = {"state": field.SQLSTATE, "message": field.MESSAGE_PRIMARY, "detail": field.MESSAGE_DETAIL, "hint": field.MESSAGE_HINT}
            found = {name: result.error_field(code) for name, code in names.items()}
            if found["state"] is None or found["state"].startswith(b"57P0"):
                return {"crash": True}
            return {"error": {name: value.decode() for name, value in found.items() if value is not None}}
        return {"tag": result.command_status.decode() if result.command_status else ""}

    def type_name(self, oid, mod):
        if (oid, mod) not in self.types:
            row = self.side.execute("SELECT format_type(%s::oid, %s)", (oid, mod)).fetchone()
            self.types[oid, mod] = row[0]
        return self.types[oid, mod]

    def called_functions(self):
        """Functions of the extension that the last statement called (see track_functions)."""
        self.conn.execute("SELECT pg_stat_force_next_flush()")
        rows = self.side.execute(
            """SELECT format('%%s(%%s)', p.proname, replace(oidvectortypes(p.proargtypes), ', ', ',')), s.calls
               FROM pg_stat_user_functions s JOIN pg_proc p ON p.oid = s.funcid
               JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
               JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = %s""", (self.server.ext,)).fetchall()
        called = sorted(name for name, calls in rows if calls != self.calls.get(name, 0))
        self.calls = dict(rows)
        return called
