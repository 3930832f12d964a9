"""ImportanceTable: one row per training pair with its scores and weight, kept as Parquet.

Columns: example_id, query_id, item_id (strings), label (int32), one float32 column per score, and
`weight` (float32, mean 1: N times the normalised weight).
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

IDENTITY = ("example_id", "query_id", "item_id", "label")


def build(identity: pa.Table, scores: dict[str, np.ndarray], weights: np.ndarray) -> pa.Table:
    """Joins identity columns `[N]`, scores `[N]` and normalised weights `[N]` (sum 1) to one table.

    Raises ValueError where the lengths differ. The weight column holds N · w_i.
    """
    rows = identity.num_rows
    for name, values in {**scores, "weights": weights}.items():
        if values.shape != (rows,):
            raise ValueError(f"{name} has shape {values.shape}, expected ({rows},)")
    table = identity.select(IDENTITY)
    for name, values in scores.items():
        table = table.append_column(name, pa.array(values.astype(np.float32)))
    return table.append_column("weight", pa.array((weights * rows).astype(np.float32)))


def read(path: Path) -> pa.Table:
    """Reads an importance table: a Parquet file, or a folder of parts in name order."""
    if path.is_dir():
        return pa.concat_tables([pq.read_table(part) for part in sorted(path.glob("*.parquet"))])
    return pq.read_table(path)
