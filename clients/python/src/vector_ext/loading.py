"""Arrays into tables."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.rows import tuple_row

from . import arrays, wire
from .errors import LoadError

PIECE = 1 << 17  # bytes of vectors that are encoded at a time: fewer than a socket holds, so that the server is not kept waiting
COMMIT_EVERY = 100_000
PROGRESS_TABLE = "vector_ext_loads"

Connection = psycopg.Connection[Any]
Columns = Mapping[str, Any] | Sequence[str]


def identifier(name: str) -> sql.Identifier:
    """`table` or `schema.table`. Names with a dot in them are not for this."""
    return sql.Identifier(*name.split("."))


def tuples(connection: Connection) -> psycopg.Cursor[tuple[Any, ...]]:
    """A cursor whose rows are tuples, whatever the connection makes of rows."""
    return connection.cursor(row_factory=tuple_row)


def load(connection: Connection, table: str, vectors: Any, columns: Columns | None = None, *, column: str = "embedding",
         source: str | None = None, progress: bool | Callable[[int], object] = False, resume: str | None = None,
         commit_every: int = COMMIT_EVERY) -> int:
    """Copies vectors into a table, and returns how many rows are there now by this load.

    `vectors`: an array, a matrix of scipy.sparse, a tensor, a column of Arrow or of a data frame; or a table that has such a column,
    named `source` (or else as `column`); or an iterable of batches, each of which is one of these or a pair of vectors and columns.
    `columns`: for other columns of the table their values, of which those of a vector type are arrays as well; of a table, the names of
    those to take.

    All rows are loaded or none: in one transaction, or within the connection's own if it has begun one. With `resume`, a name for this
    load, `commit_every` rows at a time are, and a later call with that name goes on behind them; batches have to be the same then.

    `progress`: a bar (needs tqdm), or a function that is told each time how many more rows there are.
    """
    if commit_every < 1:
        raise ValueError("commit_every has to be 1 or more")
    batches = _batches(vectors, columns, source or column)
    with _reporter(progress, len(vectors) if arrays.is_array(vectors) and not arrays.is_table(vectors) and not arrays.is_sparse(vectors)
                   and not _holds_batches(vectors) else None) as report:
        if resume is not None:
            return _load_in_parts(connection, table, column, batches, report, resume, commit_every)
        with connection.transaction():
            return _Target(connection, table, column).copy(batches, 0, report)


# Where the rows come from

Batch = tuple[Any, Mapping[str, Any]]


def _holds_batches(vectors: Any) -> bool:
    return isinstance(vectors, (list, tuple)) and any(isinstance(batch, tuple) for batch in vectors[:1])


def _batches(vectors: Any, columns: Columns | None, source: str) -> Iterator[Batch]:
    """Each batch with its columns."""
    if arrays.is_sparse(vectors) or (arrays.is_array(vectors) and not _holds_batches(vectors)) or arrays.is_table(vectors):
        yield _batch(vectors, columns, source)
        return
    if not isinstance(vectors, Iterable) or hasattr(vectors, "__array__"):  # a variable of TensorFlow has no length
        yield _batch(vectors, columns, source)  # says what is wrong with it, if it is not of DLPack
        return
    if isinstance(columns, Mapping):
        raise LoadError("batches have their columns with them: yield pairs of vectors and columns")
    for batch in vectors:
        yield _batch(*batch, source) if isinstance(batch, tuple) and len(batch) == 2 else _batch(batch, columns, source)


def _batch(vectors: Any, columns: Columns | None, source: str) -> Batch:
    if arrays.is_table(vectors):
        names = arrays.column_names(vectors)
        if isinstance(columns, Mapping):
            return vectors[source], columns
        for name in (source, *(columns or ())):
            if name not in names:
                raise LoadError(f"there is no column {name} among {', '.join(names)}")
        return vectors[source], {name: vectors[name] for name in columns or ()}
    if columns is not None and not isinstance(columns, Mapping):
        raise LoadError("names of columns are for tables: give a mapping of names to values")
    return vectors, columns or {}


def _rows(vectors: Any) -> int | None:
    """How many rows a batch has, where that is known without reading it."""
    if arrays.is_sparse(vectors):
        return int(vectors.shape[0])
    return len(vectors) if arrays.is_array(vectors) else None


def _pieces(batch: Batch, first: int, skip: int) -> Iterator[tuple[Any, dict[str, Any], int]]:
    """A batch in pieces of about PIECE bytes, behind the rows to skip; with the number of each piece's first row."""
    vectors, columns = batch
    count = _rows(vectors)
    if count is None:
        vectors = arrays.as_matrix(vectors, first)
        count = len(vectors)
    for name, values in columns.items():
        if len(values) != count:
            raise LoadError(f"column {name} has {len(values)} values for {count} vectors")
    shape = getattr(vectors, "shape", ())
    sparse = arrays.is_sparse(vectors)
    if sparse:
        vectors = vectors.tocsr()
    if len(shape) > 1 and not sparse:
        width = math.prod(int(size) for size in shape[1:]) * 4
    elif sparse:
        width = 8 * vectors.nnz // max(count, 1)
    else:
        width = 4096
    step = max(1, PIECE // max(width, 16))
    step = min(step, 8192)
    for at in range(skip, count, step):
        after = min(at + step, count)
        yield arrays.part(vectors, at, after), {name: arrays.part(values, at, after) for name, values in columns.items()}, first + at


class _Source:
    """Rows in order, of which some can be skipped and some be left for the next transaction."""

    def __init__(self, batches: Iterator[Batch], skip: int) -> None:
        self.pieces = self._all(batches, skip)
        self.left: tuple[Any, dict[str, Any], int] | None = None

    def _all(self, batches: Iterator[Batch], skip: int) -> Iterator[tuple[Any, dict[str, Any], int]]:
        first = 0
        for batch in batches:
            count = _rows(batch[0])
            if count is None:
                batch = arrays.as_matrix(batch[0], first), batch[1]
                count = len(batch[0])
            if first + count > skip:
                yield from _pieces(batch, first, max(0, skip - first))
            elif any(len(values) != count for values in batch[1].values()):
                yield from _pieces(batch, first, 0)  # says so
            first += count
        if first < skip:
            raise LoadError(f"{skip} rows are loaded already, but there are only {first}")

    def up_to(self, rows: int) -> Iterator[tuple[Any, dict[str, Any], int]]:
        """The next so many rows."""
        while rows > 0:
            piece = self.left or next(self.pieces, None)
            self.left = None
            if piece is None:
                return
            vectors, columns, first = piece
            count = _rows(vectors) or 0
            if count > rows:
                self.left = (arrays.part(vectors, rows, count), {name: arrays.part(v, rows, count) for name, v in columns.items()}, first + rows)
                vectors, columns = arrays.part(vectors, 0, rows), {name: arrays.part(v, 0, rows) for name, v in columns.items()}
                count = rows
            rows -= count
            yield vectors, columns, first

    def is_empty(self) -> bool:
        self.left = self.left or next(self.pieces, None)
        return self.left is None


# Where they go


class _Target:
    """A table, and the columns of it that are written."""

    def __init__(self, connection: Connection, table: str, column: str) -> None:
        self.connection, self.table = connection, table
        rows = tuples(connection).execute(
            """SELECT a.attname, CASE t.typtype WHEN 'e' THEN 'enum' ELSE t.typname END, t.oid::int8,
                      CASE d.typtype WHEN 'd' THEN d.typtypmod ELSE a.atttypmod END
               FROM pg_attribute a JOIN pg_type d ON d.oid = a.atttypid
               JOIN pg_type t ON t.oid = CASE d.typtype WHEN 'd' THEN d.typbasetype ELSE d.oid END
               WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped""",
            (identifier(table).as_string(connection),), binary=False).fetchall()
        self.known = {name: wire.Column(name, kind, oid, size if size >= 0 else None) for name, kind, oid, size in rows}
        self.column = self._find(column)
        if self.column.kind not in wire.VECTOR_TYPES:
            raise LoadError(f"column {column} of {table} is a {self.column.kind}, not one of {', '.join(wire.VECTOR_TYPES)}")
        self.transformer = Transformer(connection)

    def _find(self, name: str) -> wire.Column:
        if name not in self.known:
            raise LoadError(f"table {self.table} has no column {name}")
        return self.known[name]

    def _dump(self, column: wire.Column, value: Any) -> bytes | None:
        if column.kind == "numeric" and isinstance(value, float):
            value = Decimal(str(value))  # the shortest digits that are this number; psycopg leaves the choice to its caller
        self.transformer.set_dumper_types([column.oid], pq.Format.BINARY)
        data = self.transformer.dump_sequence([value], [PyFormat.BINARY])[0]
        return None if data is None else bytes(data)

    def _field(self, column: wire.Column, values: Any, first: int) -> wire.Field:
        if column.kind in wire.VECTOR_TYPES and len(getattr(values, "shape", ())) == 2:  # a row may have several vectors
            return wire.vector_field(column, values, first)[0]
        return wire.scalar_field(column, values, first, self._dump)

    def copy(self, batches: Iterator[Batch], skip: int, report: Callable[[int], object], source: _Source | None = None,
             limit: int | None = None) -> int:
        """Copies rows in one statement, and returns how many."""
        source = source or _Source(batches, skip)
        pieces = source.up_to(limit if limit is not None else 1 << 62)
        first_piece = next(pieces, None)
        if first_piece is None:
            return 0
        names = list(first_piece[1])
        others = [self._find(name) for name in names]
        statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT BINARY)").format(
            identifier(self.table), sql.SQL(", ").join(sql.Identifier(name) for name in (*names, self.column.name)))
        begin, done = first_piece[2], 0
        try:
            with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(wire.HEADER)
                for vectors, columns, first in _chain(first_piece, pieces):
                    if list(columns) != names:
                        raise LoadError(f"this batch has the columns {list(columns)}, those before have {names}", first)
                    field, count = wire.vector_field(self.column, vectors, first)
                    fields = [self._field(other, columns[other.name], first) for other in others]
                    copy.write(wire.encode([*fields, field], count))
                    done += count
                    report(count)
                copy.write(wire.TRAILER)
        except psycopg.Error as error:
            raise _named(error, begin) from error
        return done


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _named(error: psycopg.Error, begin: int) -> Exception:
    """The server's error with the number of the row, which COPY counts from 1 from where it began."""
    line = re.search(r"^COPY .*?, line (\d+)", error.diag.context or "", re.MULTILINE)
    if line is None or error.sqlstate is None:
        return error
    reason = error.diag.message_primary or str(error)
    if error.diag.message_detail:
        reason += f" ({error.diag.message_detail})"
    return LoadError(reason, begin + int(line[1]) - 1, error.sqlstate)


def _load_in_parts(connection: Connection, table: str, column: str, batches: Iterator[Batch], report: Callable[[int], object], name: str,
                   commit_every: int) -> int:
    """How far a load is, is a row of a table, which is changed by the transaction that loads."""
    if connection.info.transaction_status != pq.TransactionStatus.IDLE:
        raise LoadError("a load that can be resumed commits: it needs a connection that is in no transaction")
    progress = sql.Identifier(PROGRESS_TABLE)
    with connection.transaction():
        connection.execute(sql.SQL("""CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, target text NOT NULL, rows bigint NOT NULL,
                                      finished boolean NOT NULL, changed timestamptz NOT NULL DEFAULT now())""").format(progress))
        connection.execute(sql.SQL("INSERT INTO {} VALUES (%s, %s, 0, false) ON CONFLICT DO NOTHING").format(progress), (name, f"{table}.{column}"))
    source: _Source | None = None
    rows = 0
    while True:
        with connection.transaction():
            found = tuples(connection).execute(sql.SQL("SELECT target, rows, finished FROM {} WHERE name = %s FOR UPDATE").format(progress),
                                       (name,)).fetchone()
            target, loaded, finished = found or ("nothing", -1, False)
            if target != f"{table}.{column}":
                raise LoadError(f"the load {name} is one into {target}")
            if source is None:
                if finished:
                    return int(loaded)
                source, rows = _Source(batches, loaded), loaded
                report(loaded)
            if loaded != rows or finished:
                raise LoadError(f"another session has gone on with the load {name}")
            rows += _Target(connection, table, column).copy(batches, 0, report, source, commit_every)
            over = source.is_empty()
            connection.execute(sql.SQL("UPDATE {} SET rows = %s, finished = %s, changed = now() WHERE name = %s").format(progress),
                               (rows, over, name))
        if over:
            return rows


# Progress


class _reporter:
    """What is called with the number of rows that have gone."""

    def __init__(self, progress: bool | Callable[[int], object], total: int | None) -> None:
        self.bar: Any = None
        self.report: Callable[[int], object] = lambda rows: None
        if callable(progress):
            self.report = progress
        elif progress:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=total, unit=" rows", unit_scale=True)
            self.report = self.bar.update

    def __enter__(self) -> Callable[[int], object]:
        return self.report

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
