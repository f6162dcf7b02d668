"""Tables into arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from psycopg import sql
from psycopg.pq import TransactionStatus

from . import wire
from .arrays import Array
from .loading import Connection, identifier

NUMBERS = {"vector": np.dtype(">f4"), "halfvec": np.dtype(">f2")}
PART = 4 << 20


def export_batches(connection: Connection, table: str, *, column: str = "embedding", id: str = "id",
                   where: str | sql.Composable | None = None) -> Iterator[tuple[Array, Array]]:
    """Ids (bigint) and vectors of a table, some megabytes at a time. Rows without a vector are left out. `where`: SQL."""
    # Its columns' types are asked for as those of a load are.
    from .loading import _Target

    own = connection.info.transaction_status == TransactionStatus.IDLE and not connection.autocommit
    kind = _Target(connection, table, column).column.kind
    if own:
        connection.rollback()  # has only asked
    if kind not in NUMBERS:
        raise ValueError(f"column {column} of {table} is a {kind}: only vector and halfvec are exported")
    name, number = sql.Identifier(column), NUMBERS[kind]
    condition = sql.SQL("" if where is None else "AND ({})").format(*(
        [] if where is None else [sql.SQL(where) if isinstance(where, str) else where]))
    statement = sql.SQL("COPY (SELECT {}::int8, {} FROM {} WHERE {} IS NOT NULL {}) TO STDOUT WITH (FORMAT BINARY)").format(
        sql.Identifier(id), name, identifier(table), name, condition)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        held: list[bytes] = []
        size = 0
        dimensions: int | None = None
        start = len(wire.HEADER)
        for data in copy:
            data = bytes(data)[start:]
            start = 0
            if len(data) <= 2:  # the end: a row is never so short
                continue
            if dimensions is None and data:
                dimensions = int.from_bytes(data[18:20], "big")
            held.append(data)
            size += len(data)
            if size >= PART:
                yield _decoded(b"".join(held), dimensions or 0, number)
                held, size = [], 0
        if size:
            yield _decoded(b"".join(held), dimensions or 0, number)


def _decoded(data: bytes, dimensions: int, number: Any) -> tuple[Array, Array]:
    record = np.dtype([("fields", ">i2"), ("id_length", ">i4"), ("id", ">i8"), ("length", ">i4"), ("dimensions", ">u2"), ("unused", ">u2"),
                       ("numbers", number, (dimensions,))])
    if len(data) % record.itemsize:
        raise ValueError("the vectors have different dimensions: choose those of one by `where`")
    rows = np.frombuffer(data, record)
    if (rows["fields"] != 2).any() or (rows["id_length"] != 8).any() or (rows["dimensions"] != dimensions).any():
        raise ValueError("ids are NULL, or the vectors have different dimensions: choose those of one by `where`")
    return rows["id"].astype(np.int64), rows["numbers"].astype(number.newbyteorder("="))


def export(connection: Connection, table: str, *, column: str = "embedding", id: str = "id",
           where: str | sql.Composable | None = None) -> tuple[Array, Array]:
    """Ids and vectors of a table, as two arrays."""
    parts = list(export_batches(connection, table, column=column, id=id, where=where))
    if not parts:
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    if len({vectors.shape[1] for _, vectors in parts}) > 1:
        raise ValueError("the vectors have different dimensions: choose those of one by `where`")
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([vectors for _, vectors in parts])


def export_arrow(connection: Connection, table: str, *, column: str = "embedding", id: str = "id",
                 where: str | sql.Composable | None = None) -> Any:
    """The same as a table of Arrow (needs pyarrow)."""
    import pyarrow as pa

    ids, vectors = export(connection, table, column=column, id=id, where=where)
    flat = pa.array(vectors.reshape(-1))
    return pa.table({id: ids, column: pa.FixedSizeListArray.from_arrays(flat, max(vectors.shape[1], 1))})
