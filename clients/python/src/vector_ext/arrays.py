"""Vectors of other libraries as NumPy arrays, without importing those libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import LoadError

Array = NDArray[Any]


def is_sparse(source: Any) -> bool:
    """Whether this is a matrix (or array) of scipy.sparse."""
    return hasattr(source, "tocsr") and hasattr(source, "nnz")


def is_table(source: Any) -> bool:
    """Whether this has named columns: a table of Arrow, a data frame, a data set of Hugging Face."""
    return hasattr(source, "column_names") or (hasattr(source, "columns") and hasattr(source, "__getitem__"))


def column_names(table: Any) -> list[str]:
    """The names of a table's columns."""
    names = table.column_names if hasattr(table, "column_names") else table.columns
    return [str(name) for name in names]


def is_array(source: Any) -> bool:
    """Whether this holds all its rows, so that parts of it can be taken; otherwise it is asked for one batch after another."""
    return hasattr(source, "__len__") and hasattr(source, "__getitem__")


def part(source: Any, first: int, after: int) -> Any:
    """Rows first to after - 1 of an array, a matrix, a list or a column."""
    if hasattr(source, "iloc"):  # pandas: [] goes by labels
        return source.iloc[first:after]
    return source[first:after]


def as_matrix(source: Any, first: int = 0) -> Array:
    """An array with one row for each vector. `first` is the number of its first row, for messages."""
    array = _as_array(source)
    if array.dtype.name == "bfloat16":  # NumPy knows it only by an extension
        array = array.astype(np.float32)
    if array.dtype == object:
        array = _stack(array, first)
    if array.ndim != 2:
        raise LoadError(f"vectors have to be an array of rows and columns, not one of {array.ndim} dimensions")
    if array.dtype.kind not in "fiub":
        raise LoadError(f"vectors cannot be of type {array.dtype}")
    return array


def _as_array(source: Any) -> Array:
    if isinstance(source, np.ndarray):
        return source
    if type(source).__module__.partition(".")[0] == "pyarrow":
        return _from_arrow(source)
    if hasattr(source, "detach"):  # PyTorch: neither a gradient nor another device's memory is NumPy's business
        source = source.detach().cpu()
        if str(source.dtype) == "torch.bfloat16":
            source = source.float()
        return np.asarray(source.numpy())
    if hasattr(source, "to_numpy"):  # pandas, Polars
        return np.asarray(source.to_numpy())
    if hasattr(source, "__array__"):
        return np.asarray(source)
    if hasattr(source, "__dlpack__"):
        return np.from_dlpack(source)
    if isinstance(source, (list, tuple)):
        rows = np.empty(len(source), object)
        for i, row in enumerate(source):
            rows[i] = row
        return rows
    raise LoadError(f"cannot read vectors from {type(source).__module__}.{type(source).__qualname__}")


def _from_arrow(source: Any) -> Array:
    """Arrow's lists of a fixed size lie one behind another: no row is looked at by itself. Others are, by Python."""
    if hasattr(source, "combine_chunks"):
        source = source.combine_chunks()
        if hasattr(source, "chunks"):
            source = source.chunk(0) if source.num_chunks else source
    size = getattr(source.type, "list_size", None)
    if size and source.null_count == 0 and len(source):
        values = source.flatten()
        if values.null_count == 0:
            return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(source), size)
    return _as_array(source.to_pylist())


def _stack(rows: Array, first: int) -> Array:
    """One array out of rows that are arrays or lists themselves."""
    if rows.ndim == 2:  # of objects: numbers of several types, or None
        rows = np.fromiter((list(row) for row in rows), object, len(rows))
    stacked: list[Array] = []
    for i, row in enumerate(rows, first):
        if row is None:
            raise LoadError("there is no vector", i)
        try:
            vector = np.asarray(row)
        except ValueError as error:
            raise LoadError(f"not a vector: {error}", i) from None
        if vector.ndim != 1 or vector.dtype.kind not in "fiub":
            raise LoadError(f"not a vector of numbers: {str(row)[:60]}", i)
        if stacked and len(vector) != len(stacked[0]):
            raise LoadError(f"{len(vector)} dimensions, but {len(stacked[0])} in the rows before", i)
        stacked.append(vector)
    if not stacked:
        return np.empty((0, 0), np.float32)
    return np.stack(stacked)
