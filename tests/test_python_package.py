"""clients/python beside a server: on vector_ext and on the extension `vector` in pgvector's place."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row
from vector_ext import LoadError, RecallPoint, export, export_arrow, export_batches, import_index, load, plot_recall, recall, search

from harness.search import clustered

rng = np.random.default_rng(7)
VECTORS = rng.standard_normal((2500, 8)).astype(np.float32)
PACKAGE = Path(__file__).parents[1] / "clients" / "python" / "src"


@pytest.fixture(params=["database", "drop_in_database"])
def place(request):
    """A database with the types, from either extension."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def items(db):
    """A connection, and a table in its database."""
    db.execute("CREATE TABLE items (id bigint, embedding vector(8))")
    return db


def count(connection, table="items"):
    return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_types(place):
    connection = place.connect()
    bits = VECTORS[:, :5] > 0
    texts = ["".join("01"[int(bit)] for bit in row) for row in bits]
    for kind, vectors in (("vector(8)", VECTORS), ("halfvec(8)", VECTORS.astype(np.float16)), ("sparsevec(8)", np.where(VECTORS > 0, VECTORS, 0)),
                          ("bit(5)", bits), ("bit varying", bits)):
        connection.execute(f"DROP TABLE IF EXISTS items; CREATE TABLE items (id int, embedding {kind})")
        assert load(connection, "items", vectors, {"id": np.arange(len(vectors))}) == 2500
        if "bit" in kind:
            assert connection.execute("SELECT array_agg(embedding::text ORDER BY id) FROM items").fetchone()[0] == texts
        else:
            got = connection.execute("SELECT embedding::vector FROM items ORDER BY id").fetchall()
            np.testing.assert_array_equal(np.array([row[0].to_numpy() for row in got]), vectors.astype(np.float32))


def test_columns_of_all_kinds(db):
    import datetime
    import uuid
    db.execute("""CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN small AS int CHECK (VALUE < 10); CREATE DOMAIN eight AS vector(8);
                  CREATE SCHEMA other; CREATE TABLE other.items ("Odd name" small, embedding eight, price numeric, tags text[], at timestamptz,
                  day date, key uuid, word varchar(10), flag bool, share real, mood mood, kept int DEFAULT 5)""")
    now = datetime.datetime(2026, 12, 1, 1, 2, 3, 456789, datetime.timezone.utc)
    columns = {"Odd name": [1, None, 3], "price": [1.5, 2, None], "tags": [["a", "é"], [], None], "at": [now, None, now],
               "day": [now.date(), now.date(), None], "key": [uuid.UUID(int=i) for i in range(3)], "word": ["x", None, "z"],
               "flag": np.array([True, False, True]), "share": [0.5, 1.5, 2.5], "mood": ["good", "bad", None]}
    assert load(db, "other.items", VECTORS[:3], columns) == 3
    with pytest.raises(LoadError, match="row 1: value for domain small violates check"):
        load(db, "other.items", VECTORS[:2], {"Odd name": [9, 10]})
    with pytest.raises(LoadError, match="has 8 dimensions, the vectors have 7"):
        load(db, "other.items", VECTORS[:2, :7])
    names = ", ".join(f'"{name}"' for name in columns)
    rows = db.execute(f"SELECT {names}, kept FROM other.items ORDER BY key").fetchall()
    assert [list(row) for row in rows] == [[values[i] for values in columns.values()] + [5] for i in range(3)]


def test_several_vectors_in_a_row(items):
    items.execute("ALTER TABLE items ADD half halfvec(3), ADD flags bit(8)")
    others = {"half": VECTORS[:, :3], "flags": VECTORS > 0}
    assert load(items, "items", ((VECTORS[i:i + 600], {"id": np.arange(i, min(i + 600, 2500))} | {n: v[i:i + 600] for n, v in others.items()})
                                 for i in range(0, 2500, 600))) == 2500
    ids, half = export(items, "items", column="half")
    np.testing.assert_array_equal(half, VECTORS[ids, :3].astype(np.float16))
    texts = ["".join("01"[bit] for bit in row) for row in (VECTORS > 0).astype(int)]
    assert items.execute("SELECT array_agg(flags::text ORDER BY id) FROM items").fetchone()[0] == texts
    with pytest.raises(LoadError, match="column half has 3 dimensions, the vectors have 8"):
        load(items, "items", VECTORS, {"half": VECTORS})


def test_tables(items):
    """The vector and other columns of a table of Arrow and of a data frame whose labels are not its positions."""
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    arrow = pa.table({"v": VECTORS.tolist(), "id": np.arange(2500)})
    assert load(items, "items", arrow, ["id"], source="v") == 2500
    frame = pd.DataFrame({"id": np.arange(2500, 5000), "embedding": list(VECTORS)}, index=np.arange(2500)[::-1])
    assert load(items, "items", frame, ["id"]) == 2500
    ids, vectors = export(items, "items")
    order = np.argsort(ids)
    np.testing.assert_array_equal(vectors[order], np.concatenate([VECTORS, VECTORS]))
    with pytest.raises(LoadError, match="there is no column nothing among id, embedding"):
        load(items, "items", frame, ["nothing"])


def test_batches(items):
    told = []
    batches = ((VECTORS[i:i + 700], {"id": np.arange(i, min(i + 700, 2500))}) for i in range(0, 2500, 700))
    assert load(items, "items", batches, progress=told.append) == 2500 == sum(told)
    ids, vectors = export(items, "items")
    np.testing.assert_array_equal(vectors[np.argsort(ids)], VECTORS)
    assert load(items, "items", iter([])) == 0
    assert load(items, "items", (batch for batch in [VECTORS[:3], VECTORS[3:4]])) == 4
    assert load(items, "items", [(VECTORS[:2], {"id": [1, 2]})]) == 2, "a list of batches"


@pytest.mark.parametrize("autocommit", [True, False])
def test_all_or_nothing(database, items, autocommit):
    wrong = VECTORS.copy()
    wrong[2222, 3] = np.nan
    connection = database.connect(autocommit=autocommit, row_factory=dict_row)
    with pytest.raises(LoadError, match="^row 2222: nan at position 3 is not a finite number$"):
        load(connection, "items", wrong)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert load(connection, "items", VECTORS) == 2500
    assert count(items) == 2500, "committed, and nothing of the first"
    with connection.transaction():
        connection.execute("INSERT INTO items VALUES (1, NULL)")
        with pytest.raises(LoadError):
            load(connection, "items", wrong)
        load(connection, "items", VECTORS[:5])
    assert count(items) == 2506, "the caller's transaction goes on"


def test_rows_that_the_server_refuses(items):
    items.execute("ALTER TABLE items ADD PRIMARY KEY (id)")
    ids = np.arange(2500)
    ids[1700] = 3
    with pytest.raises(LoadError, match=r"^row 1700: duplicate key .*\(id\)=\(3\)") as caught:
        load(items, "items", VECTORS, {"id": ids})
    assert caught.value.sqlstate == "23505"
    with pytest.raises(LoadError, match=r"^row 2: null value in column"):
        load(items, "items", VECTORS[:4], {"id": [1, 2, None, 4]})
    assert count(items) == 0
    for call, reason in (
            (lambda: load(items, "items", VECTORS, {"id": ids[:-1]}), "column id has 2499 values for 2500 vectors"),
            (lambda: load(items, "items", VECTORS, {"nothing": ids}), "table items has no column nothing"),
            (lambda: load(items, "items", VECTORS, column="id"), "column id of items is a int8"),
            (lambda: load(items, "items", VECTORS, ["id"]), "names of columns are for tables"),
            (lambda: load(items, "items", (v for v in [VECTORS]), {"id": ids}), "batches have their columns with them")):
        with pytest.raises(LoadError, match=reason):
            call()
    with pytest.raises(psycopg.errors.UndefinedTable):
        load(items, 'no"table', VECTORS)
    assert count(items) == 0


def test_resumed(database, items):
    def batches(until=2500):
        for i in range(0, 2500, 300):
            if i >= until:
                raise KeyboardInterrupt
            yield VECTORS[i:i + 300], {"id": np.arange(i, min(i + 300, 2500))}

    with pytest.raises(KeyboardInterrupt):
        load(items, "items", batches(1000), resume="mine", commit_every=500)
    assert count(items) == 1000
    with pytest.raises(LoadError, match="is one into items.embedding"):
        load(items, "others", VECTORS, resume="mine")
    with pytest.raises(LoadError, match="1000 rows are loaded already, but there are only 900"):
        load(items, "items", VECTORS[:900], resume="mine")
    told = []
    assert load(items, "items", batches(), resume="mine", commit_every=700, progress=told.append) == 2500 == sum(told)
    assert load(items, "items", batches(), resume="mine") == 2500, "finished: nothing to do"
    ids, vectors = export(items, "items")
    assert len(ids) == 2500
    np.testing.assert_array_equal(vectors[np.argsort(ids)], VECTORS)
    with database.connect(autocommit=False) as inside:
        inside.execute("SELECT 1")
        with pytest.raises(LoadError, match="is in no transaction"):
            load(inside, "items", VECTORS, resume="other")


LOADER = textwrap.dedent("""
    import sys, time, numpy as np, psycopg
    from vector_ext import load
    rows = np.random.default_rng(7).standard_normal((2500, 8)).astype(np.float32)
    def batches(slow):
        for i in range(0, 2500, 50):
            yield rows[i:i + 50], {"id": np.arange(i, i + 50)}
            if slow and i == 1500:
                print("in the middle", flush=True)
                time.sleep(600)
    with psycopg.connect(sys.argv[1], autocommit=True) as connection:
        load(connection, "items", batches(sys.argv[2] == "slow"), resume=sys.argv[3] or None, commit_every=400)
""")


@pytest.mark.parametrize("resume, left", [("", 0), ("killed", 1200)])
def test_killed(database, items, resume, left):
    """SIGKILL to the process that loads: nothing of its transaction is there, and a load with a name goes on."""
    def run(speed):
        return subprocess.Popen([sys.executable, "-c", LOADER, database.cluster.url(database.name), speed, resume], stdout=subprocess.PIPE,
                                env=os.environ | {"PYTHONPATH": str(PACKAGE)})

    killed = run("slow")
    assert killed.stdout.readline() == b"in the middle\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    # Its backend has to have seen that nobody is there.
    give_up = time.monotonic() + 60
    while items.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").fetchone()[0] > 1:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert count(items) == left
    again = run("fast")
    again.communicate()
    assert again.returncode == 0
    ids, vectors = export(items, "items")
    assert len(ids) == 2500
    np.testing.assert_array_equal(vectors[np.argsort(ids)], VECTORS)


@pytest.fixture
def searched(place):
    connection = place.connect()
    vectors = clustered(4000, 8)
    connection.execute("CREATE TABLE items (id int, tenant int, embedding vector(8))")
    load(connection, "items", vectors, {"id": np.arange(4000), "tenant": np.arange(4000) % 4})
    connection.execute("CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops); ANALYZE items")
    return connection, np.asarray(vectors, np.float32)


def test_search(searched):
    connection, vectors = searched
    query = vectors[17] + 0.01
    far = np.sqrt(((vectors.astype(float) - query) ** 2).sum(axis=1))
    hits = search(connection, "items", query, 5, columns=["id", "tenant"], exact=True)
    assert [hit.row["id"] for hit in hits] == np.argsort(far, kind="stable")[:5].tolist()
    assert [hit.distance for hit in hits] == pytest.approx(np.sort(far)[:5], rel=1e-5)
    hits = search(connection, "items", query, 5, columns=["id", "tenant"], where="tenant = %(tenant)s", parameters={"tenant": 2}, exact=True)
    assert [hit.row["id"] for hit in hits] == [i for i in np.argsort(far, kind="stable").tolist() if i % 4 == 2][:5]
    cosine = 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    assert [hit.distance for hit in search(connection, "items", query, 5, metric="cosine")] == pytest.approx(np.sort(cosine)[:5], abs=1e-6)
    assert search(connection, "items", query, 1, metric="ip")[0].distance == pytest.approx(-(vectors @ query).max(), rel=1e-5)
    with pytest.raises(ValueError, match="metric 'far' is none of"):
        search(connection, "items", query, metric="far")
    with pytest.raises(ValueError, match="array of 2 dimensions"):
        search(connection, "items", vectors[:2])


def test_settings_hold_for_one_search(searched):
    connection, vectors = searched
    shown = lambda: connection.execute("SELECT current_setting('ivflsh.target_recall')").fetchone()[0]
    search(connection, "items", vectors[0])
    before = shown()
    with connection.transaction():
        search(connection, "items", vectors[0], settings={"ivflsh.target_recall": "0.5"})
        assert shown() == before
    assert shown() == before
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        search(connection, "items", vectors[0], settings={"ivflsh.target_recall": "7"})
    assert shown() == before


def test_bits_are_searched(place):
    connection = place.connect()
    bits = VECTORS[:200] > 0
    connection.execute("CREATE TABLE items (id int, embedding bit(8))")
    load(connection, "items", bits, {"id": np.arange(200)})
    different = (bits != bits[3]).sum(axis=1)
    assert [hit.distance for hit in search(connection, "items", bits[3], 20, metric="hamming")] == np.sort(different)[:20].tolist()
    assert search(connection, "items", bits[3], 1, metric="jaccard")[0].distance == 0


def test_recall(searched):
    connection, vectors = searched
    points = recall(connection, "items", vectors[:30] + 0.01, 10, settings=[{"ivflsh.probes": "1"}, {"ivflsh.target_recall": "0.999"}])
    assert 0 < points[0].recall <= points[1].recall <= 1 and points[1].recall > 0.9
    assert all(0 < point.milliseconds <= point.milliseconds_95 for point in points)
    connection.execute("DROP INDEX items_embedding_idx")
    assert recall(connection, "items", vectors[:5], 10, where="tenant = 1")[0].recall == 1
    with pytest.raises(ValueError, match="no row matches"):
        recall(connection, "items", vectors[:5], where="tenant = 99")


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    plot_recall([RecallPoint({}, 0.9, 1.0, 2.0), RecallPoint({"ivflsh.probes": "9"}, 0.99, 3.0, 4.0)], tmp_path / "recall.png")
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("autocommit", [True, False])
def test_export(database, items, autocommit):
    items.execute("ALTER TABLE items ADD half halfvec")
    load(items, "items", VECTORS, {"id": np.arange(2500)})
    items.execute("INSERT INTO items VALUES (9999, NULL, NULL); UPDATE items SET half = embedding WHERE id < 3")
    connection = database.connect(autocommit=autocommit)
    ids, vectors = export(connection, "items", where="id >= 100")
    assert sorted(ids) == list(range(100, 2500)), "without the row that has no vector"
    np.testing.assert_array_equal(vectors[np.argsort(ids)], VECTORS[100:])
    assert vectors.dtype == np.float32 and vectors.dtype.isnative
    ids, half = export(connection, "items", column="half")
    np.testing.assert_array_equal(half, VECTORS[ids].astype(np.float16))
    assert [len(array) for array in export(connection, "items", where="false")] == [0, 0]
    assert sum(len(ids) for ids, _ in export_batches(connection, "items")) == 2500
    batches = export_batches(connection, "items")
    next(batches)
    batches.close()
    assert connection.execute("SELECT 1").fetchone() == (1,), "left in the middle, the connection can be used"
    items.execute("INSERT INTO items VALUES (1, NULL, '[1,2]')")
    with pytest.raises(ValueError, match="different dimensions"):
        export(connection, "items", column="half")
    connection.rollback()
    with pytest.raises(ValueError, match="only vector and halfvec"):
        items.execute("ALTER TABLE items ADD sparse sparsevec")
        export(connection, "items", column="sparse")


def test_export_arrow(items):
    pytest.importorskip("pyarrow")
    load(items, "items", VECTORS, {"id": np.arange(2500)})
    table = export_arrow(items, "items")
    assert table.column_names == ["id", "embedding"]
    items.execute("TRUNCATE items")
    assert load(items, "items", table, ["id"]) == 2500, "and back"
    ids, vectors = export(items, "items")
    np.testing.assert_array_equal(vectors[np.argsort(ids)], VECTORS)


def write_npy(path):
    np.save(path, VECTORS)


def write_fvecs(path):
    np.concatenate([np.full((2500, 1), 8, "<i4").view("<f4"), VECTORS], axis=1).tofile(path)


def write_hdf5(path):
    with pytest.importorskip("h5py").File(path, "w") as file:
        file["train"], file["test"] = VECTORS, VECTORS[:3]


def faiss_writer(factory, ids=None):
    def write(path):
        faiss = pytest.importorskip("faiss")
        index = faiss.index_factory(8, factory)
        index.train(VECTORS)
        index.add(VECTORS) if ids is None else index.add_with_ids(VECTORS, ids)
        faiss.write_index(index, str(path))

    return write


def write_hnswlib(path):
    index = pytest.importorskip("hnswlib").Index(space="l2", dim=8)
    index.init_index(max_elements=2500, M=8)
    index.add_items(VECTORS, np.arange(2500) + 7)
    index.save_index(str(path))


def write_nmslib(path):
    index = pytest.importorskip("nmslib").init(method="hnsw", space="cosinesimil")
    index.addDataPointBatch(VECTORS, THREES)
    index.createIndex({"M": 8})
    index.saveIndex(str(path), save_data=True)


def write_annoy(path):
    index = pytest.importorskip("annoy").AnnoyIndex(8, "angular")
    for i, row in enumerate(VECTORS):
        index.add_item(i, row)
    index.build(2)
    index.save(str(path))


PLAIN, THREES = np.arange(2500), np.arange(2500) * 3


@pytest.mark.parametrize("name, write, ids, options", [
    ("a.npy", write_npy, PLAIN, {}), ("a.fvecs", write_fvecs, PLAIN, {}), ("a.hdf5", write_hdf5, PLAIN, {}),
    ("flat.faiss", faiss_writer("Flat"), PLAIN, {}), ("map.faiss", faiss_writer("IDMap,Flat", THREES), THREES, {}),
    ("ivf.faiss", faiss_writer("IVF8,Flat", THREES), THREES, {}), ("hnsw.faiss", faiss_writer("HNSW8"), PLAIN, {}),
    ("index.bin", write_hnswlib, PLAIN + 7, {"format": "hnswlib", "dimensions": 8}),
    ("index.nms", write_nmslib, THREES, {"format": "nmslib", "space": "cosinesimil"}),
    ("index.ann", write_annoy, PLAIN, {"format": "annoy", "dimensions": 8})])
def test_import(db, tmp_path, name, write, ids, options):
    write(tmp_path / name)
    assert import_index(db, tmp_path / name, "items", create="vector", **options) == 2500
    found, vectors = export(db, "items")
    order = np.argsort(found)
    np.testing.assert_array_equal(found[order], ids)
    np.testing.assert_array_equal(vectors[order], VECTORS)
    db.execute("DROP TABLE items; CREATE TABLE items (id bigint, embedding halfvec(8))")
    assert import_index(db, tmp_path / name, "items", resume="it", **options) == 2500
    np.testing.assert_array_equal(np.sort(export(db, "items")[0]), ids)


def test_import_of_bytes_and_of_what_is_no_file_of_vectors(items, tmp_path):
    whole = rng.integers(0, 256, (90, 8)).astype(np.uint8)
    np.concatenate([np.full((90, 1), 8, "<i4").view(np.uint8), whole], axis=1).tofile(tmp_path / "a.bvecs")
    assert import_index(items, tmp_path / "a.bvecs", "items") == 90
    ids, vectors = export(items, "items")
    np.testing.assert_array_equal(vectors[np.argsort(ids)], whole)
    for content, reason in ((bytes(8), "begins with 0 dimensions"), (b"\3", "begins with 0 dimensions"), (b"\2\0\0\0abc", "no whole number"),
                            (b"\1\0\0\0aaaa\2\0\0\0aaaa", "vectors of different dimensions"), (b"", "has no vectors")):
        (tmp_path / "b.fvecs").write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            import_index(items, tmp_path / "b.fvecs", "others", create="vector")
    with pytest.raises(ValueError, match="format 'csv' is none of"):
        import_index(items, tmp_path / "a.csv", "items")
    for content, reason in ((b"a" * 40, "no vectors of float32"), (b"\2" + bytes(7) + b"\x14" + bytes(50), "no vectors of float32")):
        (tmp_path / "b.dat").write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            import_index(items, tmp_path / "b.dat", "others", format="nmslib", create="vector")
    (tmp_path / "a.nms").write_bytes(b"without its vectors")
    with pytest.raises(FileNotFoundError, match="save_data=True"):
        import_index(items, tmp_path / "a.nms", "items", format="nmslib")
    with pytest.raises(FileNotFoundError):
        import_index(items, tmp_path / "nothing.npy", "items")
    assert items.execute("SELECT to_regclass('others')").fetchone() == (None,)


def test_readme(database):
    """Its example runs as it is written."""
    text = (PACKAGE.parent / "README.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE), "PGHOST": str(database.cluster.folder), "PGUSER": "postgres", "PGDATABASE": database.name}
    done = subprocess.run([sys.executable, "-c", example], env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.0 5\n") and "RecallPoint" in done.stdout
