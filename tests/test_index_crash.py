"""A server that is killed at any moment holds whole indexes when it is back, and so does its standby.

Clients change several tables by dice; SIGKILL ends all processes of the server at once; sometimes it is killed again amid
recovery. Then every index must pass ivflsh_check and answer as the table does, before and after more changes. A standby
follows all the time, is searched meanwhile, and must then give the same answers.

Kills meet a change of the structure by chance. So, further, one client's work is recovered up to records within such
changes, one after the other: as if the server had died just then.

`make stress ARGS="--kills 300 --records 300"` for long; --seed=n for other dice. (What the clients do when is never the
same twice.)
"""

import random
import time
from collections import Counter
from contextlib import suppress

import psycopg

from harness.cluster import Cluster, adopt_orphans
from harness.workers import Workers
from harness.workload import (SHAPES, Client, Recall, answers, check, compare, connect, is_lost, make_tables, stats, work)

NAME = "crash"
SETTINGS = {
    "wal_consistency_checking": "generic",  # on the standby
    "shared_buffers": "16MB", "bgwriter_delay": "10ms", "bgwriter_lru_maxpages": "1000",  # pages on disk are of any age
    "wal_keep_size": "1GB",
    "max_standby_streaming_delay": "200ms", "max_standby_archive_delay": "200ms",
}
# What the first client does in a round, beside the others' writes.
FOCUS = ({"vacuum": 4, "delete_region": 2, "delete": 1, "region": 1}, {"build": 1}, {"region": 1}, {"copy": 1},
         {"single": 1}, Client.CARE | Client.WRITES, {"reindex": 2, "truncate": 1, "region": 4},
         {"delete_region": 2, "region": 2, "update": 1}, {"hurry": 1}, {"reindex_concurrently": 1})


def read_standby(standby, seed):
    """Search and check until the server is gone; what conflicts with replay is cancelled, and that is all that may be."""
    dice, done = random.Random(seed), Counter()
    try:
        connection = connect(standby, NAME)
        while True:
            shape = dice.choice(SHAPES)
            try:
                if dice.random() < 0.3:
                    check(connection, shape)
                    done["standby_check"] += 1
                else:
                    compare(connection, shape, shape.query(dice))
                    done["standby_compare"] += 1
            except psycopg.errors.SerializationFailure:
                done["standby_conflict"] += 1
                # A second conflict may have met the ROLLBACK itself, which has not taken place then.
                while connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                    with suppress(psycopg.errors.SerializationFailure):
                        connection.rollback()
    except psycopg.OperationalError as error:
        if not is_lost(error):
            raise
    return done


class Crashes:
    """Rounds of changes and a kill each."""

    def __init__(self, seed):
        self.seed, self.round = seed, 0
        self.recall, self.counts, self.leaked = Recall(), Counter(), 0

    def run(self, server, standby):
        dice = random.Random(f"{self.seed} {self.round}")
        try:
            standby_ended = self.kill(server, standby, dice)
            if dice.random() < 0.15:
                server.kill_while_starting(dice.random() * 0.2)
                self.counts["killed twice"] += 1
            server.start()
            if standby_ended:
                standby.start()
            self.compare(server, dice)
            if dice.random() < 0.3:
                self.change(server, dice)
            self.compare_standby(server, standby, dice)
        except Exception as failure:
            failure.add_note(f"in round {self.round} of --seed {self.seed}; {server.log_tail(12)}")
            raise
        self.round += 1

    def kill(self, server, standby, dice):
        """Clients at work, and the end of them. Returns whether the standby has been ended too."""
        focus = FOCUS[self.round % len(FOCUS)]
        others = dice.randrange(4)
        with Workers() as workers:
            for part in range(others + 1):
                workers.start(work, server, NAME, part, dice.random(), Client.WRITES if part else focus)
            if reader := dice.random() < 0.5:
                workers.start(read_standby, standby, dice.random())
            time.sleep(0.05 + dice.random() ** 2 * 1.2)
            server.kill()
            if reader:
                standby.kill() if dice.random() < 0.3 else standby.crash()
            for result in workers.join(60):
                if isinstance(result, Counter):
                    self.counts += result
                else:
                    done, doing = result
                    self.counts += done
                    self.counts["killed amid " + doing] += 1
            return reader

    def compare(self, server, dice):
        """All indexes are whole and answer as their tables do."""
        with connect(server, NAME) as connection:
            for left, in connection.execute("""SELECT indexrelid::regclass FROM pg_index JOIN pg_class ON oid = indexrelid
                    WHERE NOT indisvalid OR relname LIKE 'second_%'""").fetchall():
                connection.execute(f"DROP INDEX {left}")
            for shape in SHAPES:
                found = check(connection, shape)
                self.leaked = max(self.leaked, found["leaked_pages"])
                if found["leaked_pages"]:
                    self.counts["left pages that nothing refers to"] += 1
                of_index = stats(connection, shape)
                if of_index["closed_lists"]:
                    self.counts["left a list closed"] += 1
                if of_index["merges"]:
                    self.counts["lists have been merged"] += 1
                for _ in range(2):
                    self.recall += compare(connection, shape, shape.query(dice))

    def change(self, server, dice):
        """The index is still one that can be changed."""
        with connect(server, NAME) as connection:
            client = Client(connection, 0, dice)
            for shape in SHAPES:
                client.region(shape)
                client.vacuum(shape)
                client.single(shape)
        self.compare(server, dice)

    def compare_standby(self, server, standby, dice):
        standby.wait_for_replay()
        with connect(server, NAME) as primary, connect(standby, NAME) as reader:
            for shape in SHAPES:
                queries = [shape.query(dice) for _ in range(3)]
                one, other = check(reader, shape), check(primary, shape)
                # Pages by which the primary has extended the file and which were never used are not replayed.
                assert all(one[what] == other[what] for what in ("lists", "entries", "rows", "leaked_pages"))
                assert answers(reader, shape, queries) == answers(primary, shape, queries)
                compare(reader, shape, queries[0])

    def report(self):
        lines = [f"{self.round} rounds, recall@10 of searches that read all lists {float(self.recall):.4f}",
                 f"leaked pages at most {self.leaked}"]
        lines += [f"{count:6} {what}" for what, count in sorted(self.counts.items())]
        return "\n".join(lines)


def test_kills(stress):
    adopt_orphans()
    crashes = Crashes(stress.seed)
    with Cluster(settings=SETTINGS) as server:
        make_tables(server, NAME)
        with server.standby(SETTINGS) as standby:
            while crashes.round < stress.kills:
                crashes.run(server, standby)
                if crashes.round % 20 == 0:
                    print(crashes.report(), flush=True)
    print(crashes.report())
    assert float(crashes.recall) > 0.98


def structural(records):
    """LSNs of records in the midst of a change of many pages of an index: inserts make one to three records of their own."""
    runs, last = [[]], None
    for lsn, manager, relation in records:
        if manager in ("Standby", "XLOG"):
            continue
        if (manager, relation) != last:
            runs.append([])
        last = manager, relation
        if manager == "Generic":
            runs[-1].append(lsn)
    return [lsn for run in runs if len(run) > 5 for lsn in run]


def test_end_of_recovery_at_any_record(stress):
    dice, crashes = random.Random(stress.seed), Crashes(stress.seed)
    with Cluster(settings={"wal_keep_size": "4GB"}) as server:
        make_tables(server, NAME)
        server.stop()
        base = server.save("base")
        (base / "recovery.signal").touch()
        server.start()
        with connect(server, NAME) as connection:
            client = Client(connection, 0, dice)
            for _ in range(15 + stress.records):
                client.act({"region": 4, "copy": 2, "delete_region": 3, "vacuum": 3, "update": 1, "truncate": 0.2})
        server.stop()
        lsns = structural(server.wal_records())
        for lsn in dice.sample(lsns, min(stress.records, len(lsns))):
            settings = {"restore_command": f'cp {server.data}/pg_wal/%f "%p"',
                        "recovery_target_lsn": lsn, "recovery_target_action": "promote"}
            with Cluster(settings=settings, copy_of=base) as copy:
                try:
                    copy.wait_for_promotion()
                    crashes.compare(copy, dice)
                    crashes.change(copy, dice)
                except Exception as failure:
                    failure.add_note(f"recovered up to {lsn}, --seed {stress.seed}")
                    raise
            crashes.round += 1
    print(f"{len(lsns)} records within changes\n{crashes.report()}")
