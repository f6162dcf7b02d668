"""A damaged index file gives an error or an answer, never a crash, a hang or unbounded memory.

The server is stopped, files are changed at random, and the server searches, checks, inserts, splits and vacuums. Where
ivflsh_check finds nothing, answers must be right, and stay so. Elsewhere rows may be missing in an answer, but what it has
are rows of the table, each once, in order.

Two runs: faults anywhere, of any kind; and faults aimed at what else is only hit by chance, on each kind of page: the page
header, the special area, counts and pointers, and numbers whose checksum is right again.

`make stress ARGS="--damage 2000 --aimed 1000"` for more than the usual number of damaged indexes; --seed for others.
"""

import random
import struct
import threading
from collections import Counter
from dataclasses import dataclass

import numpy as np
import psycopg
import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector

from harness.cluster import Cluster, adopt_orphans
from harness.pages import HEADER_FIELDS, PAGE, SPECIAL, SPECIAL_FIELDS, START, Pages
from harness.search import assert_in_order

COPIES = 12  # of all tables are damaged at a time
SETTINGS = {"restart_after_crash": "off", "shared_buffers": "16MB"}
MEMORY = 400_000  # kB, at most
HANGS = 60  # seconds that nothing takes
WORDS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", struct.pack("<f", float("nan")), struct.pack("<f", 3e38))
# corrupted index or data, format version, block beyond the file, dimension mismatch after damage of the meta page, ...
# 53100 is how PostgreSQL 17 says that a block is far beyond the end of a file.
EXPECTED = {"XX002", "XX001", "0A000", "58P01", "22000", "53100", "53200", "54000"}
# PostgreSQL's own: a bound above the true distance; a block far beyond the end of the index or the table.
INTERNAL = ("index returned tuples in wrong order", "could not open file")


@dataclass(frozen=True)
class Table:
    name: str
    dimensions: int
    rows: int
    options: str
    columns: str = "v vector_l2_ops"
    grown: bool = False  # from an empty index, and most of it has gone

    @property
    def vectors(self):
        return np.random.default_rng(self.dimensions).normal(size=(self.rows, self.dimensions)).astype(np.float32)


# Small lists, cells that share pages, cells of several pages, one list.
TABLES = (Table("s", 24, 400, "WITH (lists = 20)"), Table("m", 784, 120, ""), Table("w", 9000, 20, ""), Table("f", 8, 600, ""))
# And filter columns in an index that has split and has free pages; sketches and rows only.
AIMED = (*TABLES, Table("g", 16, 500, "", "v vector_ip_ops, id", True), Table("r", 8, 600, "WITH (bits = 0, lists = 8)"))


def damage(data, others, dice):
    """One fault, in a copy of `data`. `others`: what other indexes hold. Returns its kind as well."""
    data, pages = bytearray(data), len(data) // PAGE
    start = dice.randrange(pages) * PAGE

    def word(at):
        data[at:at + 4] = dice.choice([*WORDS, struct.pack("<I", dice.randrange(pages)), dice.randbytes(4)])

    kind = dice.choice(["bytes", "bytes", "word", "word", "head", "special", "zero", "swap", "copy", "foreign", "cut", "self",
                        "meta"])
    match kind:
        case "bytes":
            for _ in range(dice.choice([1, 5, 50])):
                data[dice.randrange(len(data))] = dice.randrange(256)
        case "word":
            word(start + 24 + 4 * dice.randrange(200))
        case "head":
            word(start + 4 * dice.randrange(6))
        case "special":
            word(start + PAGE - SPECIAL + 4 * dice.randrange(SPECIAL // 4))
        case "meta":
            word(24 + 4 * dice.randrange(60))
        case "zero":
            data[start:start + PAGE] = bytes(PAGE)
        case "swap":
            other = dice.randrange(pages) * PAGE
            kept = data[start:start + PAGE]
            data[start:start + PAGE] = data[other:other + PAGE]
            data[other:other + PAGE] = kept
        case "copy":
            other = dice.randrange(pages) * PAGE
            data[start:start + PAGE] = data[other:other + PAGE]
        case "foreign":
            other = dice.choice(others)
            at = dice.randrange(len(other) // PAGE) * PAGE
            data[start:start + PAGE] = other[at:at + PAGE]
        case "cut":
            del data[start:]
        case "self":  # page numbers that name their own page
            for at in range(start + 32, start + PAGE - 32, 4):
                if 0 < struct.unpack_from("<I", data, at)[0] < pages and dice.random() < 0.3:
                    struct.pack_into("<I", data, at, start // PAGE)
    return bytes(data), kind


def near(value, dice):
    """Another number in the place of this one."""
    return dice.choice([0, 1, value + 1, value - 1, value * 2, value // 2, value ^ 1 << dice.randrange(16), -1, 0x7FFFFFFF,
                        dice.randrange(1 << 32)])


def aimed_damage(data, _, dice):
    """One fault where it is likely to matter, on a page of some kind. Returns kind of page and what was hit as well."""
    pages = Pages(data)
    kind = dice.choice(sorted({pages.kind(page) for page in range(len(pages))} - {None}))
    page = dice.choice(pages.of_kind(kind))
    lower, upper = (pages.get(page, HEADER_FIELDS[field]) for field in ("lower", "upper"))
    target = dice.choice(["header", "header", "special", "counts", "contents", "contents"])

    def change(field, *others):
        pages.put(page, field, dice.choice([*others, near(pages.get(page, field), dice)]))

    match target:
        case "header":
            match dice.randrange(4):
                case 0:
                    pages.put(page, HEADER_FIELDS["upper"], lower)
                case 1:
                    for field in ("lower", "upper"):
                        pages.put(page, HEADER_FIELDS[field], dice.choice([24, START, lower, upper, PAGE - SPECIAL]))
                case 2:
                    change(HEADER_FIELDS[dice.choice(["lower", "upper", "special"])], START, lower, upper, PAGE - SPECIAL, PAGE)
                case 3:
                    change(HEADER_FIELDS[dice.choice(["flags", "version", "prune_xid"])], 1, 2, 4)
        case "special":
            change(SPECIAL_FIELDS[dice.choice(sorted(SPECIAL_FIELDS))], page, dice.randrange(len(pages)))
        case "counts":
            change(SPECIAL_FIELDS[dice.choice(["used", "refs"])])
        case "contents":
            # Where counts and pointers are: at the head of one of the blocks of a posting page, behind their rows, and in the
            # heads of cells; anywhere on the others. Checksums are right again, so that it is believed.
            used = max(pages.get(page, SPECIAL_FIELDS["used"]), 1)
            start = START + (lower - START) // used * dice.randrange(used)
            places = {"posting": [0, 4, dice.randrange(264, 456), *(456 + 4 * dice.randrange(60) for _ in range(4))],
                      "code": [0, 4, 8, 10, 12, 16, 20]}.get(kind, [4 * dice.randrange(80)])
            at = start + dice.choice(places)
            if kind not in ("posting", "code"):
                at = START + dice.choice(places)
            change((dice.choice(["<B", "<H", "<I", "<I"]), at), page, dice.randrange(len(pages)))
            # Under a right checksum, another seed is that of another index, with as good an order: nothing could tell.
            is_seed = kind == "meta" and 16 <= at - START < 24
            if kind in ("meta", "mean") and not is_seed:
                pages.seal(page)
    return bytes(pages.data), f"{kind}, {'no change' if pages.data == data else target}"


def peak_memory(connection):
    """In kB."""
    with open(f"/proc/{connection.info.backend_pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def make_tables(server):
    server.create_database("whole", "vector_ext")
    with server.connect("whole") as connection:
        register_vector(connection)
        for table in AIMED:
            connection.execute(f"CREATE TABLE {table.name} (id int, v vector({table.dimensions}))")
            index = f"CREATE INDEX {table.name}_i ON {table.name} USING ivflsh ({table.columns}) {table.options}"
            if table.grown:
                connection.execute(index)
            for i, row in enumerate(table.vectors):
                connection.execute(f"INSERT INTO {table.name} VALUES (%s, %b)", (i, Vector(row)))
            if table.grown:
                connection.execute(f"DELETE FROM {table.name} WHERE id % 4 > 0")
                connection.execute(f"VACUUM {table.name}")
            else:
                connection.execute(index)
            connection.execute(f"INSERT INTO {table.name} SELECT id + 1000, v FROM {table.name} LIMIT {table.rows // 3}")
            connection.execute(f"DELETE FROM {table.name} WHERE id % 7 = 0")


def index_file(server, name, table):
    with server.connect(name) as connection:
        return server.data / connection.execute("SELECT pg_relation_filepath(%s)", (table.name + "_i",)).fetchone()[0]


class Use:
    """What is done with a damaged index."""

    def __init__(self, server, name, table, kind, dice):
        self.server, self.database, self.table, self.kind, self.dice = server, name, table, kind, dice
        self.query = Vector(dice.choice(list(table.vectors)))
        self.errors, self.connection = [], None

    def run(self, statement):
        """What the statement returns; None after an error of the right kind."""
        try:
            cursor = self.connection.execute(statement, {"q": self.query} if "%(q)b" in statement else None)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            where = f"{self.kind}, {self.table.name}, {statement}: {error.sqlstate} {error}"
            assert error.sqlstate in EXPECTED or (
                error.sqlstate == "XX000" and any(words in str(error) for words in INTERNAL)), where
            assert "panicked" not in str(error), where
            self.errors.append(f"{error.sqlstate} {error.diag.message_primary} {error.diag.message_detail}")

    def search(self, limit=None):
        """The nearest rows; all of them without a limit. None after an error."""
        end = f"LIMIT {limit}" if limit else ""
        distance = f"v {'<#>' if 'vector_ip_ops' in self.table.columns else '<->'} %(q)b"
        return self.run(f"SELECT ctid::text, {distance} FROM {self.table.name} ORDER BY {distance} {end}")

    def is_whole(self):
        return self.run(f"SELECT ivflsh_check('{self.table.name}_i')") is not None

    def holds_all(self):
        found = self.search()
        rows = self.run(f"SELECT ctid::text FROM {self.table.name}")
        assert found is None or len({row for row, _ in found}) == len(found), f"{self.kind}: a row came twice"
        return found is not None and {row for row, _ in found} == {row for row, in rows}

    def all(self):
        """Everything. Returns whether the check found something."""
        watchdog = threading.Timer(HANGS, self.server.kill)
        watchdog.start()
        name = self.table.name
        try:
            with self.server.connect(self.database) as self.connection:
                register_vector(self.connection)
                self.run("SET enable_seqscan = off; SET enable_sort = off; SET statement_timeout = '20s'")
                assert_in_order(self.search(10) or [], f"{self.kind}, {name}:")
                self.run("SET ivflsh.iterative_scan = relaxed_order")
                holds_all = self.holds_all()
                whole = self.is_whole()
                assert holds_all or not whole, f"{self.kind}, {name}: ivflsh_check finds nothing, but a scan lacks rows"
                for statement in (f"SELECT ivflsh_stats('{name}_i')", f"SELECT count(*) FROM ivflsh_lists('{name}_i')",
                                  f"SELECT ivflsh_prewarm('{name}_i')", f"INSERT INTO {name} VALUES (99999, %(q)b)",
                                  f"INSERT INTO {name} SELECT 5, v FROM {name} LIMIT 150",
                                  f"DELETE FROM {name} WHERE id % 3 = 0 AND id <> 5",
                                  f"VACUUM {name}", f"INSERT INTO {name} SELECT 6, v FROM {name} LIMIT 150",
                                  f"VACUUM {name}"):
                    self.run(statement)
                errors = list(self.errors)
                whole_still = self.is_whole()
                said = self.errors[len(errors):]
                holds_all = self.holds_all()
                assert holds_all or not whole_still, f"{self.kind}, {name}: a scan lacks rows, and ivflsh_check is content"
                assert not whole or whole_still and not errors, f"{self.kind}, {name}: ivflsh_check was content, later {errors}, then {said}"
                memory = peak_memory(self.connection)
                assert memory < MEMORY, f"{self.kind}, {name}: {memory} kB"
        finally:
            watchdog.cancel()
        return not whole


def damaged(stress, tables, rounds, fault):
    """Uses so many indexes, each with a `fault`."""
    adopt_orphans()
    dice, counts, done = random.Random(stress.seed), Counter(), 0
    with Cluster(settings=SETTINGS) as server:
        make_tables(server)
        while done < rounds:
            names = [f"copy_{i}" for i in range(min(COPIES, -(-(rounds - done) // len(tables))))]
            with server.connect() as admin:
                for name in names:
                    admin.execute(f"CREATE DATABASE {name} TEMPLATE whole")
            files = {(name, table): index_file(server, name, table) for name in names for table in tables}
            server.stop()
            whole = {table: files[names[0], table].read_bytes() for table in tables}
            kinds = {}
            for (name, table), path in files.items():
                data, kinds[name, table] = fault(whole[table], [whole[t] for t in tables if t != table], dice)
                path.write_bytes(data)
                if dice.random() < 0.5:
                    path.with_name(path.name + "_fsm").unlink(missing_ok=True)
            server.start()
            for (name, table), kind in kinds.items():
                noticed = Use(server, name, table, kind, random.Random(f"{stress.seed} {done}")).all()
                assert noticed or "header" not in kind, f"{kind}, {table.name}: ivflsh_check finds nothing"
                counts[f"{kind}: {'noticed' if noticed else 'harmless'}"] += 1
                done += 1
            with server.connect() as admin:
                for name in names:
                    admin.execute(f"DROP DATABASE {name}")
            log = server.log.read_text(errors="replace")
            assert "terminated by signal" not in log and "PANIC" not in log
    print("\n".join(f"{count:6} {what}" for what, count in sorted(counts.items())))


def test_damage(stress):
    damaged(stress, TABLES, stress.damage, damage)


def test_aimed_damage(stress):
    damaged(stress, AIMED, stress.aimed, aimed_damage)


def no_hole(pages, kind):
    """All pages of a kind say that nothing can be added to them."""
    for page in pages.of_kind(kind):
        pages.put(page, HEADER_FIELDS["upper"], pages.get(page, HEADER_FIELDS["lower"]))


def nothing_used(pages, kind):
    """All pages of a kind say that they hold nothing, and that nothing can be added."""
    for page in pages.of_kind(kind):
        pages.put(page, HEADER_FIELDS["upper"], START)
        pages.put(page, HEADER_FIELDS["lower"], START)


def test_hole_of_negative_length():
    """What the header says of the room on a page is what PostgreSQL computes the length of the hole by, when a change is
    logged: no page may get there on which more is used than that."""
    faults = [(fault, kind) for fault in (no_hole, nothing_used) for kind in ("meta", "posting", "code", "sketch")]
    with Cluster(settings=SETTINGS) as server:
        make_tables(server)
        with server.connect() as admin:
            for i in range(len(faults)):
                admin.execute(f"CREATE DATABASE copy_{i} TEMPLATE whole")
        tables = [table for table in AIMED if table.name in "sw"]
        files = [(index_file(server, f"copy_{i}", table), *fault) for i, fault in enumerate(faults) for table in tables]
        server.stop()
        hit = []
        for path, fault, kind in files:
            pages = Pages(path.read_bytes())
            fault(pages, kind)
            hit.append(pages.data != path.read_bytes())
            path.write_bytes(pages.data)
        server.start()
        for i, (fault, kind) in enumerate(faults):
            with server.connect(f"copy_{i}") as connection:
                for j, table in enumerate(tables):
                    for statement in (f"INSERT INTO {table.name} SELECT id, v FROM {table.name}",
                                      f"SELECT ivflsh_check('{table.name}_i')", f"VACUUM {table.name}") * hit[i * len(tables) + j]:
                        try:
                            connection.execute(statement)
                            refused = None
                        except psycopg.Error as error:
                            refused = error.sqlstate
                        assert refused == "XX002" or "check" not in statement and refused is None, (
                            fault.__name__, kind, table.name, statement, refused)
        assert "terminated by signal" not in server.log.read_text(errors="replace")


RUN = ("<IHH", START + 456)  # on a posting page: a cell's page, its number there, how many


@pytest.mark.parametrize("first, count", [(0x8000, 1), (7, 1), (0, 2), (0x8000, 0x7FFF)])
def test_runs_of_cells_of_several_pages(first, count):
    """By a number that no search looks at VACUUM would count who needs a page, and give it away too early."""
    layout, at = RUN
    with Cluster(settings=SETTINGS) as server:
        make_tables(server)
        wide = next(table for table in AIMED if table.name == "w")
        path = index_file(server, "whole", wide)
        server.stop()
        pages = Pages(path.read_bytes())
        page = next(iter(pages.of_kind("posting")))
        number, *others = struct.unpack_from(layout, pages.data, page * PAGE + at)
        assert others == [0, 1]
        struct.pack_into(layout, pages.data, page * PAGE + at, number, first, count)
        path.write_bytes(pages.data)
        server.start()
        with server.connect("whole") as connection:
            for statement in ("SELECT ivflsh_check('w_i')", "VACUUM (INDEX_CLEANUP on) w"):
                with pytest.raises(psycopg.errors.IndexCorrupted):
                    connection.execute(statement)
