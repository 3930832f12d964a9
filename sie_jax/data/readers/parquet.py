"""Parquet files as columns, as records, and as row groups that are read one by one."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from sie_jax.data.readers import files
from sie_jax.data.readers.records import Record, Wanted, cell, is_broken, shown
from sie_jax.errors import UserError

_RECORDS_AT_ONCE = 8192  # dictionaries take several times the memory of their columns


class RowGroup(NamedTuple):
    """A row group of a source's file: its rows, and how many rows stand before it.

    before: in the same file. first: in all files.
    """

    file: epath.Path
    group: int
    rows: int
    before: int
    first: int


@contextlib.contextmanager
def opened(file: epath.Path, wanted: Wanted) -> Iterator[pq.ParquetFile]:
    """The file, to be read inside the block.

    Raises UserError where the file cannot be read or lacks a wanted column.
    """
    try:
        with file.open("rb") as stream:
            parquet = pq.ParquetFile(stream)
            wanted.check(file, parquet.schema_arrow.names)
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read as Parquet ({files.first_line(error)}): "
            "write it, or copy it, again"
        ) from None


def columns(file: epath.Path, wanted: Wanted, rows: int) -> Iterator[pa.Table]:
    """The wanted columns with the types that they have, at most so many rows at a time."""
    names = list(dict.fromkeys(wanted.columns))
    with opened(file, wanted) as parquet:
        for batch in parquet.iter_batches(rows, columns=names):
            batch.validate(full=True)  # writers need not check that strings are UTF-8
            yield pa.table({name: _decoded(batch[name]) for name in names})


def read(file: epath.Path, wanted: Wanted, place: RowGroup | None = None) -> Iterator[Record]:
    """A Record for each row, of one row group where `place` is given.

    A row with a string that is not UTF-8 has no cells, but its text and the reason `not_utf8`.
    """
    names = list(dict.fromkeys(wanted.columns))
    number = itertools.count(1 + (place.before if place else 0))
    groups = [place.group] if place else None
    with opened(file, wanted) as parquet:
        for batch in parquet.iter_batches(_RECORDS_AT_ONCE, columns=names, row_groups=groups):
            for row in _with_bytes(batch).to_pylist():
                cells = {name: cell(value) for name, value in row.items()}
                if any(text and is_broken(text) for text in cells.values()):
                    text = shown(json.dumps(cells, ensure_ascii=False))
                    yield Record(next(number), {}, "not_utf8", text)
                else:
                    yield Record(next(number), cells)


def row_groups(parts: Sequence[epath.Path], wanted: Wanted) -> list[RowGroup]:
    """The row groups of all files, in order."""
    found, first = [], 0
    for file in parts:
        with opened(file, wanted) as parquet:
            sizes = [
                parquet.metadata.row_group(group).num_rows
                for group in range(parquet.num_row_groups)
            ]
        starts = itertools.accumulate(sizes, initial=0)
        for group, (rows, before) in enumerate(zip(sizes, starts, strict=False)):
            found.append(RowGroup(file, group, rows, before, first + before))
        first += sum(sizes)
    return found


def names(file: epath.Path) -> list[str]:
    """The names of a file's columns."""
    with opened(file, Wanted((), "")) as parquet:
        return list(parquet.schema_arrow.names)


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _with_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its strings as bytes: writers need not check that they are UTF-8."""
    for at, name in enumerate(batch.schema.names):
        column = _decoded(batch.column(at))
        if pa.types.is_string(column.type):
            column = column.cast(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.cast(pa.large_binary())
        batch = batch.set_column(at, name, column)
    return batch
