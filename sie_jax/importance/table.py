"""The importance table: one row per training pair with its scores and its weight.

Columns: example_id, query_id, item_id (strings), label (int32), one float32 column per score, and
`weight` (float32, mean 1: N times the normalised weight).
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sie_jax.tables.provenance import IDENTITY, Provenance, as_metadata


def build(
    identity: pa.Table,
    scores: Mapping[str, np.ndarray],
    weights: np.ndarray,
    *,
    provenance: Mapping[str, Provenance] | None = None,
) -> pa.Table:
    """Joins identity columns `[N]`, scores `[N]` and normalised weights `[N]` (sum 1) to one table.

    The weight column holds N · w_i. Scores keep the sign of their estimator. `provenance` has an
    entry for every score and for `weight`; it stays with the table when that is written.

    Raises:
      ValueError: the lengths differ, or as `as_metadata`.
    """
    rows = identity.num_rows
    for name, values in {**scores, "weights": weights}.items():
        if values.shape != (rows,):
            raise ValueError(f"{name} has shape {values.shape}, expected ({rows},)")
    table = identity.select(IDENTITY)
    for name, values in scores.items():
        table = table.append_column(name, pa.array(values.astype(np.float32)))
    table = table.append_column("weight", pa.array((weights * rows).astype(np.float32)))
    if provenance is None:
        return table
    return table.replace_schema_metadata(as_metadata(table, provenance))
