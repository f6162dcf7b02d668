"""What a single INSERT has to do besides is bounded: pages that it looks at are counted, not seconds."""

import numpy as np
import pytest
from pgvector import Vector

from harness.search import assert_recall, make_index, make_table
from test_index_growth import stats

SIZE = 8


def grow(db, rows, first):
    """Pages that each INSERT of a row into the table and its index looked at."""
    work = []
    for i, row in enumerate(rows, first):
        shown = db.execute("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) INSERT INTO items VALUES (%s, 0, %b)",
                           (i, Vector(row))).fetchone()[0][0]["Plan"]
        work.append(shown["Shared Hit Blocks"] + shown["Shared Read Blocks"])
    return np.array(work)


@pytest.mark.parametrize("rows, bits, most", [(20000, 8, 4000), (4000, 0, 5000)])
def test_the_work_of_an_insert_is_bounded(db, rows, bits, most):
    """The stopping rule is measured again and again as the index grows, by many INSERTs each a little."""
    centres, dice = np.random.default_rng(1).normal(size=(500, SIZE)), np.random.default_rng(2)

    def some(count):
        return (centres[dice.integers(500, size=count)] + 0.3 * dice.normal(size=(count, SIZE))).astype(np.float32)

    make_table(db, some(300))
    make_index(db, options=f"WITH (bits = {bits}, lists = 300)")  # lists of 32 rows, the least that there are
    work = grow(db, some(rows), 300)
    assert work.max() < most, "a split, and a slice of the measurement"
    assert np.median(work) < 40
    lists = stats(db)["lists"]
    assert lists > 100
    assert_recall(db, some(40), 0.93)
    # All of it came to its end meanwhile, more than once: an INSERT less deep would tell nothing.
    assert np.sort(work)[-20] > 300
