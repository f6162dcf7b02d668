"""What CREATE INDEX makes of the same table, under which conditions."""

import numpy as np
import pytest

from harness.search import METRICS, assert_holds_exactly, assert_recall, clustered, make_index, make_table, settings

PAGE = 8192
QUERIES = clustered(40, 48, seed=2)


def content(connection, index="items_embedding_idx"):
    """The pages of an index, without what says when they were written (LSN, checksum)."""
    connection.execute("CHECKPOINT")
    path = "SELECT pg_read_binary_file(pg_relation_filepath(%s))"
    data = np.frombuffer(connection.execute(path, (index,)).fetchone()[0], np.uint8).reshape(-1, PAGE)
    return data[:, 10:].tobytes()


@pytest.mark.parametrize("bits", [0, 8])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_same_index_whatever_the_threads(db, metric, bits):
    make_table(db, clustered(9000, 48))
    contents = []
    for workers in (0, 2, 7, 0):
        with settings(db, max_parallel_maintenance_workers=workers):
            make_index(db, metric, options=f"WITH (bits = {bits})")
        contents.append(content(db))
        db.execute("DROP INDEX items_embedding_idx")
    assert all(other == contents[0] for other in contents)


def test_seed(db):
    """The same seed gives the same index, another one another, which finds as much."""
    make_table(db, clustered(3000, 48))
    contents = []
    for seed in (0, 0, 7):
        make_index(db, options=f"WITH (seed = {seed})")
        assert_recall(db, QUERIES, 0.93)
        assert_holds_exactly(db, QUERIES[0])
        contents.append(content(db))
        db.execute("DROP INDEX items_embedding_idx")
    assert contents[0] == contents[1] != contents[2]
