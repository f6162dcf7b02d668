"""Rows in the form of PostgreSQL's binary COPY, many at a time.

A row is the number of its fields, and of each field its length and its bytes; -1 is the length of NULL. All numbers are big-endian.
Where all fields of all rows have one length, the rows are one structured array of NumPy, and no row is touched by Python.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array, as_matrix, is_sparse
from .errors import LoadError

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
MAX_DIMENSIONS = 16_000
VECTOR_TYPES = ("vector", "halfvec", "sparsevec", "bit", "varbit")

NULL = b"\xff\xff\xff\xff"
INTEGERS = {"int2": ">i2", "int4": ">i4", "int8": ">i8"}
FLOATS = {"float4": ">f4", "float8": ">f8"}
TEXTS = ("text", "varchar", "bpchar", "json", "enum")
EPOCH = "2000-01-01"


@dataclass(frozen=True)
class Column:
    """A column of the table. `size`: the dimensions or bits that a vector's type is declared with, None for any."""

    name: str
    kind: str
    oid: int
    size: int | None = None


@dataclass
class Fixed:
    """A field that has one length in all rows: `start`, the same in all of them, and an array of the rest, one item or row for each."""

    data: Array
    start: bytes = b""


Field = Fixed | list[bytes]  # in a list, each has its length before it
Dump = Callable[[Column, Any], "bytes | None"]


def encode(fields: Sequence[Field], count: int) -> bytes:
    """The rows that these fields make."""
    groups = [(fixed, list(group)) for fixed, group in itertools.groupby(fields, lambda field: isinstance(field, Fixed))]
    if len(groups) == 1 and groups[0][0]:
        return _records(groups[0][1], count, len(fields)).tobytes()
    pieces: list[list[bytes]] = []
    for i, (fixed, group) in enumerate(groups):
        if fixed:  # neighbours are one piece of each row
            records = _records(group, count, len(fields) if i == 0 else None)
            data, size = records.tobytes(), records.itemsize
            pieces.append([data[at:at + size] for at in range(0, len(data), size)])
        else:
            if i == 0:
                pieces.append([len(fields).to_bytes(2, "big")] * count)
            pieces.extend(field for field in group if isinstance(field, list))
    return b"".join(itertools.chain.from_iterable(zip(*pieces, strict=True)))


def _records(fields: Sequence[Field], count: int, total: int | None) -> Array:
    """Fixed fields of all rows; `total`: how many fields a row has, where these are its first."""
    members: list[tuple[str, Any]] = [] if total is None else [("fields", ">i2")]
    fixed = [field for field in fields if isinstance(field, Fixed)]
    for i, field in enumerate(fixed):
        members.append((f"length{i}", ">i4"))
        if field.start:
            members.append((f"start{i}", "u1", (len(field.start),)))  # type: ignore[arg-type]
        members.append((f"data{i}", field.data.dtype.newbyteorder(">"), field.data.shape[1:]))  # type: ignore[arg-type]
    records = np.empty(count, members)
    if total is not None:
        records["fields"] = total
    for i, field in enumerate(fixed):
        records[f"length{i}"] = records.dtype[f"data{i}"].itemsize + len(field.start)
        if field.start:
            records[f"start{i}"] = np.frombuffer(field.start, np.uint8)
        records[f"data{i}"] = field.data
    return records


def _first(wrong: Array) -> int:
    """The first row in which something is wrong."""
    return int(np.argmax(wrong.any(axis=1) if wrong.ndim > 1 else wrong))


# Vectors


def vector_field(column: Column, source: Any, first: int) -> tuple[Field, int]:
    """Vectors for a column of their type, and how many there are. `first`: the number of the first, for messages."""
    if column.kind == "sparsevec":
        return _sparse_field(column, source, first)
    if is_sparse(source):
        source = source.toarray()
    matrix = as_matrix(source, first)
    if column.kind in ("bit", "varbit"):
        return _bit_field(column, matrix), len(matrix)
    _check_dimensions(column, matrix.shape[1], len(matrix))
    narrow = _narrowed(column, matrix, np.float16 if column.kind == "halfvec" else np.float32, first)
    start = matrix.shape[1].to_bytes(2, "big") + bytes(2)
    return Fixed(narrow, start), len(matrix)


def _check_dimensions(column: Column, dimensions: int, count: int) -> None:
    if count == 0:
        return
    if column.size is not None and dimensions != column.size:
        raise LoadError(f"column {column.name} has {column.size} dimensions, the vectors have {dimensions}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise LoadError(f"a {column.kind} has 1 to {MAX_DIMENSIONS} dimensions, these vectors have {dimensions}")


def _narrowed(column: Column, values: Array, number: type[np.floating[Any]], first: int) -> Array:
    """The values as the type stores them: finite ones only. A value too large for the type is an error, not infinity."""
    with np.errstate(over="ignore"):
        narrow = values.astype(number, copy=False)
    finite = np.isfinite(narrow)
    if not finite.all():
        row = _first(~finite)
        position = int(np.argmin(finite[row])) if finite.ndim > 1 else row
        value = values[row, position] if finite.ndim > 1 else values[row]
        what = "is not a finite number" if not np.isfinite(value) else f"is out of range for {column.kind}"
        raise LoadError(f"{value} at position {position} {what}", first + row)
    return narrow


def _bit_field(column: Column, matrix: Array) -> Field:
    """Booleans are bits; bytes are eight of them each, the first one the highest."""
    size = column.size
    if matrix.dtype == bool:
        bits = matrix.shape[1]
        if size is not None and len(matrix) and bits != size and (column.kind == "bit" or bits > size):
            raise LoadError(f"column {column.name} has {size} bits, the vectors have {bits}")
        matrix = np.packbits(matrix, axis=1)
    elif matrix.dtype == np.uint8:
        bits = 8 * matrix.shape[1]
        if size is not None and len(matrix):
            if matrix.shape[1] != -(-size // 8):
                raise LoadError(f"column {column.name} has {size} bits, the vectors have {matrix.shape[1]} bytes")
            if size < bits:
                matrix = matrix & np.array([255] * (matrix.shape[1] - 1) + [255 << (bits - size) & 255], np.uint8)
            bits = size
    else:
        raise LoadError(f"{column.kind} wants booleans, or bytes of eight bits each (uint8), not {matrix.dtype}")
    return Fixed(matrix, bits.to_bytes(4, "big"))


def _sparse_field(column: Column, source: Any, first: int) -> tuple[Field, int]:
    if is_sparse(source):
        rows = source.tocsr()
        if not rows.has_canonical_format or (rows.data == 0).any():
            rows = rows.copy()  # the caller's stays as it is
            rows.sum_duplicates()
            rows.eliminate_zeros()
        count, dimensions = rows.shape
        limits, indices, values = rows.indptr, rows.indices, rows.data
    else:
        matrix = as_matrix(source, first)
        count, dimensions = matrix.shape
        of_row, indices = np.nonzero(matrix)
        values = matrix[of_row, indices]
        limits = np.searchsorted(of_row, np.arange(count + 1))
    if count and column.size is not None and dimensions != column.size:
        raise LoadError(f"column {column.name} has {column.size} dimensions, the vectors have {dimensions}")
    with np.errstate(over="ignore"):
        narrow = values.astype(">f4")
    wrong = ~np.isfinite(narrow)
    if wrong.any():
        at = int(np.argmax(wrong))
        row = int(np.searchsorted(limits, at, side="right")) - 1
        raise LoadError(f"{values[at]} at position {indices[at]} is not a finite number that sparsevec can hold", first + row)
    wanted = narrow != 0  # too small for float32: sparsevec stores no zeros
    if not wanted.all():
        kept = np.concatenate([[0], np.cumsum(wanted)])
        limits, indices, narrow = kept[limits], indices[wanted], narrow[wanted]
    index_bytes, value_bytes = indices.astype(">i4").tobytes(), narrow.tobytes()
    held = np.diff(limits)
    heads = np.zeros((count, 4), ">i4")
    heads[:, 0], heads[:, 1], heads[:, 2] = 12 + 8 * held, dimensions, held
    head_bytes, ends = heads.tobytes(), (limits * 4).tolist()
    return [head_bytes[16 * i:16 * i + 16] + index_bytes[a:b] + value_bytes[a:b]
            for i, (a, b) in enumerate(itertools.pairwise(ends))], count


# Other columns


def scalar_field(column: Column, values: Any, first: int, dump: Dump) -> Field:
    """Values for a column of any other type. `dump`: what the database driver makes of one value, for types that are not known here."""
    if hasattr(values, "to_pylist"):
        values = values.to_pylist()
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values) if not isinstance(values, (list, tuple)) else None
    if array is None and values and column.kind in (*INTEGERS, *FLOATS, "bool") and type(values[0]) in (int, float, bool):
        if all(type(value) is type(values[0]) for value in values):
            array = np.asarray(values)
    if array is not None and array.ndim == 1:
        fixed = _fixed_scalars(column, array, first)
        if fixed is not None:
            return fixed
        values = array.tolist() if array.dtype.kind != "M" else array.astype("datetime64[us]").tolist()
    if column.kind in TEXTS:
        return [_text(column, value, i) for i, value in enumerate(values, first)]
    out = []
    for i, value in enumerate(values, first):
        if value is None or value != value:  # NaN and NaT are how data frames say NULL
            if not (column.kind in FLOATS and isinstance(value, float)):
                out.append(NULL)
                continue
        try:
            data = dump(column, value)
        except Exception as error:
            raise LoadError(f"column {column.name}: {error}", i) from error
        out.append(NULL if data is None else len(data).to_bytes(4, "big") + data)
    return out


def _fixed_scalars(column: Column, array: Array, first: int) -> Fixed | None:
    """Numbers, booleans and times by NumPy; None where something is not of these, or NULL."""
    if column.kind in INTEGERS and array.dtype.kind in "iu":
        limits = np.iinfo(INTEGERS[column.kind])
        wrong = (array < limits.min) | (array > limits.max)
        if wrong.any():
            row = _first(wrong)
            raise LoadError(f"column {column.name}: {array[row]} is out of range for {column.kind}", first + row)
        return Fixed(array.astype(INTEGERS[column.kind]))
    if column.kind in FLOATS and array.dtype.kind in "fiu":
        with np.errstate(over="ignore"):
            narrow = array.astype(FLOATS[column.kind])
        wrong = np.isinf(narrow) & np.isfinite(array)
        if wrong.any():
            row = _first(wrong)
            raise LoadError(f"column {column.name}: {array[row]} is out of range for {column.kind}", first + row)
        return Fixed(narrow)
    if column.kind == "bool" and array.dtype == bool:
        return Fixed(array.view(np.uint8))
    if column.kind in ("timestamp", "timestamptz", "date") and array.dtype.kind == "M" and not np.isnat(array).any():
        if column.kind == "date":
            return Fixed((array.astype("datetime64[D]") - np.datetime64(EPOCH, "D")).astype(">i4"))
        return Fixed((array.astype("datetime64[us]") - np.datetime64(EPOCH, "us")).astype(">i8"))
    return None


def _text(column: Column, value: Any, row: int) -> bytes:
    if value is None or value != value:
        return NULL
    if not isinstance(value, str):
        raise LoadError(f"column {column.name}: {type(value).__name__} is not a text", row)
    data = value.encode()
    if b"\0" in data:
        raise LoadError(f"column {column.name}: PostgreSQL's texts cannot hold a NUL byte", row)
    return len(data).to_bytes(4, "big") + data
