"""Tables larger than memory: record batches written to a nameless file and mapped back."""

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa

# rows worked on at a time: also keeps one string array far below the 2 GiB that it can hold
CHUNK_ROWS = 65_536

_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def spool(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """The batches as one table that lies on disk and is paged in as it is read.

    The file stands in the folder for temporary files (TMPDIR says where), has no name once this
    returns, and is gone with the table. Peak memory is that of one batch: with each batch written,
    the pages that were read of this and all other such tables go back to the system.
    """
    handle, path = tempfile.mkstemp(prefix="sie_jax-", suffix=".arrow")
    try:
        with os.fdopen(handle, "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
                for mapped in _maps:
                    mapped.madvise(mmap.MADV_DONTNEED)
        with open(path, "rb") as written:
            mapped = mmap.mmap(written.fileno(), 0, access=mmap.ACCESS_READ)
        _maps.add(mapped)
        return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
    finally:
        os.unlink(path)


def spool_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows, values by column, as one table on disk; a column that a row lacks is null."""
    rows = iter(rows)
    # dictionaries take several times the memory of their columns
    pieces = iter(lambda: list(islice(rows, CHUNK_ROWS // 8)), [])
    return spool((pa.RecordBatch.from_pylist(piece, schema=schema) for piece in pieces), schema)


def filtered(table: pa.Table, mask: pa.Array) -> pa.Table:
    """The rows of `table` where the boolean `mask` `[rows]` is true, on disk."""

    def chunks() -> Iterable[pa.RecordBatch]:
        for start in range(0, table.num_rows, CHUNK_ROWS):
            chunk = table.slice(start, CHUNK_ROWS).filter(mask.slice(start, CHUNK_ROWS))
            yield from chunk.to_batches()

    return spool(chunks(), table.schema)
