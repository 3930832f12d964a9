"""Tables larger than memory: kept on disk, mapped back, and worked on a piece at a time."""

import contextlib
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax.files import whole

# rows worked on at a time: also keeps one string array far below the 2 GiB that it can hold
CHUNK_ROWS = 65_536

_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def spool(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """The batches as one table that lies on disk and is paged in as it is read.

    The file is in the folder for temporary files (TMPDIR says where). It has no name once this
    returns, and its space is free once the table is gone. Peak memory is that of one batch: after
    each batch that is written, `release` is called.
    """
    handle, path = tempfile.mkstemp(prefix="sie_jax-", suffix=".arrow")
    try:
        with os.fdopen(handle, "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
                release()
        with open(path, "rb") as written:
            mapped = mmap.mmap(written.fileno(), 0, access=mmap.ACCESS_READ)
        _maps.add(mapped)
        return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
    finally:
        os.unlink(path)


def spool_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows, values by column, as one table on disk; a column that a row lacks is null."""
    rows = iter(rows)
    # dictionaries take several times the memory of their columns, and some tables have hundreds
    at_once = max(1, 8 * CHUNK_ROWS // max(64, len(schema)))
    chunks = iter(lambda: list(islice(rows, at_once)), [])
    return spool((pa.RecordBatch.from_pylist(chunk, schema=schema) for chunk in chunks), schema)


def release() -> None:
    """Gives memory back: what was read of all tables that `spool` made, and Arrow's unused pool.

    Pages of a table that are needed again are read again from its file.
    """
    for mapped in _maps:
        mapped.madvise(mmap.MADV_DONTNEED)
    pa.default_memory_pool().release_unused()


def pieces(table: pa.Table, rows: int | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Slices of `rows` rows, CHUNK_ROWS if None, each with the place of its first row.

    `release` is called before each of them and after the last.
    """
    rows = CHUNK_ROWS if rows is None else rows
    for start in range(0, table.num_rows, rows):
        release()
        yield start, table.slice(start, rows)
    release()


def filtered(table: pa.Table, mask: pa.Array) -> pa.Table:
    """The rows of `table` where the boolean `mask` `[rows]` is true, on disk."""

    def chunks() -> Iterable[pa.RecordBatch]:
        for start, piece in pieces(table):
            yield from piece.filter(mask.slice(start, piece.num_rows)).to_batches()

    return spool(chunks(), table.schema)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes a table as one Parquet file; memory holds a small part of it at a time."""
    with whole(path) as temporary, pq.ParquetWriter(temporary, table.schema) as writer:
        for _, piece in pieces(table):
            writer.write_table(piece)


class HashPartitions:
    """Records on disk, split by a hash, so that equal records meet in one part.

    Iterating gives the parts: arrays of `dtype`, each with its records in the order they were
    added. Memory holds one part.
    """

    def __init__(self, dtype: np.dtype, files: Sequence[IO[bytes]]) -> None:
        """`files` are empty, one for each part; `hash_partitions` opens them."""
        self._dtype, self._files = dtype, files

    def add(self, hashes: np.ndarray, records: np.ndarray) -> None:
        """Adds records `[n]`; each has an unsigned integer, the same for those that must meet."""
        part = hashes % len(self._files)
        for number, file in enumerate(self._files):
            file.write(records[part == number].tobytes())

    def __iter__(self) -> Iterator[np.ndarray]:
        for file in self._files:
            file.seek(0)
            yield np.frombuffer(file.read(), self._dtype)


@contextlib.contextmanager
def hash_partitions(dtype: np.dtype, *, parts: int = 64) -> Iterator[HashPartitions]:
    """Partitions without records, in nameless files in the folder for temporary files."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(parts)]
        yield HashPartitions(dtype, files)
