"""psycopg 3 with the `pgvector` package: register_vector, numpy there and back, binary COPY."""

import asyncio

import numpy as np
import psycopg
import pytest
from pgvector import Bit, HalfVector, SparseVector, Vector
from pgvector.psycopg import register_vector, register_vector_async

from harness.search import by_index, clustered

FORMATS = pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
VALUES = [
    ("vector(3)", Vector([1.5, -2, 3e-5])),
    ("vector", Vector(np.arange(1, 2001, dtype=np.float32) / 7)),
    ("halfvec(3)", HalfVector([1.5, -2, 0.25])),
    ("halfvec", HalfVector(np.arange(1, 4001, dtype=np.float16))),
    ("sparsevec(6)", SparseVector({0: 1.5, 5: -2}, 6)),
    ("sparsevec", SparseVector({}, 16000)),
    ("bit(9)", Bit("101010101")),
]


def loaded(value, type_name):
    """`register_vector` registers no loader for bit: it comes as psycopg gives it."""
    if type_name.startswith("bit") and value is not None:
        return Bit(value) if isinstance(value, str) else Bit.from_binary(value)
    return value


@FORMATS
@pytest.mark.parametrize("type_name, value", VALUES, ids=[name for name, _ in VALUES])
def test_there_and_back(db, type_name, value, binary):
    db.execute(f"CREATE TABLE items (id serial, embedding {type_name})")
    placeholder = "%b" if binary else "%t"
    db.execute(f"INSERT INTO items (embedding) VALUES ({placeholder}), (NULL)", (value,))
    rows = db.cursor(binary=binary).execute("SELECT embedding FROM items ORDER BY id").fetchall()
    assert [loaded(row[0], type_name) for row in rows] == [value, None]
    [[same]] = db.execute(f"SELECT embedding = {placeholder} FROM items WHERE embedding IS NOT NULL", (value,)).fetchall()
    assert same


@FORMATS
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64])
def test_numpy(db, dtype, binary):
    array = np.array([1, 2, 3], dtype)
    db.execute("CREATE TABLE items (embedding vector(3))")
    db.execute(f"INSERT INTO items VALUES ({'%b' if binary else '%t'})", (array,))
    [[value]] = db.cursor(binary=binary).execute("SELECT embedding FROM items").fetchall()
    np.testing.assert_array_equal(value.to_numpy(), array)
    assert db.execute("SELECT embedding <-> %b FROM items", (array * 2,)).fetchone()[0] == pytest.approx(14 ** 0.5)


@pytest.mark.parametrize("type_name, values", [
    ("vector", [Vector(row) for row in clustered(500, 20)]),
    ("halfvec", [HalfVector(row) for row in clustered(500, 20)]),
    ("sparsevec", [SparseVector(np.where(row > 0.5, row, 0)) for row in clustered(500, 20)]),
    ("bit", [Bit((row > 0).tolist()) for row in clustered(500, 20)]),
], ids=["vector", "halfvec", "sparsevec", "bit"])
def test_binary_copy(db, type_name, values):
    db.execute(f"CREATE TABLE items (id int, embedding {type_name}(20))")
    with db.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", type_name])
        for i, value in enumerate(values):
            copy.write_row((i, value))
    rows = db.cursor(binary=True).execute("SELECT embedding FROM items ORDER BY id").fetchall()
    assert [loaded(row[0], type_name) for row in rows] == values
    with db.cursor().copy("COPY items TO STDOUT (FORMAT BINARY)") as copy:
        copy.set_types(["int4", type_name])
        assert [(i, loaded(value, type_name)) for i, value in copy.rows()] == list(enumerate(values))


def test_text_copy(db):
    db.execute("CREATE TABLE items (id int, embedding vector(3))")
    with db.cursor().copy("COPY items FROM STDIN") as copy:
        copy.write_row((1, Vector([1, 2, 3])))
        copy.write_row((2, None))
    with db.cursor().copy("COPY items TO STDOUT") as copy:
        assert b"".join(copy) == b"1\t[1,2,3]\n2\t\\N\n"


def test_wrong_bytes(db):
    """A vector whose binary form is cut short, too long or inconsistent is refused, and the connection survives."""
    db.execute("CREATE TABLE items (embedding vector)")
    good = Vector([1, 2, 3]).to_binary()
    for bad in (b"", good[:3], good[:-1], good + b"\0", b"\0\0" + good[2:], b"\0\3\0\1" + good[4:], b"\xff\xff" + good[2:],
                good[:4] + b"\x7f\xc0\0\0" + good[8:]):
        with pytest.raises(psycopg.Error) as caught:
            with db.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\0\1" + len(bad).to_bytes(4, "big") + bad + b"\xff\xff")
        assert caught.value.sqlstate and not caught.value.sqlstate.startswith("XX"), caught.value
    assert db.execute("SELECT count(*) FROM items").fetchone() == (0,)


@FORMATS
def test_aggregates_and_functions(db, binary):
    db.execute("CREATE TABLE items (embedding vector(3))")
    db.execute("INSERT INTO items VALUES ('[1,2,3]'), ('[4,5,6]'), (NULL)")
    [row] = db.cursor(binary=binary).execute("""SELECT avg(embedding), sum(embedding), max(vector_dims(embedding)),
        max(l2_norm(embedding::halfvec)), array_agg(embedding) FROM items""").fetchall()
    assert row[:3] == (Vector([2.5, 3.5, 4.5]), Vector([5, 7, 9]), 3)
    assert row[3] == pytest.approx(77 ** 0.5)


def test_pipeline_and_executemany(db):
    db.execute("CREATE TABLE items (id int, embedding vector(4))")
    db.cursor().executemany("INSERT INTO items VALUES (%s, %b)", list(enumerate(clustered(100, 4))))
    with db.pipeline():
        cursors = [db.execute("SELECT id FROM items ORDER BY embedding <-> %b LIMIT 1", (row,)) for row in clustered(100, 4)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(100))


def test_search_with_a_server_side_cursor(db):
    db.execute("CREATE TABLE items (id int, embedding vector(4))")
    db.cursor().executemany("INSERT INTO items VALUES (%s, %b)", list(enumerate(clustered(500, 4))))
    db.execute("CREATE INDEX ON items USING ivflsh (embedding vector_cosine_ops)")
    with by_index(db), db.transaction(), db.cursor("near") as cursor:
        cursor.execute("SELECT embedding <=> %(q)b FROM items ORDER BY embedding <=> %(q)b", {"q": clustered(1, 4)[0]})
        cursor.itersize = 20
        distances = [row[0] for row in cursor.fetchmany(200)]
    assert len(distances) == 200 and distances == sorted(distances)


def test_asynchronous(database):
    async def run():
        connection = await psycopg.AsyncConnection.connect(database.cluster.url(database.name), autocommit=True)
        async with connection:
            await register_vector_async(connection)
            await connection.execute("CREATE TABLE items (embedding vector(3))")
            await connection.execute("INSERT INTO items VALUES (%s)", (np.array([1, 2, 3]),))
            cursor = await connection.execute("SELECT * FROM items")
            return await cursor.fetchone()

    assert asyncio.run(run()) == (Vector([1, 2, 3]),)


def test_without_registration(cluster, database):
    """A client that knows nothing of vectors speaks text, or arrays."""
    with cluster.connect(database.name) as connection:
        connection.execute("CREATE TABLE items (id int, embedding vector(3))")
        connection.execute("INSERT INTO items VALUES (1, '[1,2,3]'), (2, %s::real[]), (3, %s::text::vector)",
                           ([4.0, 5.0, 6.0], "[7,8,9]"))
        assert connection.execute("SELECT embedding FROM items ORDER BY id").fetchall() == [
            ("[1,2,3]",), ("[4,5,6]",), ("[7,8,9]",)]
        assert connection.execute("SELECT embedding::real[] FROM items WHERE id = 2").fetchone() == ([4, 5, 6],)
        assert connection.execute("SELECT id FROM items ORDER BY embedding <-> %s LIMIT 1", ("[7,8,8]",)).fetchone() == (3,)


def test_register_vector_finds_the_types(db):
    register_vector(db)
    assert {row[0] for row in db.execute("SELECT typname FROM pg_type WHERE typname IN ('vector', 'halfvec', 'sparsevec')")} \
        == {"vector", "halfvec", "sparsevec"}
