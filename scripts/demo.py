"""Find look-alikes among 60,000 images by SQL, and measure how well and how fast that goes.  Run it by `make demo`.

Exits with an error when the recall is too low or when a promise of the index does not hold.
"""

import argparse
import os
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pgvector.psycopg import register_vector
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from harness import fashion  # noqa: E402
from harness.cluster import Cluster, exit_on_signals  # noqa: E402

OUTPUT = ROOT / "demo-output"
SHEET = OUTPUT / "contact-sheet.png"
KEPT = OUTPUT / "kept-servers"
DATABASE = "demo"
INDEX = "items_embedding_idx"
K = 10
FILTER_LABEL = 3
MINIMUM_RECALL = 0.95
MINIMUM_SPEEDUP = 10

CREATE_INDEX = "CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops)"
NEAREST = f"SELECT id, label FROM items ORDER BY embedding <-> %b LIMIT {K}"
NEAREST_WITH_DISTANCE = f"SELECT id, embedding <-> %b FROM items ORDER BY embedding <-> %b LIMIT {K}"
NEAREST_OF_LABEL = f"""SELECT id, label, embedding <-> %b FROM items WHERE label = {FILTER_LABEL}
                       ORDER BY embedding <-> %b LIMIT {K}"""
DISTANCES_OF = "SELECT id, embedding <-> %b FROM items WHERE id = ANY(%b)"
EXPLAIN = f"""EXPLAIN (COSTS OFF) SELECT id, label FROM items
              ORDER BY embedding <-> (SELECT embedding FROM queries WHERE id = 0) LIMIT {K}"""
BY_HAND = f"""\
SELECT i.id, n.name, i.embedding <-> q.embedding AS distance
FROM queries q, label_names n,
     LATERAL (SELECT * FROM items ORDER BY embedding <-> q.embedding LIMIT {K}) i
WHERE q.id = 42 AND n.label = i.label ORDER BY distance;"""

SETTINGS = {
    "shared_buffers": "512MB",  # all data in memory, for both kinds of search
    "maintenance_work_mem": "256MB",
    "jit": "off",  # compiling would only slow exact search down
}


# What is printed

TTY = sys.stdout.isatty()
COLOURS = TTY and "NO_COLOR" not in os.environ


def style(text, code):
    return f"\033[{code}m{text}\033[0m" if COLOURS else text


def bold(text):
    return style(text, 1)


def heading(text):
    print(f"\n{bold(text)}", flush=True)


def detail(text):
    print(textwrap.indent(text, "   "), flush=True)


class Progress:
    """A line that is redrawn on a terminal, and now and then printed anew elsewhere."""

    def __init__(self, lasting=False):
        self.lasting = lasting  # leave the line on the terminal when its work is done
        self.what, self.drawn, self.started = None, 0.0, time.monotonic()

    def show(self, what, done=0, total=0):
        new = what != self.what
        if new:
            self.finish()
            self.what, self.drawn = what, 0.0
        self.total = total
        if time.monotonic() - self.drawn >= (0.1 if TTY else 5):
            self.draw(done, total if TTY or not new else 0)

    def draw(self, done, total):
        self.drawn = time.monotonic()
        share = min(done / total, 1) if total else 0
        filled = int(share * 30)
        bar = f"[{'#' * filled}{'.' * (30 - filled)}] {share:4.0%}" if total else ""
        line = f"   {self.drawn - self.started:6.1f} s  {self.what:<40} {bar}"
        print(f"\r\033[K{line}" if TTY else line, end="" if TTY else "\n", flush=True)

    def finish(self):
        if self.what is not None and TTY:
            if self.lasting:
                self.draw(self.total, self.total)
            print("\n" if self.lasting else "\r\033[K", end="", flush=True)
        self.what = None


class Checks:
    """Promises, each printed as it turned out."""

    def __init__(self):
        self.failed = 0

    def expect(self, holds, promise):
        self.failed += not holds
        print(f"   {style('ok    ', 32) if holds else style('FAILED', 31)}  {promise}", flush=True)


def megabytes(size):
    return f"{size / 2**20:,.0f} MB"


# The steps

def load(connection, images, labels, queries, query_labels):
    """Fill the tables by binary COPY."""
    connection.execute("""
        CREATE TABLE items (id int PRIMARY KEY, label smallint NOT NULL, embedding vector(784) NOT NULL);
        CREATE TABLE queries (LIKE items INCLUDING ALL);
        CREATE TABLE label_names (label smallint PRIMARY KEY, name text NOT NULL)""")
    progress = Progress(lasting=True)
    for table, rows, row_labels in (("items", images, labels), ("queries", queries, query_labels)):
        with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "int2", "vector"])
            for i, (row, label) in enumerate(zip(rows, row_labels)):
                copy.write_row((i, int(label), row.astype(np.float32)))
                if i % 1000 == 0:
                    progress.show(f"COPY {table}", i, len(rows))
    progress.finish()
    for label, name in enumerate(fashion.LABELS):
        connection.execute("INSERT INTO label_names VALUES (%s, %s)", (label, name))
    for table in ("items", "queries", "label_names"):
        connection.execute(f"VACUUM ANALYZE {table}")


def create_index(connection, watcher):
    """Create the index while a second connection watches it grow. Returns the seconds it took."""
    failure = []

    def create():
        try:
            connection.execute(CREATE_INDEX)
        except Exception as error:
            failure.append(error)

    started = time.monotonic()
    thread = threading.Thread(target=create, daemon=True)
    thread.start()
    progress = Progress(lasting=True)
    try:
        while thread.is_alive():
            row = watcher.execute("""SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total
                                     FROM pg_stat_progress_create_index""").fetchone()
            if row:
                phase, blocks_done, blocks_total, tuples_done, tuples_total = row
                done, total = (tuples_done, tuples_total) if tuples_total else (blocks_done, blocks_total)
                progress.show(phase, done, total)
            thread.join(0.1)
    except BaseException:
        connection.cancel()
        thread.join(10)
        raise
    progress.finish()
    if failure:
        raise failure[0]
    return time.monotonic() - started


def run_timed(connection, sql, queries, what, warm_up=10):
    """Run the statement once for each query. Returns the rows of each, and the seconds of each."""
    for query in queries[:warm_up]:
        connection.execute(sql, (query,), prepare=True, binary=True).fetchall()
    rows, seconds, progress = [], [], Progress()
    for i, query in enumerate(queries):
        started = time.perf_counter()
        rows.append(connection.execute(sql, (query,), prepare=True, binary=True).fetchall())
        seconds.append(time.perf_counter() - started)
        if i % 10 == 0:
            progress.show(what, i, len(queries))
    progress.finish()
    return rows, np.array(seconds)


class Truth:
    """Exact squared distances: the pixels are whole numbers, so there is no rounding in 64-bit floats."""

    def __init__(self, images, queries):
        self.images, self.queries = images, queries

    def of_all(self, query_range):
        """The squared distances of these queries to all images."""
        queries = self.queries[query_range].astype(np.float64)
        squared = np.empty((len(queries), len(self.images)))
        for start in range(0, len(self.images), 10_000):
            block = self.images[start:start + 10_000].astype(np.float64)
            squared[:, start:start + 10_000] = np.square(block).sum(1) - 2 * queries @ block.T
        return squared + np.square(queries).sum(1)[:, None]

    def of_rows(self, query, ids):
        """The squared distances of one query to these images."""
        return np.square(self.images[ids].astype(np.float64) - self.queries[query]).sum(1)


def nearest(squared):
    """The K smallest of each row, in order: their columns and their values."""
    columns = np.argpartition(squared, K, axis=1)[:, :K]
    values = np.take_along_axis(squared, columns, axis=1)
    order = np.argsort(values, axis=1)
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def exact_neighbours(truth, labels):
    """For each query its K nearest images, their squared distances, and those of its K nearest with the filter's label."""
    ids, squared, squared_of_label = [], [], []
    for start in range(0, len(truth.queries), 100):
        block = truth.of_all(slice(start, start + 100))
        for part, found in zip((ids, squared), nearest(block)):
            part.append(found)
        squared_of_label.append(nearest(block[:, labels == FILTER_LABEL])[1])
    return np.concatenate(ids), np.concatenate(squared), np.concatenate(squared_of_label)


def recall(truth, answers, squared):
    """The share of the true neighbours found. A row no farther than the true last neighbour counts: ties are fair."""
    hits = sum((truth.of_rows(i, ids) <= squared[i, -1]).sum() for i, ids in enumerate(answers) if len(ids))
    return hits / (len(answers) * K)


# The contact sheet

def contact_sheet(images, labels, queries, query_labels, answers, path):
    """Draw 12 queries, one a row, each with its neighbours: green frames have the query's label, red ones another."""
    shown = [int(np.flatnonzero(query_labels == label)[0]) for label in range(len(fashion.LABELS))]
    shown += [i for i in range(len(queries)) if i not in shown][:2]
    tile, gap, caption, left, top = 3 * fashion.SIDE, 12, 18, 26, 92
    step_x, step_y = tile + gap, tile + caption + gap
    gutter = 30  # between a query and its neighbours
    sheet = Image.new("RGB", (2 * left + 11 * step_x - gap + gutter, top + len(shown) * step_y + left), "#f7f7f5")
    draw = ImageDraw.Draw(sheet)
    title, normal, small = (ImageFont.load_default(size) for size in (24, 15, 12))
    draw.text((left, 20), "Fashion-MNIST by SQL: each query and its 10 nearest of 60,000 images", "#222222", title)
    draw.text((left, 62), "query", "#222222", normal)
    draw.text((left + step_x + gutter, 62), f"SELECT id FROM items ORDER BY embedding <-> query LIMIT {K}"
              "     green: same label, red: another", "#666666", normal)

    def place(pixels, x, y, frame, text):
        picture = Image.fromarray(255 - pixels.reshape(fashion.SIDE, fashion.SIDE)).resize((tile, tile), Image.LANCZOS)
        draw.rectangle((x - 3, y - 3, x + tile + 2, y + tile + 2), fill=frame)
        sheet.paste(picture.convert("RGB"), (x, y))
        draw.text((x + tile / 2, y + tile + 5), text, "#444444", small, anchor="ma")

    for row, query in enumerate(shown):
        y = top + row * step_y
        place(queries[query], left, y, "#333333", fashion.LABELS[query_labels[query]])
        for column, neighbour in enumerate(answers[query]):
            same = labels[neighbour] == query_labels[query]
            place(images[neighbour], left + (column + 1) * step_x + gutter, y,
                  "#3aa655" if same else "#d1495b", fashion.LABELS[labels[neighbour]])
    path.parent.mkdir(exist_ok=True)
    sheet.save(path)


# The whole

def print_results(exact_seconds, index_seconds, exact_recall, index_recall):
    def milliseconds(seconds, quantile):
        return f"{np.quantile(seconds, quantile) * 1000:,.2f} ms"

    def rate(seconds):
        return 1 / seconds.mean()

    speedup = rate(index_seconds) / rate(exact_seconds)
    rows = [
        ("", "exact search", "with ivflsh"),
        (f"recall@{K}", f"{exact_recall:.4f}", f"{index_recall:.4f}"),
        ("latency, median (p50)", milliseconds(exact_seconds, 0.5), milliseconds(index_seconds, 0.5)),
        ("latency, p99", milliseconds(exact_seconds, 0.99), milliseconds(index_seconds, 0.99)),
        ("queries per second", f"{rate(exact_seconds):,.1f}", f"{rate(index_seconds):,.1f}"),
        ("queries measured", f"{len(exact_seconds):,}", f"{len(index_seconds):,}"),
    ]
    for name, exact, index in rows:
        line = f"   {name:<26}{exact:>16}{index:>16}"
        if name == "queries per second":
            line += bold(f"   {speedup:,.0f} times faster")
        print(bold(line) if not name else line)
    return speedup


def demonstrate(cluster, arguments, checks):
    images, labels = fashion.load("train")
    queries, query_labels = (part[:arguments.queries] for part in fashion.load("t10k"))
    query_vectors = list(queries.astype(np.float32))

    cluster.create_database(DATABASE, "vector_ext")
    connection, watcher = cluster.connect(DATABASE), cluster.connect(DATABASE)
    register_vector(connection)
    version = connection.execute("SHOW server_version").fetchone()[0]
    detail(f"PostgreSQL {version}, in {cluster.folder}")

    heading(f"2  Load {len(images):,} images, each a vector of its {images.shape[1]} pixels")
    started = time.monotonic()
    load(connection, images, labels, queries, query_labels)
    detail(f"loaded and analyzed in {time.monotonic() - started:.1f} s")

    heading("3  Create the index")
    detail(f"{CREATE_INDEX};")
    build_seconds = create_index(connection, watcher)
    index_size, table_size = connection.execute(
        "SELECT pg_relation_size(%s::regclass), pg_table_size('items')", (INDEX,)).fetchone()
    detail(f"built in {build_seconds:.1f} s: {megabytes(index_size)}, "
           f"which is {index_size / table_size:.0%} of the table's {megabytes(table_size)}")

    heading("4  The plan of a query")
    plan = "\n".join(row[0] for row in connection.execute(EXPLAIN))
    detail(plan)
    checks.expect(f"Index Scan using {INDEX}" in plan and "Order By:" in plan,
                  "the planner takes the index, without being told to")

    heading(f"5  Ask for the {K} nearest of {len(queries):,} images that are not in the table")
    index_rows, index_seconds = run_timed(connection, NEAREST, query_vectors, "with the index, default settings")
    exact = cluster.connect(DATABASE)
    register_vector(exact)
    exact.execute("SET enable_indexscan = off")
    exact_rows, exact_seconds = run_timed(exact, NEAREST, query_vectors[:arguments.exact], "exact search", 2)
    progress = Progress()
    progress.show("exact neighbours of all queries, by NumPy, to compare with")
    truth = Truth(images, queries)
    true_ids, true_squared, true_squared_of_label = exact_neighbours(truth, labels)
    progress.finish()

    answers = [[row[0] for row in rows] for rows in index_rows]
    index_recall = recall(truth, answers, true_squared)
    exact_answers = [[row[0] for row in rows] for rows in exact_rows]
    exact_recall = recall(truth, exact_answers, true_squared)
    print()
    speedup = print_results(exact_seconds, index_seconds, exact_recall, index_recall)
    same_label = np.mean([row[1] == query_labels[i] for i, rows in enumerate(index_rows) for row in rows])
    exact_same = (labels[true_ids] == query_labels[:, None]).mean()
    print(f"   {'neighbours of same label':<26}{exact_same:>16.1%}{same_label:>16.1%}")
    detail("\nOne connection, prepared statement, binary vectors, all in memory; latency as the client sees it.")

    heading("6  What the index promises")
    checks.expect(index_recall >= MINIMUM_RECALL, f"recall@{K} is {index_recall:.4f}, at least {MINIMUM_RECALL}")
    checks.expect(speedup >= MINIMUM_SPEEDUP, f"{speedup:,.0f} times the queries per second of exact search, "
                  f"at least {MINIMUM_SPEEDUP}")
    agree = sum(np.allclose(truth.of_rows(i, ids), true_squared[i], rtol=1e-5) for i, ids in enumerate(exact_answers))
    checks.expect(agree == len(exact_rows), f"{agree:,} of {len(exact_rows):,} queries: exact search by SQL and by NumPy "
                  "find the same")
    check_distances(connection, query_vectors, truth, answers, checks)
    check_filter(connection, query_vectors, truth, true_squared_of_label, checks)

    contact_sheet(images, labels, queries, query_labels, answers, SHEET)


def check_distances(connection, query_vectors, truth, answers, checks):
    """The distances that come with the rows are the operator's, they are true, and they never decrease."""
    ordered = equal = true = same_rows = 0
    progress = Progress()
    for i, query in enumerate(query_vectors):
        rows = connection.execute(NEAREST_WITH_DISTANCE, (query, query), prepare=True, binary=True).fetchall()
        ids, distances = [row[0] for row in rows], [row[1] for row in rows]
        ordered += len(rows) == K and all(a <= b for a, b in zip(distances, distances[1:]))
        equal += dict(rows) == dict(connection.execute(DISTANCES_OF, (query, ids), prepare=True, binary=True).fetchall())
        true += np.allclose(distances, np.sqrt(truth.of_rows(i, ids)), rtol=1e-5)
        same_rows += ids == answers[i]
        progress.show("checking distances", i, len(query_vectors))
    progress.finish()
    n = len(query_vectors)
    checks.expect(ordered == n, f"{ordered:,} of {n:,} queries: {K} rows, distances non-decreasing")
    checks.expect(equal == n, f"{equal:,} of {n:,} queries: distances exactly those of the SQL operator <->")
    checks.expect(true == n, f"{true:,} of {n:,} queries: and those agree with NumPy")
    checks.expect(same_rows == n, f"{same_rows:,} of {n:,} queries: asked again, the same rows in the same order")


def check_filter(connection, query_vectors, truth, true_squared, checks):
    """A WHERE clause never leaves the LIMIT unfilled."""
    plan = "\n".join(row[0] for row in connection.execute("EXPLAIN " + NEAREST_OF_LABEL, (query_vectors[0],) * 2))
    chosen = "the index" if INDEX in plan else "exact search"
    filled, answers, progress = 0, [], Progress()
    for i, query in enumerate(query_vectors):
        rows = connection.execute(NEAREST_OF_LABEL, (query, query), prepare=True, binary=True).fetchall()
        distances = [row[2] for row in rows]
        filled += (len(rows) == K and all(row[1] == FILTER_LABEL for row in rows)
                   and all(a <= b for a, b in zip(distances, distances[1:])))
        answers.append([row[0] for row in rows])
        progress.show(f"WHERE label = {FILTER_LABEL}", i, len(query_vectors))
    progress.finish()
    found = recall(truth, answers, true_squared)
    checks.expect(filled == len(query_vectors), f"{filled:,} of {len(query_vectors):,} queries with "
                  f"WHERE label = {FILTER_LABEL}: {K} such rows, in order\n           (the planner chose {chosen}; recall@{K} {found:.4f})")


def print_where_to_go(cluster, keep):
    heading("See for yourself")
    detail(f"the look-alikes:  {SHEET}")
    if not keep:
        detail("the server:       stopped and removed; `make demo KEEP=1` leaves it running for you")
        return
    detail(f"the server:       {cluster.psql_line(DATABASE)}\n\n{BY_HAND}\n\n`make demo-stop` stops and removes it.")
    KEPT.parent.mkdir(exist_ok=True)
    with open(KEPT, "a") as file:
        file.write(f"{cluster.pg_config}\t{cluster.folder}\n")


def stop_kept():
    """Stop and remove the servers that earlier runs left running."""
    for line in KEPT.read_text().splitlines() if KEPT.exists() else []:
        pg_config, folder = line.split("\t")
        if Path(folder).exists():
            Cluster(pg_config).adopt(folder).destroy()
            print(f"stopped and removed {folder}")
    KEPT.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the server running")
    parser.add_argument("--stop", action="store_true", help="stop the servers that were left running, do nothing else")
    parser.add_argument("--queries", type=int, default=1000, help="how many queries to ask")
    parser.add_argument("--exact", type=int, default=100, help="how many of them to ask without the index too")
    arguments = parser.parse_args()
    if arguments.stop:
        return stop_kept()

    exit_on_signals()
    checks = Checks()
    print(bold("vector_ext: find look-alikes by SQL"))
    heading("1  Start a throwaway server")
    with Cluster(settings=SETTINGS) as cluster:
        demonstrate(cluster, arguments, checks)
        print_where_to_go(cluster, arguments.keep)
        if arguments.keep:
            cluster.keep()
    if checks.failed:
        sys.exit(f"\n{checks.failed} of the promises above did not hold")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the server is stopped and removed")
