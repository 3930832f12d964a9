"""Vectors by example (histories, projections, embeddings) as columns of Parquet files.

A store of vectors is a table as in `parts`: example_id and one column of fixed-size lists of
float32 per kind of vector, each with its provenance.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sie_jax.tables import joining, parts
from sie_jax.tables.provenance import Provenance

Batch = tuple[pa.Array, dict[str, np.ndarray]]
"""Example ids `[n]`, and vectors `[n, D]` float32 by kind."""


def as_column(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """Vectors `[N, D]` as a column of N lists of D numbers, of the same dtype."""
    if vectors.ndim != 2:
        raise ValueError(f"vectors have shape {vectors.shape}, expected [N, D]")
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def as_array(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """What `as_column` was given; a column of plain numbers as `[N]`."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)


def write(
    folder: Path,
    batches: Iterable[tuple[pa.Array | Sequence[str], Mapping[str, np.ndarray]]],
    *,
    process_index: int,
    process_count: int = 1,
    provenance: Mapping[str, Provenance],
    part_rows: int | None = None,
) -> None:
    """Writes the vectors of one process as parts of `folder`, as `parts.write_parts` does.

    Args:
      batches: example ids `[n]` and vectors `[n, D]` by kind (kept as float32); at least one batch,
        all of the same kinds and D. D may differ between kinds.
      provenance: of every kind.
      part_rows: if None, as many as take 256 MiB, and at most 1,048,576.

    Raises:
      ValueError: the numbers of ids and vectors differ, vectors are not `[n, D]`, or as
        `parts.write_parts`.
    """
    tables = (_as_table(ids, vectors) for ids, vectors in batches)
    parts.write_parts(
        folder,
        tables,
        process_index=process_index,
        process_count=process_count,
        provenance=provenance,
        part_rows=part_rows,
    )


def stream(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    rows: int | None = None,
    data_version: str | None = None,
) -> Iterator[Batch]:
    """The vectors in the order they were written, at most `rows` at a time: one batch in memory.

    Args:
      columns: the kinds to read; all if None. rows: as many as take 32 MiB if None.
      data_version: checked with `parts.require` if given.

    Raises:
      UserError: as `parts.read`.
    """
    if data_version is not None:
        parts.require(path, data_version)
    names = None if columns is None else ["example_id", *columns]
    for batch in parts.batches(path, columns=names, rows=rows):
        kinds = [name for name in batch.schema.names if name != "example_id"]
        yield batch["example_id"], {name: as_array(batch[name]) for name in kinds}


def in_order(
    path: Path,
    example_ids: pa.ChunkedArray | Iterable[pa.Array],
    *,
    columns: Sequence[str],
    data_version: str | None = None,
    partition_rows: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The vectors `[n, D]` by kind in the order of `example_ids`, as `joining.in_order` does.

    The bounds on memory and disk and the errors are the same: every id must be on both sides
    exactly once.
    """
    for block in joining.in_order(
        path,
        example_ids,
        columns=columns,
        data_version=data_version,
        partition_rows=partition_rows,
    ):
        yield {name: as_array(block[name]) for name in columns}


def _as_table(ids: pa.Array | Sequence[str], vectors: Mapping[str, np.ndarray]) -> pa.Table:
    for name, values in vectors.items():
        if len(values) != len(ids):
            raise ValueError(f"{len(values)} vectors {name} for {len(ids)} example ids")
    lists = {name: as_column(values.astype(np.float32)) for name, values in vectors.items()}
    return pa.table({"example_id": pa.array(ids, pa.string()), **lists})
