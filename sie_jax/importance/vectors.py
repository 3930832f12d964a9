"""Vectors by example (histories, projections, embeddings) as columns of Parquet files."""

import numpy as np
import pyarrow as pa


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
