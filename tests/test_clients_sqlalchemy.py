"""SQLAlchemy with the column types of the `pgvector` package."""

import numpy as np
import pytest
from pgvector import SparseVector
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, Vector, avg, sum
from sqlalchemy import Index, Integer, create_engine, func, inspect, select, text
from sqlalchemy.orm import Session, declarative_base, mapped_column

from harness.search import clustered

Base = declarative_base()


class Item(Base):
    __tablename__ = "items"
    id = mapped_column(Integer, primary_key=True)
    embedding = mapped_column(Vector(3))
    half = mapped_column(HALFVEC(3))
    sparse = mapped_column(SPARSEVEC(3))
    bits = mapped_column(BIT(3))


INDEX = Index("items_by_embedding", Item.embedding, postgresql_using="ivflsh",
              postgresql_ops={"embedding": "vector_l2_ops"}, postgresql_with={"lists": 4})
ROWS = [([1, 1, 1], "101"), ([2, 2, 2], "111"), ([1, 1, 2], "000")]


@pytest.fixture
def engine(cluster, database):
    engine = create_engine(cluster.url(database.name, "postgresql+psycopg"))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine):
    with Session(engine) as session:
        for i, (row, bits) in enumerate(ROWS, 1):
            session.add(Item(id=i, embedding=row, half=row, sparse=SparseVector(row), bits=bits))
        session.commit()
        yield session


def test_values_come_back(session):
    item = session.get(Item, 3)
    np.testing.assert_array_equal(item.embedding, np.array([1, 1, 2], np.float32))
    assert item.half == [1, 1, 2]
    assert item.sparse == SparseVector([1, 1, 2])
    assert item.bits == "000"
    session.add(Item(id=4))
    session.commit()
    assert session.get(Item, 4).embedding is None


@pytest.mark.parametrize("column", ["embedding", "half", "sparse"])
@pytest.mark.parametrize("distance, expected", [
    ("l2_distance", [1, 3, 2]), ("l1_distance", [1, 3, 2]),
    ("max_inner_product", [2, 3, 1]), ("cosine_distance", [1, 2, 3]),
])
def test_order_by_distance(session, column, distance, expected):
    query = SparseVector([1, 1, 1]) if column == "sparse" else [1, 1, 1]
    order = getattr(getattr(Item, column), distance)(query)
    assert session.scalars(select(Item.id).order_by(order, Item.id)).all() == expected


@pytest.mark.parametrize("distance, expected", [("hamming_distance", [2, 1, 3]), ("jaccard_distance", [2, 1, 3])])
def test_order_by_distance_of_bits(session, distance, expected):
    assert session.scalars(select(Item.id).order_by(getattr(Item.bits, distance)("111"))).all() == expected


def test_distance_selected_and_filtered(session):
    assert session.scalars(select(Item.embedding.l2_distance([1, 1, 1])).order_by(Item.id)).all() == pytest.approx([0, 3 ** 0.5, 1])
    assert session.scalars(select(Item.id).filter(Item.embedding.l2_distance([1, 1, 1]) < 1)).all() == [1]


def test_aggregates(session):
    np.testing.assert_allclose(session.scalars(select(avg(Item.embedding))).first(), [4 / 3, 4 / 3, 5 / 3], rtol=1e-6)
    np.testing.assert_array_equal(session.scalars(select(sum(Item.embedding))).first(), [4, 4, 5])
    assert session.scalars(select(func.vector_dims(Item.embedding))).all() == [3, 3, 3]


def test_wrong_dimensions(session):
    session.add(Item(id=9, embedding=[1, 2]))
    with pytest.raises(Exception, match="expected 3 dimensions, not 2"):
        session.commit()


def test_index_is_made_and_used(engine, session):
    [index] = [index for index in inspect(engine).get_indexes("items") if index["name"] == "items_by_embedding"]
    assert index["dialect_options"]["postgresql_using"] == "ivflsh"
    rows = clustered(2000, 3)
    session.add_all(Item(id=i, embedding=row) for i, row in enumerate(rows, 10))
    session.commit()
    session.execute(text("SET LOCAL enable_seqscan = off"))
    plan = session.execute(text("EXPLAIN SELECT id FROM items ORDER BY embedding <-> '[1,2,3]' LIMIT 5")).scalars().all()
    assert any("Index Scan using items_by_embedding" in line for line in plan)
    statement = select(Item.id).order_by(Item.embedding.l2_distance(rows[0])).limit(5)
    assert session.scalars(statement).first() == 10


def test_index_made_later_and_dropped(engine, session):
    index = Index("items_by_half", Item.half, postgresql_using="ivflsh", postgresql_ops={"half": "halfvec_cosine_ops"})
    index.create(engine)
    assert session.scalars(select(Item.id).order_by(Item.half.cosine_distance([1, 1, 2])).limit(1)).all() == [3]
    session.commit()
    index.drop(engine)
    Item.__table__.indexes.discard(index)


def test_upsert_and_bulk(session):
    from sqlalchemy.dialects.postgresql import insert
    rows = [{"id": i, "embedding": row} for i, row in enumerate(clustered(300, 3), 1)]
    statement = insert(Item).values(rows)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"embedding": statement.excluded.embedding}))
    session.commit()
    assert session.scalars(select(func.count()).select_from(Item)).one() == 300
    assert session.scalars(select(Item.id).order_by(Item.embedding.l2_distance(rows[250]["embedding"])).limit(1)).one() == 251
