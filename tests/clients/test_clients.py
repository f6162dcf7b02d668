"""Client libraries in their own idioms, unchanged, on pgvector itself and on each way in: the same results.

Run by `make test-clients`, which installs the libraries and sets PGVECTOR_CONFIG. A client is a function that is given a place and
returns what it saw; many are programs of their own, which are given it as JSON. Applications that say the names of the extension and
of the access method themselves are tried on vector_ext, too, with its names in these two places; THEIR_WORDS are those that cannot.
"""

import asyncio
import os

import numpy as np
import pytest

from clients.places import QUERY, ROWS, WAYS, Place, app, servers  # noqa: F401

pytestmark = pytest.mark.skipif(not os.environ.get("PGVECTOR_CONFIG"), reason="needs pgvector: make test-clients")

def psycopg2_client(place):
    import psycopg2
    from pgvector.psycopg2 import register_vector

    connection = psycopg2.connect(host=place.host, dbname=place.name, user="postgres")
    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE EXTENSION IF NOT EXISTS {place.extension}")
        register_vector(connection)
        cursor.execute("CREATE TABLE items (id bigserial PRIMARY KEY, embedding vector(3))")
        cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(i, np.array(v)) for i, v in ROWS])
        options = place.options(m=16, ef_construction=64)
        cursor.execute(f"CREATE INDEX ON items USING {place.hnsw} (embedding vector_cosine_ops) {options}")
        cursor.execute("SET LOCAL hnsw.ef_search = 200")
        cursor.execute("SELECT id, embedding FROM items ORDER BY embedding <=> %s LIMIT 5", (np.array(QUERY),))
        found = [(i, v.to_list()) for i, v in cursor.fetchall()]
    connection.close()
    return found


def psycopg_client(place):
    import psycopg
    from pgvector.psycopg import register_vector

    with psycopg.connect(host=place.host, dbname=place.name, user="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE EXTENSION IF NOT EXISTS {place.extension}")
        register_vector(connection)
        connection.execute("CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(3), half halfvec(3))")
        with connection.cursor().copy("COPY items (id, embedding) FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "vector"])
            for i, v in ROWS:
                copy.write_row([i, np.array(v, np.float32)])
        connection.execute("UPDATE items SET half = embedding")
        connection.execute(f"CREATE INDEX ON items USING {place.ivfflat} (embedding vector_l2_ops) WITH (lists = 4)")
        connection.execute(f"CREATE INDEX ON items USING {place.hnsw} (half halfvec_l2_ops)")
        connection.execute("SET ivfflat.probes = 4")
        rows = connection.execute("SELECT id FROM items ORDER BY embedding <-> %s LIMIT 5", (np.array(QUERY),)).fetchall()
        half = connection.execute("SELECT id FROM items ORDER BY half <-> %s::halfvec LIMIT 5", (np.array(QUERY),)).fetchall()
        return [rows, half, connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'items' ORDER BY 1").fetchall()]


def asyncpg_client(place):
    import asyncpg
    from pgvector.asyncpg import register_vector

    async def run():
        connection = await asyncpg.connect(host=place.host, port=5432, user="postgres", database=place.name)
        await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {place.extension}")
        await register_vector(connection)
        await connection.execute("CREATE TABLE items (id bigint, embedding vector(3))")
        await connection.copy_records_to_table("items", records=[(i, np.array(v)) for i, v in ROWS])
        await connection.execute(f"CREATE INDEX ON items USING {place.hnsw} (embedding vector_l2_ops)")
        rows = await connection.fetch("SELECT id, embedding FROM items ORDER BY embedding <-> $1 LIMIT 5", np.array(QUERY))
        await connection.close()
        return [(row["id"], row["embedding"].to_list()) for row in rows]

    return asyncio.run(run())


def pg8000_client(place):
    import pg8000.native
    from pgvector.pg8000 import register_vector

    connection = pg8000.native.Connection("postgres", database=place.name, unix_sock=f"{place.host}/.s.PGSQL.5432")
    connection.run(f"CREATE EXTENSION IF NOT EXISTS {place.extension}")
    register_vector(connection)
    connection.run("CREATE TABLE items (id bigint, embedding vector(3))")
    for i, v in ROWS:
        connection.run("INSERT INTO items VALUES (:id, :v)", id=i, v=np.array(v))
    connection.run(f"CREATE INDEX ON items USING {place.hnsw} (embedding vector_ip_ops)")
    rows = connection.run("SELECT id FROM items ORDER BY embedding <#> :q LIMIT 5", q=np.array(QUERY))
    connection.close()
    return rows


def sqlalchemy_client(place):
    from pgvector.sqlalchemy import Vector
    from sqlalchemy import Index, Integer, create_engine, inspect, select, text
    from sqlalchemy.orm import Session, declarative_base, mapped_column

    base = declarative_base()

    class Item(base):
        __tablename__ = "items"
        id = mapped_column(Integer, primary_key=True)
        embedding = mapped_column(Vector(3))
        __table_args__ = (Index("by_embedding", "embedding", postgresql_using=place.hnsw, postgresql_with=place.graph(m=16, ef_construction=64),
                                postgresql_ops={"embedding": "vector_l2_ops"}),)

    engine = create_engine(place.url("psycopg"))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE EXTENSION IF NOT EXISTS {place.extension}"))
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Item(id=i, embedding=v) for i, v in ROWS)
        session.commit()
        found = list(session.scalars(select(Item.id).order_by(Item.embedding.l2_distance(QUERY)).limit(5)))
        near = list(session.scalars(select(Item.id).where(Item.embedding.cosine_distance(QUERY) < 0.05).order_by(Item.id)))
    options = inspect(engine).get_indexes("items")[0]["dialect_options"]
    engine.dispose()
    return [found, near, options]


def alembic_client(place):
    """Autogenerate finds nothing to do."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from pgvector.sqlalchemy import Vector
    from sqlalchemy import Column, Index, Integer, MetaData, Table, create_engine, text

    metadata = MetaData()
    items = Table("items", metadata, Column("id", Integer, primary_key=True), Column("embedding", Vector(3)))
    Index("a", items.c.embedding, postgresql_using=place.hnsw, postgresql_with=place.graph(m=8, ef_construction=32),
          postgresql_ops={"embedding": "vector_cosine_ops"})
    Index("b", items.c.embedding, postgresql_using=place.ivfflat, postgresql_with={"lists": 3}, postgresql_ops={"embedding": "vector_ip_ops"})
    engine = create_engine(place.url("psycopg"))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE EXTENSION IF NOT EXISTS {place.extension}"))
        metadata.create_all(connection)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert differences == []
    return differences


def sqlmodel_client(place):
    from typing import Any

    from pgvector.sqlalchemy import Vector
    from sqlmodel import Field, MetaData, Session, SQLModel, create_engine, select, text

    class Base(SQLModel, registry=__import__("sqlalchemy.orm", fromlist=["registry"]).registry(metadata=MetaData())):
        pass

    class Item(Base, table=True):
        id: int | None = Field(default=None, primary_key=True)
        embedding: Any = Field(sa_type=Vector(3))

    engine = create_engine(place.url("psycopg"))
    with Session(engine) as session:
        session.exec(text(f"CREATE EXTENSION IF NOT EXISTS {place.extension}"))
        session.commit()
        Item.metadata.create_all(engine)
        session.add_all([Item(id=i, embedding=v) for i, v in ROWS])
        session.commit()
        found = list(session.exec(select(Item.id).order_by(Item.embedding.l2_distance(QUERY)).limit(5)))
    engine.dispose()
    return found


def peewee_client(place):
    import peewee
    from pgvector.peewee import VectorField

    database = peewee.PostgresqlDatabase(place.name, host=place.host, user="postgres")

    class Item(peewee.Model):
        embedding = VectorField(dimensions=3)

        class Meta:
            table_name = "items"

    database.bind([Item])
    database.connect()
    database.execute_sql(f"CREATE EXTENSION IF NOT EXISTS {place.extension}")
    Item.add_index("embedding vector_l2_ops", using=place.hnsw)
    database.create_tables([Item])
    Item.insert_many([{"embedding": np.array(v)} for _, v in ROWS]).execute()
    found = [item.id for item in Item.select().order_by(Item.embedding.l2_distance(QUERY)).limit(5)]
    database.close()
    return found



# Programs of their own: settings are global, versions exclude each other, languages differ.
django_client = app("python", "django_app.py", name="django")
FRAMEWORKS = [app("frameworks", f"{name}_app.py", name=name) for name in
              ("langchain_pgvector", "langchain_store", "llamaindex", "haystack", "mem0")]
NODE = [app("node", name, name=name) for name in
        ("pg", "postgres_js", "knex", "kysely", "drizzle", "prisma", "typeorm", "sequelize", "mikro_orm")]
RUST = [app("rust", name, name=name) for name in ("tokio_postgres", "sqlx", "diesel")]
RUBY = [app("ruby", "active_record.rb", name="active_record")]

GROUPS = {
    "python": [psycopg2_client, psycopg_client, asyncpg_client, pg8000_client, sqlalchemy_client, alembic_client, sqlmodel_client,
               peewee_client, django_client],
    "frameworks": FRAMEWORKS, "node": NODE, "rust": RUST, "ruby": RUBY,
}
# For the report: the package, where it is named otherwise, and what is tried.
PACKAGES = {"psycopg2": "psycopg2-binary", "langchain_pgvector": "langchain-postgres", "langchain_store": "langchain-postgres",
            "llamaindex": "llama-index-vector-stores-postgres", "haystack": "pgvector-haystack", "mem0": "mem0ai", "postgres_js": "postgres",
            "drizzle": "drizzle-orm", "mikro_orm": "@mikro-orm/postgresql", "tokio_postgres": "tokio-postgres", "active_record": "activerecord"}
WHAT = {
    "psycopg2": "`register_vector`, `hnsw` with options, `SET LOCAL hnsw.ef_search`",
    "psycopg": "binary COPY, `halfvec`, `ivfflat` and `hnsw`, definitions of indexes",
    "asyncpg": "`register_vector`, COPY of records",
    "pg8000": "`register_vector`, inner product",
    "sqlalchemy": "`Index(postgresql_using='hnsw', postgresql_with, postgresql_ops)`, distances in WHERE and ORDER BY",
    "alembic": "autogenerate finds nothing to do",
    "sqlmodel": "`Vector` field",
    "peewee": "`VectorField`, `add_index(using='hnsw')`",
    "django": "`VectorExtension`, `HnswIndex`, `IvfflatIndex` forwards and backwards, distance functions",
    "langchain_pgvector": "`PGVector`: filters, MMR, deletion",
    "langchain_store": "`PGVectorStore`: `HNSWIndex`, `IVFFlatIndex` with query options, reindex, filters, MMR, hybrid search",
    "llamaindex": "`PGVectorStore`: `hnsw_kwargs`, metadata filters, hybrid, `use_halfvec`, deletion",
    "haystack": "`PgvectorDocumentStore`: `hnsw`, three distances, halfvec, recreation of the index, filters, keywords",
    "mem0": "`vector_stores.pgvector` with `hnsw`: filters, update, deletion",
    "pg": "`registerTypes`, `hnsw`, `ivfflat` on halfvec",
    "postgres_js": "bulk INSERT, cosine distance",
    "knex": "`enableExtension`, `table.vector`, `table.index(…, 'hnsw')`",
    "kysely": "`createIndex().using('hnsw')`",
    "drizzle": "`drizzle-kit push` with an `hnsw` index, a second push has nothing to do, introspection",
    "prisma": "raw SQL, `Unsupported(\"vector(3)\")`, driver adapter",
    "typeorm": "column type `vector`, a second synchronisation has nothing to do",
    "sequelize": "`registerTypes`, model with an `hnsw` index, `sync({ alter: true })`",
    "mikro_orm": "`VectorType`, index expression, schema comparison",
    "tokio_postgres": "binary `Vector` and `HalfVector`, `hnsw`, `ivfflat`",
    "sqlx": "`Vector` as parameter and column",
    "diesel": "`VectorExpressionMethods`",
    "active_record": "statements of the gem neighbor (the gem itself is not to be had here): `Index Scan` for `IS NOT NULL … ORDER BY … LIMIT`",
}
# What they say themselves cannot be on vector_ext.
THEIR_WORDS = {"django": "VectorExtension and HnswIndex name pgvector's", **dict.fromkeys(
    (client.__name__.removesuffix("_client") for client in FRAMEWORKS), "names extension vector and hnsw itself")}
# They would drop an index beside theirs, or say so, or ask which one is used.
ALONE = {"alembic", "drizzle", "typeorm", "mikro_orm", "active_record"}
# It alters the column, so indexes are made anew and their counts begin at 0.
MADE_ANEW = {"sequelize"}


def name_of(client):
    return client.__name__.removesuffix("_client")


@pytest.fixture(scope="module")
def expected(servers):  # noqa: F811
    """What a client sees on pgvector itself, once."""
    seen = {}

    def outcome(client):
        if client not in seen:
            try:
                seen[client] = client(Place(servers("pgvector"), f"{name_of(client)}_theirs", "pgvector")), None
            except BaseException as error:  # a failure of the client on pgvector is not ours: the others are compared with it
                seen[client] = None, error
        return seen[client]

    return outcome


CASES = [pytest.param(group, client, way, id=f"{group}-{name_of(client)}-{way}", marks=pytest.mark.client(group, name_of(client), way))
         for group, clients in GROUPS.items() for client in clients for way in WAYS]


@pytest.mark.parametrize("group, client, way", CASES)
def test_same_as_on_pgvector(servers, expected, group, client, way):  # noqa: F811
    there, error = expected(client)
    if error:
        raise error
    if way == "pgvector":
        assert there or client is alembic_client
        return
    if way == "vector_ext" and name_of(client) in THEIR_WORDS:
        pytest.skip(THEIR_WORDS[name_of(client)])
    place = Place(servers(way), f"{name_of(client)}_{way}", way, twins=name_of(client) not in ALONE)
    here = client(place)
    assert place.comparable(here) == place.comparable(there)
    if place.twins and name_of(client) not in MADE_ANEW:
        assert place.twins_used(), "the index beside the client's was used"
