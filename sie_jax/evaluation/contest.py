"""The contest: which ranker is exported, decided on queries that none of the contestants saw."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

INCUMBENT = "linear"
FEWEST = 20
"""Queries below which nothing replaces the incumbent: their standard error says too little."""


class Standing(NamedTuple):
    """How a contestant did, beside the incumbent.

    value: its mean nDCG. difference: its mean less the incumbent's. standard_error: of that
    difference over queries, sd/sqrt(Q); 0 for the incumbent itself, None with a single query.
    """

    value: float
    difference: float
    standard_error: float | None


class Outcome(NamedTuple):
    """What the contest gave.

    ranker: what is exported. encoder: the best of the trained encoders, whatever is exported; ""
    without any. queries: how many were judged by. standings: of every contestant.
    """

    ranker: str
    encoder: str
    queries: int
    standings: dict[str, Standing]


def decide(
    ndcg: Mapping[str, Float64[np.ndarray, "Q"]],
    *,
    baselines: tuple[str, ...],
    encoders: tuple[str, ...],
) -> Outcome:
    """Chooses the ranker by its mean nDCG on queries that no contestant was trained on.

    The incumbent, `linear`, is replaced only by a contestant whose mean is above its own by more
    than one standard error of their difference over queries: of several that are, by the best, and
    of equals by a baseline, which costs nothing. The margin holds for baselines too, because the
    incumbent may be judged by fits on fewer queries than the one that is exported has, and a
    baseline loses nothing by that. With fewer than FEWEST queries the incumbent stays.

    Args:
        ndcg: Of each contestant, the baselines and the incumbent among them, nDCG of each query. A
            query that is NaN for one of them is left out.
        baselines: Those of the contestants that are baselines.
        encoders: Those of the contestants that are trained encoders.

    Returns:
        Outcome. Without any query the incumbent and the first encoder.

    Raises:
        ValueError: The incumbent is not among the contestants.
    """
    if INCUMBENT not in ndcg:
        raise ValueError(f"{INCUMBENT} is not among the contestants {list(ndcg)}")
    defined = ~np.isnan(np.stack(list(ndcg.values()))).any(0)
    scores = {name: values[defined] for name, values in ndcg.items()}
    queries = int(defined.sum())
    ranked_encoders = [name for name in ndcg if name in encoders]
    if not queries:
        return Outcome(INCUMBENT, ranked_encoders[0] if ranked_encoders else "", 0, {})

    def standing(name: str) -> Standing:
        above = scores[name] - scores[INCUMBENT]
        error = float(above.std(ddof=1)) / queries**0.5 if queries > 1 else None
        return Standing(
            float(scores[name].mean()),
            float(above.mean()),
            0.0 if name == INCUMBENT else error,
        )

    standings = {name: standing(name) for name in ndcg}

    def best(names: list[str]) -> str:
        return max(names, key=lambda name: (standings[name].value, name in baselines))

    ranker = INCUMBENT
    if queries >= FEWEST:
        able = [
            name
            for name, one in standings.items()
            if one.standard_error is not None and one.difference > one.standard_error
        ]
        ranker = best([INCUMBENT, *able])
    return Outcome(ranker, best(ranked_encoders) if ranked_encoders else "", queries, standings)


def same_first(
    one: Float64[np.ndarray, "N"],
    other: Float64[np.ndarray, "N"],
    query_index: Int[np.ndarray, "N"],
    ties: Int[np.ndarray, "N"],
) -> float:
    """The share of queries that two rankings give the same first item; ties go by `ties`."""
    firsts = []
    for scores in (one, other):
        order = np.lexsort((ties, -scores, query_index))
        firsts.append(order[np.unique(query_index[order], return_index=True)[1]])
    return float((firsts[0] == firsts[1]).mean())
