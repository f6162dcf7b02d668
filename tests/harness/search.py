"""Data, searches and their exact answers, as the index tests need them.

Tables are made by `make_table`: (id int primary key, label int, embedding), where label is id % 10.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from pgvector import HalfVector, Vector


@dataclass(frozen=True)
class Metric:
    """A distance: its operator, the suffix of its operator classes, and how NumPy computes it (in 64 bits)."""

    name: str
    operator: str

    @property
    def operators(self):
        return f"{self.name}_ops"

    def distances(self, rows, query):
        rows, query = np.asarray(rows, np.float64), np.asarray(query, np.float64)
        if self.name == "l2":
            return np.sqrt(np.square(rows - query).sum(axis=1))
        if self.name == "ip":
            return -(rows @ query)
        return 1 - (rows @ query) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))


L2, IP, COSINE = Metric("l2", "<->"), Metric("ip", "<#>"), Metric("cosine", "<=>")
METRICS = (L2, IP, COSINE)


def clustered(count, dimensions, seed=1, clusters=40, spread=0.35):
    """Vectors in Gaussian clusters, the same for the same arguments. Another seed gives others in the same clusters."""
    centres = np.random.default_rng(dimensions).normal(size=(clusters, dimensions))
    random = np.random.default_rng((seed, dimensions))
    rows = centres[random.integers(clusters, size=count)] + spread * random.normal(size=(count, dimensions))
    return rows.astype(np.float32)


def as_type(vector, type_name):
    return HalfVector(vector) if type_name == "halfvec" else Vector(vector)


def insert(connection, vectors, table="items", first_id=0, type_name="vector"):
    """Add rows by binary COPY."""
    with connection.cursor().copy(f"COPY {table} (id, label, embedding) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "int4", type_name])
        for i, vector in enumerate(vectors, first_id):
            copy.write_row((i, i % 10, None if vector is None else as_type(vector, type_name)))


def make_table(connection, vectors, table="items", type_name="vector", dimensions=None, kind=""):
    dimensions = dimensions or len(vectors[0])
    connection.execute(f"""CREATE {kind} TABLE {table} (
        id int PRIMARY KEY, label int NOT NULL, embedding {type_name}({dimensions}))""")
    insert(connection, vectors, table, type_name=type_name)
    connection.execute(f"ANALYZE {table}")


def make_index(connection, metric=L2, table="items", type_name="vector", how="", options=""):
    """Create the index and return its name."""
    connection.execute(f"""CREATE INDEX {how} {table}_embedding_idx ON {table}
                           USING ivflsh (embedding {type_name}_{metric.operators}) {options}""")
    return f"{table}_embedding_idx"


@contextmanager
def settings(connection, **values):
    """Settings for a while. In names, two underscores stand for a dot."""
    for name, value in values.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name.replace("__", "."), str(value)))
    try:
        yield
    finally:
        for name in values:
            connection.execute(f"RESET {name.replace('__', '.')}")


def by_index(connection, **more):
    """For tables so small that the planner would rightly sort them: have it take the index."""
    return settings(connection, enable_seqscan="off", enable_sort="off", **more)


def exactly(connection):
    """Have the planner not take the index."""
    return settings(connection, enable_indexscan="off", enable_seqscan="on")


def plan(connection, statement, parameters=None):
    return "\n".join(row[0] for row in connection.execute("EXPLAIN (COSTS OFF) " + statement, parameters))


def uses_index(connection, statement, parameters=None, index="items_embedding_idx"):
    """By a plain scan of the index, or by a vector scan."""
    shown = plan(connection, statement, parameters)
    return f"Index Scan using {index}" in shown or (
        "Custom Scan (vector scan)" in shown and f"Index: {index.partition(' on ')[0]}\n" in shown)


def _search(query, limit=10, metric=L2, table="items", type_name="vector", where=""):
    """A search as a statement and its parameters."""
    distance = f"embedding {metric.operator} %(q)b"
    end = "" if limit is None else f"LIMIT {limit}"
    return f"SELECT id, {distance} FROM {table} {where} ORDER BY {distance} {end}", {"q": as_type(query, type_name)}


# A LIMIT that is no limit: the scan goes on to the end of the index.
TO_THE_END = 10_000_000


def nearest(connection, query, limit=10, **how):
    """[(id, distance), ...] as SQL returns them. See `_search` for what else may be said."""
    return connection.execute(*_search(query, limit, **how)).fetchall()


def assert_in_order(rows, where=""):
    distances = [distance for _, distance in rows]
    assert distances == sorted(distances), f"{where} distances decrease: {distances}"
    assert len({id for id, _ in rows}) == len(rows), "a row came twice"


def assert_recall(connection, queries, at_least, limit=10, **how):
    """Search by index and exactly: full answers, in order, true distances, and enough of the true neighbours.

    A row no farther than the true last neighbour counts, so that ties are fair. Returns the recall.
    """
    hits = 0
    for query in queries:
        with by_index(connection):
            shown = plan(connection, *_search(query, limit, **how))
            assert "Order By: " in shown, f"not by index:\n{shown}"
            found = nearest(connection, query, limit, **how)
        with exactly(connection):
            truth = nearest(connection, query, limit, **how)
            operator = dict(nearest(connection, query, None, **(how | {"where": "WHERE id = ANY(%s)" % _array(found)})))
        assert len(found) == len(truth)
        assert_in_order(found)
        assert dict(found) == operator, "distances are not those of the operator"
        hits += sum(distance <= truth[-1][1] for _, distance in found)
    recall = hits / max(1, sum(min(limit, len(truth)) for _ in queries))
    assert recall >= at_least, f"recall@{limit} is {recall:.4f}"
    return recall


def _array(rows):
    return "'{" + ",".join(str(id) for id, _ in rows) + "}'::int[]"


def assert_holds_exactly(connection, query, table="items", metric=L2, type_name="vector", where="embedding IS NOT NULL"):
    """The index is whole and has each row of the table, each once: a scan of it that goes on to the end returns them all."""
    connection.execute("SELECT ivflsh_check(%s)", (f"{table}_embedding_idx",))
    with by_index(connection, ivflsh__iterative_scan="relaxed_order"):
        # With a LIMIT, since without one the table may be read instead. Rows that are not in the index come last.
        statement, parameters = _search(query, TO_THE_END, metric, table, type_name)
        assert uses_index(connection, statement, parameters, f"{table}_embedding_idx")
        found = [id for id, distance in connection.execute(statement, parameters) if distance is not None and distance == distance]
    with exactly(connection):
        expected = [row[0] for row in connection.execute(f"SELECT id FROM {table} WHERE {where}")]
    assert len(found) == len(set(found)), "a row came twice"
    assert set(found) == set(expected), (
        f"{len(set(expected) - set(found))} rows missing, {len(set(found) - set(expected))} too many")


def assert_alike(answers, others, share=0.95):
    """Answers to the same queries agree in at least this share of their rows: rows that only some transactions see, and
    dead ones, may change how many lists an approximate search reads."""
    common = sum(len(set(one) & set(other)) for one, other in zip(answers, others, strict=True))
    assert common >= share * sum(map(len, answers)), f"{common} rows in common"
