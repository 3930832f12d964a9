"""Importance by group: what share of all weight a query, an item or a brand holds."""

import numpy as np
import pyarrow as pa

COLUMNS = ("group", "rows", "share_of_rows", "share_of_weight", "lift", "score")


def by_group(groups: pa.ChunkedArray, weights: np.ndarray, scores: np.ndarray) -> pa.Table:
    """One row per distinct value of `groups`, the one with the greatest lift first.

    With n_q rows of group q, w the weights and g the scores:

        share_of_rows = n_q / N        share_of_weight = Σ_q w / Σ w
        lift = share_of_weight / share_of_rows          score = Σ_q g / n_q

    Lift is 1 if a group weighs what its number of rows would give it. Groups of equal lift are
    ordered by their rows, the most first, and then by name.

    Args:
      groups: strings `[N]`; "" and null are one group, "".
      weights: float `[N]`, finite, ≥ 0, with a sum > 0. scores: float `[N]`, finite.

    Returns:
      A table of COLUMNS.

    Raises:
      ValueError: the lengths differ, or the weights sum to 0.
    """
    rows = len(groups)
    if weights.shape != (rows,) or scores.shape != (rows,):
        raise ValueError(f"{rows} groups, weights {weights.shape}, scores {scores.shape}")
    if not weights.sum() > 0:
        raise ValueError("the weights sum to 0")
    encoded = groups.combine_chunks().fill_null("").dictionary_encode()
    group, number = encoded.indices.to_numpy(), len(encoded.dictionary)
    count = np.bincount(group, minlength=number)
    share_of_rows = count / rows
    share_of_weight = np.bincount(group, weights, number) / weights.sum(dtype=np.float64)
    table = pa.table(
        {
            "group": encoded.dictionary,
            "rows": count,
            "share_of_rows": share_of_rows,
            "share_of_weight": share_of_weight,
            "lift": share_of_weight / share_of_rows,
            "score": np.bincount(group, scores, number) / count,
        }
    )
    return table.sort_by([("lift", "descending"), ("rows", "descending"), ("group", "ascending")])
