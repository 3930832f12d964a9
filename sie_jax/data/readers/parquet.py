"""Parquet files as columns, as records, and as row groups that are read one by one."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath

from sie_jax.data.readers import files
from sie_jax.data.readers.records import (
    Record,
    Wanted,
    cell,
    check_distinct,
    is_broken,
    shown,
)
from sie_jax.errors import UserError

_RECORDS_AT_ONCE = 8192  # dictionaries take several times the memory of their columns
_ZEROS_OF_A_SECOND = r"(?:\.0+|(\.\d*[1-9])0+)($|[Z+-])"


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

    Raises UserError where the file cannot be read, lacks a wanted column or has two of one name.
    """
    try:
        with file.open("rb") as stream:
            parquet = pq.ParquetFile(stream)
            check_distinct(file, parquet.schema_arrow.names)
            wanted.check(file, parquet.schema_arrow.names)
            yield parquet
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"{file} cannot be read as Parquet ({files.first_line(error)}): "
            "write it, or copy it, again"
        ) from None


def columns(file: epath.Path, wanted: Wanted, rows: int) -> Iterator[pa.Table]:
    """The wanted columns as `plain` gives them, at most so many rows at a time."""
    names = list(dict.fromkeys(wanted.columns))
    with opened(file, wanted) as parquet:
        for batch in parquet.iter_batches(rows, columns=names):
            batch.validate(full=True)  # writers need not check that strings are UTF-8
            yield pa.table({name: plain(batch[name]) for name in names})


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


def types(file: epath.Path) -> dict[str, pa.DataType]:
    """The type of each column's cells: string but of numbers, truth values and bytes."""
    with opened(file, Wanted((), "")) as parquet:
        return {field.name: _cell_type(field.type) for field in parquet.schema_arrow}


def _cell_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _cell_type(kind.value_type)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pa.binary()
    kept = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return kind if kept else pa.string()


def plain(column: pa.Array) -> pa.Array:
    """The values of a column without what their storage adds to them.

    Texts are large_string, dates and times texts such as "2024-05-06 07:08:00", and floats float64;
    of a shorter float the number that it was written as. NaN is null. Other types stay.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if kind in (pa.string(), pa.string_view()):
        return column.cast(pa.large_string())
    if pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_timestamp(kind):
        return pc.replace_substring_regex(
            column.cast(pa.large_string()), _ZEROS_OF_A_SECOND, r"\1\2"
        )
    if pa.types.is_floating(kind):
        if kind != pa.float64():
            column = column.cast(pa.large_string()).cast(pa.float64())
        return pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    return column


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts, however they are stored, or nothing but nulls."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return kind in (
        pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.null()
    )  # fmt: skip


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells of a column of any plain type as large_string, as `records.cell` writes them."""
    return pa.chunked_array([_texts(plain(one)) for one in column.chunks], pa.large_string())


def _texts(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        encoded = column.dictionary_encode()
        cells = [cell(value) for value in encoded.dictionary.to_pylist()]
        return pa.array(cells, pa.large_string()).take(encoded.indices)
    return column.cast(pa.large_string())


def _with_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its strings as bytes: writers need not check that they are UTF-8."""
    for at, name in enumerate(batch.schema.names):
        column = plain(batch.column(at))
        if pa.types.is_large_string(column.type):
            column = column.cast(pa.large_binary())
        batch = batch.set_column(at, name, column)
    return batch
