"""The exported ranker and the best baseline side by side, query by query."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from sie_jax.evaluation import ranking
from sie_jax.evaluation.intervals import Judgments
from sie_jax.evaluation.predictions import Predictions
from sie_jax.evaluation.verdict import METRIC, by_query


class Rivals(NamedTuple):
    """What two fixed rankers make of the same queries.

    Attributes:
      ranker, baseline: the names of the two runs.
      query_ids: the queries, in the order of their ids.
      ours, theirs: nDCG@10 of ranker and baseline on each query; NaN without a positive gain.
      our_scores, their_scores: of each pair.
      query_index: the query of each pair, a place in `query_ids`.
      example_ids: of each pair; they break ties.
    """

    ranker: str
    baseline: str
    query_ids: np.ndarray
    ours: Float64[np.ndarray, "Q"]
    theirs: Float64[np.ndarray, "Q"]
    our_scores: Float[np.ndarray, "N"]
    their_scores: Float[np.ndarray, "N"]
    query_index: Int64[np.ndarray, "N"]
    example_ids: Sequence[str] | np.ndarray

    def counts(self) -> dict[str, int]:
        """On how many queries the ranker is above (`won`), below (`lost`), or equal."""
        difference = self.ours - self.theirs
        return {
            "won": int((difference > 0).sum()),
            "lost": int((difference < 0).sum()),
            "equal": int((difference == 0).sum()),
        }

    def apart(self, most: int) -> tuple[list[int], list[int]]:
        """The queries that the ranker wins and those that it loses, at most `most` of each.

        The widest difference comes first; equal ones are in the order of the queries. A query on
        which both are equal, or that is left out, is neither.
        """
        difference = np.nan_to_num(self.ours - self.theirs)

        def widest(amount: np.ndarray) -> list[int]:
            return [int(q) for q in np.argsort(-amount, kind="stable")[:most] if amount[q] > 0]

        return widest(difference), widest(-difference)

    def ranked(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of a query in the order of the ranker, and in that of the baseline."""
        pairs = np.flatnonzero(self.query_index == query)
        ids, alone = np.asarray(self.example_ids)[pairs], np.zeros(len(pairs), np.int64)
        ours, theirs = (
            pairs[ranking.rank_order(scores[pairs], alone, ids)]
            for scores in (self.our_scores, self.their_scores)
        )
        return ours, theirs


def rivals(
    judgments: Judgments,
    runs: Mapping[str, Sequence[Predictions]],
    verdict: Mapping[str, Any],
    *,
    seed: int = 0,
) -> Rivals | None:
    """The exported ranker and the best baseline, as a verdict names them.

    runs: predictions of every run, an entry a seed. verdict: of `verdict.verdict`. seed: which
    entry of the exported run is exported. None where the exported ranker is the best baseline.
    """
    ranker, baseline = verdict["ranker"], verdict["best_baseline"]
    if ranker == baseline:
        return None
    both = {ranker: [runs[ranker][seed]], baseline: [runs[baseline][0]]}
    values = by_query(judgments, both, metric=METRIC)
    query_ids, query_index = np.unique(
        np.asarray(judgments.query_ids, dtype=str), return_inverse=True
    )
    return Rivals(
        ranker,
        baseline,
        query_ids,
        values[ranker][0],
        values[baseline][0],
        both[ranker][0].scores,
        both[baseline][0].scores,
        query_index,
        judgments.example_ids,
    )
