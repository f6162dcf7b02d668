"""Clients insert, update, delete, roll back, are cancelled, vacuum, reindex and search, all at once, for a while.

No statement may fail, and no row may be lost or come twice: scans to the end are compared with the table in one snapshot,
and ivflsh_check runs again and again. The times of searches are reported, apart for those during which a list was split.

`make stress ARGS="--seconds 900"` for long; --clients and --seed for others.
"""

import random
import time
from collections import Counter

import numpy as np

from harness.cluster import Cluster
from harness.search import assert_in_order
from harness.workers import Workers
from harness.workload import SHAPES, Client, check, compare, connect, make_tables, stats, work

NAME = "concurrency"
SETTINGS = {"shared_buffers": "64MB", "autovacuum": "on", "autovacuum_naptime": "1s", "max_wal_size": "1GB",
            "log_lock_waits": "on"}
CHANGING = """SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'tuple' AND mode = 'ExclusiveLock' AND granted
                                AND relation = %s::regclass AND page = 0)"""


def search(server, shape, seed, seconds):
    """Searches without a pause; returns when each began and ended."""
    dice, times = random.Random(seed), []
    queries = [shape.statement(shape.query(dice), 10) for _ in range(200)]
    connection = connect(server, NAME)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        statement = dice.choice(queries)
        begin = time.monotonic()
        rows = connection.execute(*statement).fetchall()
        times.append((begin, time.monotonic()))
        assert_in_order(rows)
    return np.array(times)


def watch(server, shape, seconds):
    """When the structure of an index was being changed."""
    connection = connect(server, NAME)
    until = time.monotonic() + seconds
    changes = []
    while time.monotonic() < until:
        begin = time.monotonic()
        if connection.execute(CHANGING, (shape.index,)).fetchone()[0]:
            changes.append((begin, time.monotonic()))
        time.sleep(0.003)
    return np.array(changes).reshape(-1, 2)


def percentiles(times):
    if not len(times):
        return "no searches"
    shares = [50, 99, 99.9, 100]
    values = np.percentile(1000 * (times[:, 1] - times[:, 0]), shares)
    return f"{len(times)} searches, ms: " + ", ".join(f"p{s:g} {v:.2f}" for s, v in zip(shares, values))


def test_clients_beside_each_other(stress):
    seconds, dice = stress.seconds, random.Random(stress.seed)
    with Cluster(settings=SETTINGS) as server, Workers() as workers:
        make_tables(server, NAME)
        until = time.monotonic() + seconds
        workers.start(search, server, SHAPES[0], dice.random(), seconds)
        workers.start(watch, server, SHAPES[0], seconds)
        workers.start(work, server, NAME, 0, dice.random(), Client.CARE | Client.WRITES, seconds)
        for part in range(1, max(2, stress.clients - 2)):
            workers.start(work, server, NAME, part, dice.random(), Client.WRITES, seconds)
        checks = 0
        with connect(server, NAME) as connection:
            while time.monotonic() < until and not workers.failed():
                for shape in SHAPES:
                    check(connection, shape)
                    checks += 1
                time.sleep(min(seconds / 8, 60))
        times, changes, *clients = workers.join(seconds + 120)
        with connect(server, NAME) as connection:
            for shape in SHAPES:
                check(connection, shape)
                recall = compare(connection, shape, shape.query(dice))
                connection.execute(f"VACUUM {shape.table}")
                found = stats(connection, shape)
                print(f"{shape.table}: {check(connection, shape)}, {found['splits']} splits, {found['merges']} merges,"
                      f" {found['closed_lists']} closed, imbalance {found['rows']['imbalance']:.1f}, recall {float(recall)}")
        amid = np.zeros(len(times), bool)
        for begin, end in changes:
            amid |= (times[:, 0] < end) & (times[:, 1] > begin)
        print(f"{checks} checks; {dict(sum((done for done, _ in clients), Counter()))}")
        print(f"all: {percentiles(times)}\nwhile the structure changes: {percentiles(times[amid])}")
        log = server.log.read_text()
        assert "PANIC" not in log and "terminated by signal" not in log and "deadlock detected" not in log
