"""A damaged index file gives an error or an answer, never a crash, a hang or unbounded memory.

The server is stopped, the file is changed at random, and the server queries, inserts and vacuums. VECTOR_EXT_DAMAGE=n
sets how many times (default 12; each time in four indexes).
"""

import os
import random
import struct

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector

from harness.cluster import Cluster

PAGE = 8192
ROUNDS = int(os.environ.get("VECTOR_EXT_DAMAGE", "12"))
#       name, dimensions, rows, options: small lists, cells that share pages, cells of several pages, one list
TABLES = (("s", 24, 400, "WITH (lists = 20)"), ("m", 784, 120, ""), ("w", 9000, 20, ""), ("f", 8, 600, ""))
WORDS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", struct.pack("<f", float("nan")), struct.pack("<f", 3e38))
# corrupted index or data, format version, internal error (bound above the true distance), block beyond the file,
# dimension mismatch after damage of the meta page
EXPECTED = {"XX002", "XX001", "XX000", "0A000", "58P01", "22000", "53200", "54000"}


def damage(data, dice):
    data, pages = bytearray(data), len(data) // PAGE
    start = dice.randrange(pages) * PAGE

    def word(at):
        data[at:at + 4] = dice.choice([*WORDS, struct.pack("<I", dice.randrange(pages)), dice.randbytes(4)])

    match dice.choice(["bytes", "bytes", "word", "word", "special", "zero", "swap", "cut", "self", "meta"]):
        case "bytes":
            for _ in range(dice.choice([1, 5, 50])):
                data[dice.randrange(len(data))] = dice.randrange(256)
        case "word":
            word(start + 24 + 4 * dice.randrange(200))
        case "special":
            word(start + PAGE - 32 + 4 * dice.randrange(8))
        case "meta":
            word(32 + 4 * dice.randrange(46))
        case "zero":
            data[start:start + PAGE] = bytes(PAGE)
        case "swap":
            other = dice.randrange(pages) * PAGE
            kept = data[start:start + PAGE]
            data[start:start + PAGE] = data[other:other + PAGE]
            data[other:other + PAGE] = kept
        case "cut":
            del data[start:]
        case "self":  # page numbers that name their own page
            for at in range(start + 32, start + PAGE - 32, 4):
                if 0 < struct.unpack_from("<I", data, at)[0] < pages and dice.random() < 0.3:
                    struct.pack_into("<I", data, at, start // PAGE)
    return bytes(data)


def peak_memory(connection):
    """In kB."""
    with open(f"/proc/{connection.info.backend_pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def test_damage():
    dice, random_rows = random.Random(ROUNDS), np.random.default_rng(5)
    with Cluster(settings={"restart_after_crash": "off", "shared_buffers": "16MB"}) as server:
        server.create_database("damage", "vector_ext")
        rows = {name: random_rows.normal(size=(n, d)).astype(np.float32) for name, d, n, _ in TABLES}
        files = {}
        with server.connect("damage") as connection:
            register_vector(connection)
            for name, d, n, options in TABLES:
                connection.execute(f"CREATE TABLE {name} (id int, v vector({d}))")
                for i, row in enumerate(rows[name]):
                    connection.execute(f"INSERT INTO {name} VALUES (%s, %b)", (i, Vector(row)))
                connection.execute(f"CREATE INDEX {name}_i ON {name} USING ivflsh (v vector_l2_ops) {options}")
                connection.execute(f"INSERT INTO {name} SELECT id + 1000, v FROM {name} LIMIT {n // 3}")
                connection.execute(f"DELETE FROM {name} WHERE id % 7 = 0")
                for relation in (name, name + "_i"):
                    path = connection.execute("SELECT pg_relation_filepath(%s)", (relation,)).fetchone()[0]
                    files[relation] = server.data / path
        server.stop()
        good = {relation: path.read_bytes() for relation, path in files.items()}
        for _ in range(ROUNDS):
            for relation, path in files.items():
                path.write_bytes(damage(good[relation], dice) if relation.endswith("_i") else good[relation])
                for fork in ("_fsm", "_vm"):
                    path.with_name(path.name + fork).unlink(missing_ok=True)
            server.start()
            for name, *_ in TABLES:
                use(server, name, Vector(dice.choice(list(rows[name]))))
            server.stop()


def use(server, name, query):
    with server.connect("damage") as connection:
        register_vector(connection)
        connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET statement_timeout = '20s'")
        connection.execute("SET ivflsh.iterative_scan = relaxed_order")
        for statement in (f"SELECT id FROM {name} ORDER BY v <-> %b LIMIT 10",
                          f"SELECT count(*) FROM (SELECT id FROM {name} ORDER BY v <-> %b) AS all_rows",
                          f"SELECT ivflsh_check('{name}_i')",
                          f"SELECT ivflsh_stats('{name}_i')",
                          f"SELECT count(*) FROM ivflsh_lists('{name}_i')",
                          f"SELECT ivflsh_prewarm('{name}_i')",
                          f"INSERT INTO {name} VALUES (99999, %b)",
                          f"INSERT INTO {name} SELECT 5, v FROM {name} LIMIT 60",
                          f"SELECT ivflsh_check('{name}_i')",
                          f"VACUUM {name}",
                          f"SELECT id FROM {name} ORDER BY v <-> %b LIMIT 10"):
            try:
                connection.execute(statement, (query,) if "%b" in statement else None)
            except psycopg.Error as error:
                assert error.sqlstate in EXPECTED, f"{statement}: {error.sqlstate} {error}"
                assert "panicked" not in str(error)
        assert peak_memory(connection) < 400_000
