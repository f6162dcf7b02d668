"""ivflsh_check finds nothing on whole indexes of every kind, and something on damaged ones."""

import struct
import threading

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector

from harness.cluster import Cluster
from harness.search import COSINE, IP, L2, METRICS, clustered, insert, make_index, make_table

INDEX = "items_embedding_idx"
ROWS = clustered(1500, 24)
PAGE, META, POSTING, SKETCH, CODE = 8192, 1, 3, 4, 5


def check(db, index=INDEX, *more):
    """The report as a dictionary."""
    cursor = db.execute(f"SELECT * FROM ivflsh_check('{index}'{''.join(f', {m}' for m in more)})")
    return dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("type_name", ["vector", "halfvec"])
def test_life_of_a_table(db, metric, type_name):
    make_table(db, ROWS[:1000], type_name=type_name)
    make_index(db, metric, type_name=type_name)
    assert check(db) | {"pages": 0} == {"lists": check(db)["lists"], "entries": 1000, "rows": 1000, "pages": 0,
                                        "free_pages": 0, "leaked_pages": 0}
    insert(db, [*ROWS[1000:], None, np.zeros(24)], first_id=1000, type_name=type_name)
    found = check(db)
    assert found["rows"] == found["entries"] == (1500 if metric == COSINE else 1501), "NULL, no direction under cosine"
    db.execute("UPDATE items SET label = label + 1 WHERE id < 300")
    db.execute("UPDATE items SET embedding = embedding + embedding WHERE id >= 1300")
    db.execute("DELETE FROM items WHERE id % 3 = 0")
    assert check(db)["entries"] > check(db)["rows"], "dead rows have entries"
    db.execute("VACUUM items")
    found = check(db)
    nowhere = " AND vector_norm(embedding::vector) > 0" if metric == COSINE else ""
    count = db.execute("SELECT count(*) FROM items WHERE embedding IS NOT NULL" + nowhere).fetchone()[0]
    assert found["entries"] == found["rows"] == count
    insert(db, ROWS[:400] + 3, first_id=5000, type_name=type_name)
    assert check(db)["rows"] == found["rows"] + 400
    assert check(db, INDEX, "false")["rows"] == 0, "only the structure"
    db.execute("TRUNCATE items")
    assert check(db)["entries"] == 0


@pytest.mark.parametrize("dimensions, rows, options", [
    (1, 300, ""), (3, 2000, ""), (8, 400, "WITH (lists = 90)"), (130, 300, "WITH (lists = 5)"), (784, 150, ""),
    (1536, 60, ""), (4096, 40, "WITH (lists = 3)"), (9000, 24, ""), (16000, 12, "")])
def test_shapes(db, dimensions, rows, options):
    vectors = clustered(rows, dimensions, clusters=8)
    make_table(db, vectors[:rows // 2])
    make_index(db, L2, options=options)
    insert(db, vectors[rows // 2:], first_id=rows // 2)
    assert check(db)["rows"] == rows
    db.execute("DELETE FROM items WHERE id % 2 = 0")
    db.execute("VACUUM items")
    insert(db, vectors[:rows // 3], first_id=rows)
    assert check(db)["rows"] == check(db)["entries"] == rows - (rows + 1) // 2 + rows // 3


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-6, 1e6, 1e18, 1e25, 3e37])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_values_at_the_ends(db, metric, scale):
    random = np.random.default_rng(3)
    rows = np.vstack([random.normal(size=(300, 5)), np.eye(5)[random.integers(5, size=300)], np.ones((100, 5))])
    rows = np.clip(rows * scale, -3e38, 3e38).astype(np.float32)
    make_table(db, rows[:500])
    make_index(db, metric)
    insert(db, rows[500:], first_id=500)
    assert check(db)["rows"] == 700


def test_expressions_and_partial_indexes(db):
    make_table(db, ROWS)
    db.execute("CREATE INDEX doubled ON items USING ivflsh (((embedding + embedding)::vector(24))) WHERE label < 5")
    insert(db, ROWS[:100], first_id=5000)
    db.execute("UPDATE items SET label = 1 WHERE id = 5009")
    assert check(db, "doubled")["rows"] == db.execute("SELECT count(*) FROM items WHERE label < 5").fetchone()[0]


def test_only_what_the_snapshot_sees(database):
    db, other = database.connect(), database.connect(autocommit=False)
    make_table(db, ROWS[:500])
    make_index(db)
    insert(other, ROWS[500:600], first_id=500)
    found = check(db)
    assert (found["rows"], found["entries"]) == (500, 600)
    assert check(other)["rows"] == 600
    other.rollback()
    db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert check(db)["rows"] == 500
    insert(other, ROWS[600:700], first_id=600)
    other.execute("DELETE FROM items WHERE id < 100")
    other.commit()
    assert check(db)["rows"] == 500
    db.execute("COMMIT")
    assert check(db)["rows"] == 500


def test_while_others_write(database):
    db = database.connect()
    make_table(db, ROWS[:300])
    make_index(db)
    stop = threading.Event()

    def write(part):
        connection = database.connect()
        at = 1000 + part
        while not stop.is_set():
            insert(connection, ROWS[at % 1000:at % 1000 + 20], first_id=at * 100)
            connection.execute("DELETE FROM items WHERE id BETWEEN %s AND %s", (at * 100, at * 100 + 9))
            if part == 0:
                connection.execute("VACUUM items")
            at += 2

    threads = [threading.Thread(target=write, args=(part,)) for part in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            assert check(db)["rows"] >= 300
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_refused(db):
    make_table(db, ROWS[:50])
    make_index(db)
    with pytest.raises(psycopg.errors.WrongObjectType):
        db.execute("SELECT ivflsh_check('items_pkey')")
    db.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (INDEX,))
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        check(db)


# Damage that leaves every page well formed, so that only the check can tell.

@pytest.fixture(scope="module")
def server():
    with Cluster() as server:
        server.create_database("damage", "vector_ext")
        yield server


class File:
    """The pages of an index of a stopped server."""

    def __init__(self, path):
        self.path, self.data = path, bytearray(path.read_bytes())

    def special(self, page):
        """next, list, epoch, insert_at, used, kind, level, refs, flags, head"""
        return struct.unpack_from("<IIIIHBBHHI", self.data, page * PAGE + PAGE - 32)

    def pages(self, kind, level=0):
        return [p for p in range(len(self.data) // PAGE) if self.special(p)[5:7] == (kind, level)]

    def put(self, layout, page, at, *values):
        struct.pack_into(layout, self.data, page * PAGE + at, *values)

    def get(self, layout, page, at):
        return struct.unpack_from(layout, self.data, page * PAGE + at)[0]

    def row_of_cell(self, page, cell):
        """TID of the entry whose code is in a cell of a code page."""
        for posting in self.pages(POSTING):
            for block in range(32, 32 + BLOCK * self.special(posting)[4], BLOCK):
                slot = 0
                for run in range(3):
                    number, first, count = struct.unpack_from("<IHH", self.data, posting * PAGE + block + RUNS + 8 * run)
                    if count and number == page and first <= cell < first + count:
                        return self.get("6s", posting, block + 264 + 6 * (slot + cell - first))
                    slot += count
        raise LookupError(f"nobody refers to cell {cell} of page {page}")

    def seal(self, page, cell, level=0):
        """Gives a changed cell the checksum that it would have if it had been written so."""
        at = 32 + cell * (CELL + 4 * level)
        head, code = at + page * PAGE, at + page * PAGE + 12 + 4 * level
        owner = self.get("<I", page, at + 12) if level else int.from_bytes(self.row_of_cell(page, cell), "big")
        state = owner
        words = struct.unpack_from("<6I", self.data, code)
        for part in (int.from_bytes(self.data[head:head + 8], "little"), int.from_bytes(self.data[head + 8:head + 10], "little"),
                     sum(word * ((1 + 0x9E3779B8 * i) % 2**32) for i, word in enumerate(words))):
            product = (state ^ part % 2**64) * 0x9FB21C651E98DF25 % 2**64
            state = product ^ product >> 32
        self.put("<H", page, at + 10, state >> 48)

    def factor(self, page, at, times):
        """Multiplies a number of 16 bits: an f32 without its sign and the last 15 bits."""
        [value] = struct.unpack("<f", struct.pack("<I", self.get("<H", page, at) << 15))
        [bits] = struct.unpack("<I", struct.pack("<f", value * times))
        self.put("<H", page, at, bits >> 15)

    def block_on_code_pages(self, page):
        """Offset of the first full block of a page whose cells are all on one code page."""
        return next(at for at in range(32, PAGE - 32 - BLOCK, BLOCK) if self.get("<H", page, at + RUNS + 4) < FROM_END
                    and self.get("<H", page, at + RUNS + 6) == 32)


# Offsets on a page: 32 begins the first block (live, dead at 4, constants at 8, scales 136, errors 200, TIDs 264, runs of
# cells 456, child lists or sketches 480) or the first cell (constant, step at 4, error at 8, checksum at 10, code at 12; on
# inner levels the child list before the code); -32 begins the special area, before which are the cells of the page's own list.
BLOCK, RUNS, CELL, FROM_END = 480 + 8 * 24, 456, 12 + 24, 0x8000


def cross_chains(file):
    one, two = [p for p in file.pages(POSTING)][:2]
    file.put("<I", one, PAGE - 32, two)
    return "belongs to list"


def chain_of_its_own(file):
    page = file.pages(POSTING)[0]
    file.put("<I", page, PAGE - 32, page)
    return "reached twice"


def other_head(file):
    page = file.pages(POSTING)[0]
    file.put("<I", page, PAGE - 8, page + 1)
    return "names head"


def insert_elsewhere(file):
    page = file.pages(POSTING)[0]
    file.put("<I", page, PAGE - 20, file.pages(POSTING)[1])
    return "not in its chain"


def live_beyond_slots(file):
    page = file.pages(POSTING)[0]
    file.put("<I", page, 32, 0xFFFFFFFF)
    for run in range(3):
        file.put("<H", page, 32 + RUNS + 8 * run + 6, 0 if run else 5)
    return "out of bounds"


def lost_row(file):
    page = file.pages(POSTING)[0]
    file.put("<I", page, 32, file.get("<I", page, 32) & ~1)
    return "has no entry"


def other_row(file):
    page = file.pages(POSTING)[0]
    file.put("6s", page, 32 + 264, file.get("6s", page, 32 + 264 + 6))
    return "has entries in blocks|has no entry"


def no_row(file):
    page = file.pages(POSTING)[0]
    file.put(">IH", page, 32 + 264, 3, 2000)
    return "where there is no row|has no entry"


def shared_cells(file):
    one, two = [(p, file.block_on_code_pages(p) + RUNS) for p in file.pages(POSTING)[:2]]
    file.put("8s", *two, file.get("8s", *one))
    return "belongs to two entries"


def cells_of_another_list(file):
    one, two = file.pages(POSTING)[:2]
    file.put("<I", two, 32 + RUNS, file.get("<I", one, 32 + RUNS))
    return "which is not of its list"


def cells_at_the_end_not_written(file):
    page = file.pages(POSTING)[0]
    file.put("<H", page, PAGE - 12, 1)
    file.put("<H", page, 14, PAGE - 32 - CELL)  # as the header says
    return "has not been written"


def cells_not_written(file):
    page = file.pages(CODE)[0]
    file.put("<H", page, PAGE - 16, 1)
    file.put("<H", page, 12, 32 + CELL)  # as the header says
    return "has not been written"


def too_few_references(file):
    page = file.pages(CODE)[0]
    file.put("<H", page, PAGE - 12, 0)
    return "which counts 0"


def wrong_code(file):
    page = file.pages(CODE)[0]
    for cell in range(3):
        file.put("<24b", page, 32 + cell * CELL + 12, *range(110, -130, -10))
        file.seal(page, cell)
    return "bounds its distance"


def changed_code(file):
    file.data[file.pages(CODE)[0] * PAGE + 32 + CELL + 12 + 7] ^= 1
    return "checksum"


def swapped_codes(file):
    page = file.pages(CODE)[0]
    one, two = [page * PAGE + 32 + cell * CELL for cell in range(2)]
    file.data[one:two], file.data[two:two + CELL] = file.data[two:two + CELL], file.data[one:two]
    return "checksum"


def wrong_error(file):
    page = file.pages(CODE)[0]
    file.put("<H", page, 32 + 8, 0xFFFF)
    file.seal(page, 0)
    return "has factors|bounds its distance"


def wrong_constant(file):
    page = file.pages(POSTING)[0]
    file.put("<f", page, 32 + 8, 2 * file.get("<f", page, 32 + 8) + 20)
    return "whose constant is"


def wrong_scale(file):
    page = file.pages(POSTING)[0]
    file.factor(page, 32 + 136, 1.5)
    return "sketch that does not fit"


def wrong_deviation(file):
    page = file.pages(POSTING)[0]
    file.factor(page, 32 + 200, 0.1)
    return "whose deviation is"


def wrong_nibbles(file):
    page = file.pages(POSTING)[0]
    at = 32 + 480
    for byte in range(at, at + 16 * 12):
        file.data[page * PAGE + byte] ^= 0x55
    return "sketch"


def wrong_child(file):
    page = file.pages(POSTING, 1)[0]
    at = 32 + 480
    file.put("<I", page, at, file.get("<I", page, at + 4))
    return "named by two entries|belongs to list"


def lost_list(file):
    page = file.pages(POSTING, 1)[0]
    file.put("<I", page, 32, file.get("<I", page, 32) & ~4)
    return "lists of rows, the meta page counts"


def wrong_centroid(file):
    page = file.pages(CODE, 1)[0]
    for at in range(16, 40):  # on inner levels, the child list's identity comes before the code
        file.data[page * PAGE + 32 + at] ^= 0x40
    file.seal(page, 0, level=1)
    return "squared norm|bounds its distance|sketch"


def changed_centroid(file):
    file.data[file.pages(CODE, 1)[0] * PAGE + 32 + 20] ^= 1
    return "checksum"


def other_centroid(file):
    file.put("<I", file.pages(CODE, 1)[0], 32 + 12, 9999)
    return "belongs to list 9999"


def entries_in_the_hole(file):
    file.put("<H", file.pages(POSTING)[0], 12, 32 + 100)
    return "page header is invalid"


def cells_in_the_hole(file):
    file.put("<H", file.pages(CODE)[0], 12, 32 + 2 * CELL)
    return "page header is invalid"


def from_the_future(file):
    file.put("<I", file.pages(POSTING)[0], PAGE - 24, 77)
    return "changed at epoch 77"


def zero_page(file):
    page = file.pages(POSTING)[2]
    file.data[page * PAGE:(page + 1) * PAGE] = bytes(PAGE)
    return "unexpected page kind"


def other_version(file):
    file.put("<H", file.pages(POSTING)[0], PAGE - 2, 99)
    return "format version 99"


DAMAGE = [cross_chains, chain_of_its_own, other_head, insert_elsewhere, live_beyond_slots, lost_row, other_row, no_row,
          shared_cells, cells_of_another_list, cells_not_written, cells_at_the_end_not_written, too_few_references, wrong_code, changed_code, swapped_codes, wrong_error, wrong_constant,
          wrong_scale, wrong_deviation, wrong_nibbles, wrong_child, lost_list, wrong_centroid, changed_centroid, other_centroid,
          entries_in_the_hole, cells_in_the_hole, from_the_future, zero_page, other_version]


def test_contradictions(server):
    """One fault each in the pages of a stopped server's index: the check names it."""
    with server.connect("damage") as connection:
        register_vector(connection)
        for fault in DAMAGE:
            make_table(connection, ROWS[:900], table=fault.__name__)
            make_index(connection, table=fault.__name__, options="WITH (lists = 3)")
            check(connection, f"{fault.__name__}_embedding_idx")
        paths = {fault: server.data / connection.execute(
            "SELECT pg_relation_filepath(%s)", (f"{fault.__name__}_embedding_idx",)).fetchone()[0] for fault in DAMAGE}
    server.stop()
    expected = {}
    for fault, path in paths.items():
        file = File(path)
        expected[fault] = fault(file)
        path.write_bytes(file.data)
    server.start()
    with server.connect("damage") as connection:
        missed = []
        for fault, words in expected.items():
            try:
                check(connection, f"{fault.__name__}_embedding_idx")
                missed.append(f"{fault.__name__}: not noticed")
            except psycopg.Error as error:
                said = f"{error.diag.sqlstate} {error.diag.message_primary} {error.diag.message_detail}"
                if error.diag.sqlstate != "XX002" or not any(w in said for w in words.split("|")):
                    missed.append(f"{fault.__name__}: {said}")
        assert not missed, "\n".join(missed)


def damage_index(server, table, options, change):
    """Makes a table with an index, and changes the File of that."""
    with server.connect("damage") as connection:
        register_vector(connection)
        make_table(connection, ROWS[:900], table=table)
        make_index(connection, table=table, options=options)
        path = server.data / connection.execute("SELECT pg_relation_filepath(%s)", (f"{table}_embedding_idx",)).fetchone()[0]
    server.stop()
    file = File(path)
    change(file)
    path.write_bytes(file.data)
    server.start()


def test_list_that_runs_in_a_circle(server):
    """Whoever walks along it comes to an end, also who opens it again after a split of it was broken off."""
    def circles(file):
        for page in file.pages(POSTING):
            file.put("<I", page, PAGE - 32, page)

    damage_index(server, "circle", "WITH (lists = 3)", circles)
    with server.connect("damage") as connection:
        connection.execute("SET statement_timeout = '30s'")
        errors = []
        for statement in ("SELECT count(*) FROM (SELECT FROM circle ORDER BY embedding <-> (SELECT embedding FROM circle LIMIT 1)) s",
                          *["INSERT INTO circle SELECT id + 1000, label, embedding FROM circle WHERE id = 0 OFFSET 0"] * 2,
                          "VACUUM circle", "DELETE FROM circle WHERE id % 2 = 1", "VACUUM circle",
                          *[f"INSERT INTO circle SELECT id + {i}000, label, embedding FROM circle WHERE id < 600" for i in (2, 3, 4)],
                          "VACUUM circle", "SELECT ivflsh_check('circle_embedding_idx')"):
            try:
                connection.execute("SET enable_seqscan = off")
                connection.execute(statement)
            except psycopg.Error as error:
                errors.append(error.sqlstate)
        assert errors and set(errors) <= {"XX002", "23505"}, errors


def test_page_of_no_list(server):
    """What a crash left of a list is no part of the index, whatever rows it names; VACUUM frees it."""
    def orphans(file):
        for _ in range(40):
            page = file.pages(POSTING)[0]
            file.data += file.data[page * PAGE:(page + 1) * PAGE]
            added = len(file.data) // PAGE - 1
            file.put("<I", added, PAGE - 28, 5000)
            for block in range(32, 32 + BLOCK * file.special(added)[4], BLOCK):
                for slot in range(32):
                    file.put(">IH", added, block + 264 + 6 * slot, 0x0E80ACFF, 1)

    damage_index(server, "orphan", "WITH (lists = 9)", orphans)
    with server.connect("damage") as connection:
        before = check(connection, "orphan_embedding_idx")
        assert before["leaked_pages"] == 40
        for i in range(1, 5):
            connection.execute(f"INSERT INTO orphan SELECT id + {i}000, label, embedding FROM orphan WHERE id < 900")
        assert connection.execute("SELECT ivflsh_stats('orphan_embedding_idx')").fetchone()[0]["splits"] > 9
        connection.execute("VACUUM orphan")
        report = check(connection, "orphan_embedding_idx")
        assert (report["leaked_pages"], report["rows"]) == (0, 4500) and report["pages"] > before["pages"] - 40
