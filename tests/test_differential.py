"""Random tables, data and statements: each statement by the index against the same statement without it.

What may differ is which rows a LIMIT (without WITH TIES) returns, and there by the recall that was asked for. All else is
exact. `make test` runs a few seeds; `make stress ARGS="--statements 20000"` as many statements as are asked for, and
`--seed N` begins elsewhere, `--largest N` takes tables of up to so many rows (few up to 5,000 are not read whole). A failure names the seed of its table: `pytest tests/test_differential.py --seed N --tables 1`.
"""

import math
from collections import Counter, defaultdict

import numpy as np
import psycopg
import pytest
from pgvector import Bit, HalfVector, Vector
from pgvector.psycopg import register_vector

from harness.families import FAMILIES, KINDS, query_of, rows_of
from harness.search import METRICS, Metric

TABLES = 24  # of `make test`
STATEMENTS = 30  # for each table
TARGET = 0.95
MODES = {
    "as planned": {},
    "by index": {"enable_seqscan": "off", "enable_sort": "off", "enable_bitmapscan": "off"},
    "plain index scan": {"enable_seqscan": "off", "enable_sort": "off", "ivflsh.enable_vector_scan": "off"},
    "generic plan": {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"},
}
EXACT = {"enable_indexscan": "off", "enable_bitmapscan": "off", "ivflsh.enable_vector_scan": "off", "max_parallel_workers_per_gather": "0"}


def literal(vector, type_name):
    if type_name == "bit":
        return "B'" + "".join("1" if bit else "0" for bit in vector) + "'"
    if type_name == "halfvec":
        return f"'{HalfVector(vector).to_text()}'::halfvec"
    return f"'{Vector(vector).to_text()}'::vector"


class Difference(AssertionError):
    pass


class Case:
    """A table with an index, and statements about it; everything follows from the seed."""

    def __init__(self, connection, exact, seed, statements, largest=5000):
        self.connection, self.exact, self.seed, self.statements = connection, exact, seed, statements
        self.dice = np.random.default_rng(seed)
        self.family = list(FAMILIES)[seed % len(FAMILIES)]
        self.metric = self.pick(METRICS)
        self.type_name = self.pick(["vector", "vector", "vector", "halfvec"])
        self.dims = int(self.pick([1, 2, 3, 8, 8, 16, 31, 64, 100]))
        self.count = int(round(largest ** self.dice.random()))
        self.bits = int(self.pick([8, 8, 8, 4, 0]))
        self.filters = self.pick(["", "", ", label", ", label, tag", ", price, label"])
        self.partitioned = self.dice.random() < 0.15
        self.grown = self.dice.random() < 0.35
        self.mode = "as planned"
        self.ran = 0
        self.hits = defaultdict(lambda: [0, 0])
        self.kinds = Counter()

    def pick(self, choices):
        return choices[self.dice.integers(len(choices))]

    def __str__(self):
        return (f"seed {self.seed}: {self.count} rows of {self.type_name}({self.dims}), {self.family}, {self.metric.name}, "
                f"bits {self.bits}, filters '{self.filters}'{', partitioned' if self.partitioned else ''}"
                f"{', grown' if self.grown else ''}")

    # The table

    def make(self):
        c = self.connection
        c.execute("DROP TABLE IF EXISTS items")
        c.execute(f"""CREATE TABLE items (id int NOT NULL, label int NOT NULL, tag text, price float8,
                      v {self.type_name}({self.dims})) {'PARTITION BY HASH (id)' if self.partitioned else ''}""")
        if self.partitioned:
            for i in range(3):
                c.execute(f"CREATE TABLE items_{i} PARTITION OF items FOR VALUES WITH (modulus 3, remainder {i})")
        self.rows = self.new_rows(self.seed, self.count)
        self.next_id = 0
        first = self.rows[: int(self.count * self.dice.random())] if self.grown else self.rows
        self.insert(first)
        c.execute(f"""CREATE INDEX items_v ON items USING ivflsh (v {self.type_name}_{self.metric.operators}{self.filters})
                      {self.options()}""")
        if len(first) < len(self.rows):
            self.insert(self.rows[len(first):])
        if self.dice.random() < 0.5:
            c.execute("CREATE INDEX ON items (label)")
        c.execute("ANALYZE items")

    def options(self):
        return f"WITH (bits = {self.bits})"

    def new_rows(self, seed, count):
        rows = rows_of(self.family, seed, count, self.dims)
        return np.clip(rows, -6e4, 6e4) if self.type_name == "halfvec" else rows

    def value(self, row):
        return HalfVector(row) if self.type_name == "halfvec" else Vector(row)

    def insert(self, rows):
        if len(rows) == 0:
            return
        nulls = self.dice.random(len(rows)) < (0.05 if self.seed % 3 == 0 else 0)
        with self.connection.cursor().copy("COPY items (id, label, tag, price, v) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "int4", "text", "float8", self.type_name])
            for row, null in zip(rows, nulls):
                label = int(self.dice.integers(10) ** 2 // 10)
                copy.write_row((self.next_id, label, f"t{label % 3}" if label else None, float(self.dice.normal()),
                                None if null else self.value(row)))
                self.next_id += 1

    # Statements

    def query(self):
        self.kind = self.pick(KINDS)
        query = query_of(self.kind, self.family, self.dice, self.rows)
        return literal(np.clip(query, -6e4, 6e4) if self.type_name == "halfvec" else query, self.type_name)

    def distance(self, query):
        return f"v {self.metric.operator} {query}"

    def condition(self):
        """A WHERE on other columns, or none."""
        return self.pick(["true"] * 5 + ["label = 0", "label = 3", "label IN (1, 2)", "price > 0", "price BETWEEN -0.1 AND 0.1",
                          "tag = 't1'", "tag IS NULL", "label < 4 AND price < 1", "id % 7 = 0", "label = 1 OR price > 1.5",
                          "v IS NOT NULL", "id < 20", "label = 99", "label <> 3", "NOT (label = 1 OR tag = 't1')", "label = 1 OR tag = 't2'",
                          "tag IS DISTINCT FROM 't1'", "label NOT IN (0, 1)", "(label = 0 AND price > 0) OR tag IS NULL"])

    def radius(self, query):
        """A distance that some share of the rows are within."""
        share = self.pick([0, 0.001, 0.01, 0.1, 0.5, 0.9, 1])
        d = self.run(self.exact, f"SELECT percentile_disc({share}) WITHIN GROUP (ORDER BY d) FROM "
                                 f"(SELECT {self.distance(query)} AS d FROM items) t WHERE d <> 'NaN'")[0][0]
        if d is None or not math.isfinite(d):
            return 1.0
        return d if self.dice.random() < 0.5 else d + abs(d) * 1e-3 + 1e-9

    def run(self, connection, sql, parameters=None):
        return connection.execute(sql, parameters, prepare=False).fetchall()

    def both(self, sql):
        self.ran += 1
        self.sql = sql
        return self.run(self.connection, sql), self.run(self.exact, sql)

    def differ(self, why, got=None, expected=None):
        raise Difference(f"{why}\n{self}\nmode: {self.mode}\n{self.sql[:3000]}\n"
                         f"got {str(got)[:1500]}\nexpected {str(expected)[:1500]}\n"
                         + "\n".join(row[0] for row in self.run(self.connection, "EXPLAIN " + self.sql))[:3000]
                         if not self.sql.startswith(("DECLARE", "FETCH", "EXECUTE")) else
                         f"{why}\n{self}\nmode: {self.mode}\n{self.sql[:3000]}\n")

    def same(self, got, expected, why="rows differ"):
        if sorted(map(repr, got)) != sorted(map(repr, expected)):
            missing = Counter(map(repr, expected)) - Counter(map(repr, got))
            extra = Counter(map(repr, got)) - Counter(map(repr, expected))
            self.differ(f"{why}: {sum(missing.values())} missing, {sum(extra.values())} too many of {len(expected)}",
                        dict(list(extra.items())[:8]), dict(list(missing.items())[:8]))

    @staticmethod
    def key(d):
        """As PostgreSQL sorts: NaN, then NULL last."""
        return (2, 0.0) if d is None else (1, 0.0) if math.isnan(d) else (0, d)

    def ordered(self, rows):
        keys = [self.key(row[1]) for row in rows]
        if keys != sorted(keys):
            self.differ("out of order", [row[1] for row in rows])
        if len({row[0] for row in rows}) != len(rows):
            self.differ("a row came twice", rows)

    def true_distances(self, got, query):
        if not got:
            return
        ids = ",".join(str(row[0]) for row in got)
        truth = dict(self.run(self.exact, f"SELECT id, {self.distance(query)} FROM items WHERE id IN ({ids})"))
        for row in got:
            if repr(truth.get(row[0], "no such row")) != repr(row[1]):
                self.differ("not the operator's distance", row, truth.get(row[0]))

    def limited(self, got, expected, query):
        """Rows under a LIMIT."""
        if len(got) != len(expected):
            self.differ("the LIMIT is not filled", len(got), len(expected))
        self.ordered(got)
        self.true_distances(got, query)
        if expected:
            last = self.key(expected[-1][1])
            of = self.hits[self.family, self.kind]
            of[0] += sum(self.key(row[1]) <= last for row in got)
            of[1] += len(expected)

    def top(self):
        query, condition = self.query(), self.condition()
        limit, offset = int(self.pick([1, 3, 10, 10, 10, 37, 100, 1000, 10000])), int(self.pick([0, 0, 0, 5, 50]))
        sql = (f"SELECT id, {self.distance(query)} FROM items WHERE {condition} ORDER BY {self.distance(query)} "
               f"LIMIT {limit} OFFSET {offset}")
        self.limited(*self.both(sql), query)

    def plain(self):
        """As most applications write it."""
        query = self.query()
        limit = int(self.pick([5, 10, 20]))
        sql = f"SELECT id, {self.distance(query)} AS distance FROM items ORDER BY distance LIMIT {limit}"
        self.limited(*self.both(sql), query)

    def no_limit(self):
        query, condition = self.query(), self.condition()
        end = self.pick(["", "LIMIT ALL", "LIMIT NULL", "OFFSET 3"])
        got, expected = self.both(f"SELECT id, {self.distance(query)} FROM items WHERE {condition} "
                                  f"ORDER BY {self.distance(query)} {end}")
        if "OFFSET" not in end:
            self.same(got, expected)
        elif len(got) != len(expected):
            self.differ("rows differ", len(got), len(expected))
        if self.mode in ("as planned", "generic plan"):
            self.ordered(got)

    def range(self):
        query, condition = self.query(), self.condition()
        d, r = self.distance(query), self.radius(query)
        how = self.pick([f"{d} < {r!r}", f"{d} <= {r!r}", f"{r!r} > {d}", f"{d} BETWEEN {r / 2!r} AND {r!r}",
                         f"{d} >= {r!r}", f"NOT {d} < {r!r}", f"1 - ({d}) > {1 - r!r}", f"-({d}) >= {-r!r}", f"{-2 * r!r} <= ({d}) * -2"])
        what = self.pick(["id", "count(*)", "min(id), max(id)", "id, label"])
        self.same(*self.both(f"SELECT {what} FROM items WHERE {how} AND {condition}"))

    def range_in_order(self):
        query, condition = self.query(), self.condition()
        d, r = self.distance(query), self.radius(query)
        limit = int(self.pick([5, 10, 100, 10000]))
        got, expected = self.both(f"SELECT id, {d} FROM items WHERE {d} < {r!r} AND {condition} ORDER BY {d} LIMIT {limit}")
        self.limited(got, expected, query)

    def ties(self):
        query, condition = self.query(), self.condition()
        got, expected = self.both(f"SELECT id, {self.distance(query)} FROM items WHERE {condition} "
                                  f"ORDER BY {self.distance(query)} FETCH FIRST {self.pick([1, 5, 20])} ROWS WITH TIES")
        self.same(got, expected)
        self.ordered(got)

    def second_key(self):
        query, condition = self.query(), self.condition()
        got, expected = self.both(f"SELECT id, {self.distance(query)} FROM items WHERE {condition} "
                                  f"ORDER BY {self.distance(query)}, id LIMIT 10")
        self.limited(got, expected, query)
        if got != sorted(got, key=lambda row: (self.key(row[1]), row[0])):
            self.differ("the second key is out of order", got)

    def descending(self):
        query = self.query()
        got, expected = self.both(f"SELECT {self.distance(query)} FROM items ORDER BY {self.distance(query)} DESC LIMIT 10")
        self.same(got, expected)

    def pages(self):
        query, condition = self.query(), self.condition()
        size = int(self.pick([5, 10, 25]))
        got, total = [], self.run(self.exact, f"SELECT count(*) FROM items WHERE {condition}")[0][0]
        for page in range(4):
            self.ran += 1
            self.sql = (f"SELECT id, {self.distance(query)} FROM items WHERE {condition} ORDER BY {self.distance(query)} "
                        f"LIMIT {size} OFFSET {page * size}")
            rows = self.run(self.connection, self.sql)
            if len(rows) != max(0, min(size, total - page * size)):
                self.differ(f"page {page} is not filled", len(rows))
            got += rows
            keys = [self.key(row[1]) for row in rows]
            if keys != sorted(keys):
                self.differ(f"page {page} is out of order", [row[1] for row in rows])
        # Rows at one distance are in no order, with an index or without.
        if len({self.key(row[1]) for row in got}) == len(got) and len({row[0] for row in got}) != len(got):
            self.differ("a row is on two pages", got)

    def cursor(self):
        query, condition = self.query(), self.condition()
        body = f"SELECT id, {self.distance(query)} FROM items WHERE {condition} ORDER BY {self.distance(query)}"
        self.sql = "DECLARE c CURSOR FOR " + body
        self.ran += 1
        got = []
        with self.connection.transaction():
            self.connection.execute(self.sql)
            while rows := self.run(self.connection, f"FETCH {self.pick([1, 7, 100, 2000])} FROM c"):
                got += rows
                if len(got) > 100 and self.count > 3000 and self.dice.random() < 0.02:
                    break
            else:
                self.same(got, self.run(self.exact, body))
            self.connection.execute("CLOSE c")

    def lateral(self):
        queries = [self.query() for _ in range(3)]
        values = ", ".join(f"({i}, {query})" for i, query in enumerate(queries))
        got, expected = self.both(f"""SELECT n, t.id, t.d FROM (VALUES {values}) q (n, q) CROSS JOIN LATERAL
            (SELECT id, v {self.metric.operator} q.q AS d FROM items ORDER BY v {self.metric.operator} q.q LIMIT 5) t""")
        for i, query in enumerate(queries):
            self.limited([row[1:] for row in got if row[0] == i], [row[1:] for row in expected if row[0] == i], query)

    def join(self):
        queries = [self.query() for _ in range(3)]
        values = ", ".join(f"({i}, {query})" for i, query in enumerate(queries))
        r = self.radius(queries[0])
        self.same(*self.both(f"""SELECT n, count(t.id) FROM (VALUES {values}) q (n, q) LEFT JOIN items t
            ON t.v {self.metric.operator} q.q < {r!r} GROUP BY n"""))

    def within(self):
        query, condition = self.query(), self.condition()
        d, r = self.distance(query), self.radius(query)
        self.same(*self.both(self.pick([
            f"SELECT label, count(*) FROM items WHERE {d} < {r!r} AND {condition} GROUP BY label",
            f"SELECT count(*) FILTER (WHERE {d} < {r!r}) FROM items WHERE {condition}",
            f"SELECT EXISTS (SELECT 1 FROM items WHERE {d} < {r!r} AND {condition})",
            f"SELECT count(*) FROM (SELECT id FROM items WHERE {condition} ORDER BY {d} LIMIT 10) t",
            f"SELECT count(*) FROM items WHERE id IN (SELECT id FROM items WHERE {d} < {r!r})",
            f"SELECT count(*), count(v) FROM (SELECT * FROM items WHERE {condition} ORDER BY {d}) t"])))

    def locked(self):
        query, condition = self.query(), self.condition()
        got, expected = self.both(f"SELECT id, {self.distance(query)} FROM items WHERE {condition} "
                                  f"ORDER BY {self.distance(query)} LIMIT 10 {self.pick(['FOR UPDATE', 'FOR SHARE SKIP LOCKED'])}")
        self.limited(got, expected, query)

    def system_columns(self):
        query = self.query()
        self.ran += 1
        self.sql = (f"SELECT t.id, i.id FROM (SELECT id, tableoid AS part, ctid AS place FROM items "
                    f"ORDER BY {self.distance(query)} LIMIT 10) t LEFT JOIN items i ON i.ctid = place AND i.tableoid = part")
        got = self.run(self.connection, self.sql)
        if any(one != other for one, other in got):
            self.differ("ctid of another row", got)

    def prepared(self):
        query, limit = self.query(), int(self.pick([1, 10, 50]))
        self.ran += 1
        self.connection.execute(f"PREPARE p ({self.type_name}, bigint) AS SELECT id, v {self.metric.operator} $1 FROM items "
                                f"ORDER BY v {self.metric.operator} $1 LIMIT $2")
        self.sql = f"EXECUTE p ({query}, {limit})"
        try:
            got = self.run(self.connection, self.sql)
            everything = self.run(self.connection, f"EXECUTE p ({query}, NULL)")
        finally:
            self.connection.execute("DEALLOCATE p")
        body = f"SELECT id, {self.distance(query)} FROM items ORDER BY {self.distance(query)}"
        self.limited(got, self.run(self.exact, f"{body} LIMIT {limit}"), query)
        self.same(everything, self.run(self.exact, body), "LIMIT NULL")

    def write(self):
        """UPDATE, DELETE by a range, or more rows."""
        query, condition = self.query(), self.condition()
        d, r = self.distance(query), self.radius(query)
        kind = self.pick(["update", "delete", "move", "insert", "vacuum"])
        if kind == "insert":
            return self.insert(self.new_rows(self.seed + int(self.dice.integers(1000)), int(self.pick([1, 20, 300]))))
        if kind == "vacuum":
            return self.connection.execute("VACUUM items")
        self.sql = {"update": f"UPDATE items SET price = price + 0 WHERE {d} < {r!r} AND {condition} RETURNING id",
                    "delete": f"DELETE FROM items WHERE {d} < {r!r} AND label > 3 RETURNING id",
                    "move": f"UPDATE items SET v = -1 * v WHERE {d} < {r!r} AND label = 1 RETURNING id"}[kind]
        if self.type_name == "halfvec" and kind == "move":
            self.sql = self.sql.replace("-1 * v", "v")
        self.sql = self.sql.replace("-1 * v", "~v" if self.type_name == "bit" else
                                    "(SELECT array_agg(-x) FROM unnest(v::real[]) x)::vector")
        self.ran += 1
        with self.exact.transaction(force_rollback=True):
            expected = self.run(self.exact, self.sql)
        self.same(self.run(self.connection, self.sql), expected)

    def go(self):
        self.make()
        steps = [self.plain] * 4 + [self.top] * 6 + [self.range] * 5 + [self.range_in_order] * 2 + [self.no_limit] * 2 + [
            self.ties, self.second_key, self.descending, self.pages, self.pages, self.cursor, self.lateral, self.join,
            self.within, self.within, self.locked, self.system_columns, self.prepared, self.write, self.write]
        for _ in range(10 * self.statements):
            if self.ran >= self.statements:
                break
            step = self.pick(steps)
            self.mode = self.pick(list(MODES))
            if step == self.ties and self.mode != "as planned":
                continue
            for name, value in MODES[self.mode].items():
                self.connection.execute(f"SET {name} = {value}")
            try:
                step()
            except psycopg.Error as error:
                raise Difference(f"{type(error).__name__}: {error}\n{self}\nmode: {self.mode}\n{getattr(self, 'sql', '')[:3000]}"
                                 ) from error
            finally:
                self.connection.execute("RESET ALL")
            self.kinds[step.__name__] += 1
        self.connection.execute("SELECT ivflsh_check(indexrelid) FROM pg_index JOIN pg_class ON oid = indexrelid "
                                "WHERE relname ~ '^items.*v.*idx$|^items_v$' AND relkind = 'i'")


class BitCase(Case):
    """The same of bit strings: the signs of vectors, or few bits set, or all kinds of equal ones."""

    def __init__(self, connection, exact, seed, statements, largest=5000):
        super().__init__(connection, exact, seed, statements, largest)
        self.metric = self.pick([Metric("hamming", "<~>"), Metric("jaccard", "<%>")])
        self.type_name = "bit"
        self.dims = int(self.pick([1, 7, 32, 64, 100, 384, 2100]))
        self.share = float(self.pick([0.5, 0.5, 0.1, 0.02]))

    def options(self):
        return ""

    def new_rows(self, seed, count):
        """Where a vector's coordinates are among its largest; some rows have no bit, or all."""
        rows = rows_of(self.family, seed, count, self.dims)
        rows = rows > np.quantile(rows, 1 - self.share, axis=1, keepdims=True)
        lot = np.random.default_rng((seed, 1)).random(count)
        rows[lot < 0.01], rows[lot > 0.99] = False, True
        return rows

    def value(self, row):
        return Bit(row.tolist())

    def query(self):
        self.kind = self.pick(KINDS)
        query = np.asarray(query_of(self.kind, self.family, self.dice, self.rows), float)
        return literal(query > np.quantile(query, 1 - self.share), self.type_name)


def connections(database):
    connection, exact = database.connect(), database.connect()
    for name, value in EXACT.items():
        exact.execute(f"SET {name} = {value}")
    return connection, exact


@pytest.mark.parametrize("case_type, fewer", [(Case, 1), (BitCase, 3)], ids=["vectors", "bits"])
def test_against_no_index(database, stress, case_type, fewer):
    connection, exact = connections(database)
    tables = stress.tables or (math.ceil(stress.statements / STATEMENTS) if stress.statements else TABLES // fewer)
    statements = kinds = 0
    kinds, hits, failures = Counter(), defaultdict(lambda: [0, 0]), []
    for seed in range(stress.seed, stress.seed + tables):
        case = case_type(connection, exact, seed, STATEMENTS, stress.largest)
        try:
            case.go()
        except Difference as difference:
            failures.append(str(difference))
            if not stress.keep_going:
                break
            for one in (connection, exact):
                if one.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    one.rollback()
                one.execute("RESET ALL; DEALLOCATE ALL")
            for name, value in EXACT.items():
                exact.execute(f"SET {name} = {value}")
        statements += case.ran
        kinds += case.kinds
        for of, (found, wanted) in case.hits.items():
            hits[of][0] += found
            hits[of][1] += wanted
    report(statements, kinds, hits, len(failures))
    assert not failures, f"{len(failures)} differences\n\n" + "\n\n".join(failures)
    assert statements >= tables * STATEMENTS // 2
    if stress.statements >= 5000:
        for family in FAMILIES:
            found, wanted = np.sum([hits[of] for of in hits if of[0] == family], axis=0)
            assert found / wanted >= TARGET - 0.02, f"{family}: recall {found / wanted:.4f} of {wanted} rows"
        for kind in KINDS:
            found, wanted = np.sum([hits[of] for of in hits if of[1] == kind], axis=0)
            assert found / wanted >= TARGET - 0.02, f"query {kind}: recall {found / wanted:.4f} of {wanted} rows"


# A range of almost nothing, of rows at the place of their centroid; a LIMIT of more rows than there are, with codes of 4 bits.
@pytest.mark.parametrize("seed", [10602, 10049])
def test_found_before(database, seed):
    """Seeds that showed differences once."""
    Case(*connections(database), seed, STATEMENTS).go()


def report(statements, kinds, hits, failures):
    print(f"\n{statements} statements, {failures} differences; {dict(kinds)}")
    for which, names in ((0, FAMILIES), (1, KINDS)):
        for name in names:
            of = [hits[key] for key in hits if key[which] == name]
            if of:
                found, wanted = np.sum(of, axis=0)
                print(f"  recall {found / max(1, wanted):.4f} of {wanted:7} rows: {name}")
