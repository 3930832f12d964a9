"""Doubtful groups: labels given without a look at the items, and sellers unlike all others.

A careless annotator spoils whole queries, and a seller that games the labels all of its items. Both
show without a single right label, because they are wrong together: what a pair alone cannot tell
from a hard one, twenty pairs can.

These functions take and return host arrays and compute in float64. They cost no pass.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Shaped

from sie_jax.importance.reference import checked

DOUBTFUL = 0.05
"""The share of blindly labelled queries from which on `doubtful_groups` believes in them. Right or
otherwise faulty labels of generated shops stay below 0.03."""
OUTLYING = 6.0
"""The deviation from which on it doubts a seller; honest ones, of real shops too, stay below 4."""
FEWEST_ROWS, FEWEST_QUERIES, FEWEST_SELLERS = 30, 8, 8
"""The sellers that are compared have so many rows, of so many queries, and are so many."""
_ROUNDS = 50
_PERMUTATIONS = 200
_LEAST = 1e-4  # of a probability: no single pair decides about its query
_SHARES = (1e-3, 0.5)  # between which the share of blindly labelled groups is
_CELLS = 2**22  # of permuted queries, held at a time


class Groups(NamedTuple):
    """The groups of pairs whose labels can be wrong together, `[N]` each, of values to be sorted.

    queries: of each pair. annotators: who labelled it; None where that is not known, and then each
    query stands for itself. sellers: of each item, or None.
    """

    queries: Shaped[np.ndarray, "N"]
    annotators: Shaped[np.ndarray, "N"] | None = None
    sellers: Shaped[np.ndarray, "N"] | None = None


class Blind(NamedTuple):
    """What `blind_groups` finds.

    chance: float64 `[G]`, of each group, in the order of its value. share: of groups, π.
    """

    chance: Float64[np.ndarray, "G"]
    share: float


def blind_groups(
    probabilities: Shaped[np.ndarray, "N K"],
    labels: Int[np.ndarray, "N"],
    queries: Shaped[np.ndarray, "N"],
    annotators: Shaped[np.ndarray, "N"] | None = None,
) -> Blind:
    """The chance that a group's labels were given without a look at its items.

    Labels that were given blindly could as well have been given to the query's items in any other
    order. So for the n pairs of a query, with the predictions p_i of a model that never saw it,

        r_q = ∏_i p_i(y_i) / mean over permutations σ of ∏_i p_i(y_σ(i))

    says how much likelier the labels are where they stand. It is 1 where all labels of the query
    are equal, or all predictions: how a query's grades are distributed says nothing. A group g,
    which is a query or an annotator, is blind with

        chance_g = π / (π + (1 − π) ∏_{q ∈ g} r_q)        π = mean of chance_g, in [0.001, 0.5]

    by 50 rounds of expectation and maximisation from π = 0.1. The mean is over 200 random
    permutations, which are the same each time. After Dawid and Skene 1979 ("Maximum likelihood
    estimation of observer error-rates using the EM algorithm"), with two kinds of annotator and the
    model in the place of the unknown truth.

    Args:
      probabilities: in [0, 1], rows of sum 1, of a model that was not trained on the query; those
        below 1e-4 count as that.
      labels: in [0, K). queries: any values that can be sorted.
      annotators: who labelled each pair; None: groups are the queries.

    Returns:
      Blind. Time O(200 N), memory O(N) beyond some 100 MiB.

    Raises:
      ValueError: lengths differ, there is no row, a label is outside [0, K), or a probability is
        outside [0, 1] or NaN.
    """
    wide = checked(probabilities, labels)
    annotators = queries if annotators is None else annotators
    if not len(labels) or {queries.shape, annotators.shape} != {labels.shape}:
        raise ValueError(
            f"queries {queries.shape} and annotators {annotators.shape} of labels {labels.shape}: "
            "give one row or more"
        )
    # an annotator's pairs of a query
    _, query = np.unique(queries, return_inverse=True)
    names, group = np.unique(annotators, return_inverse=True)
    _, first, part = np.unique(
        group.astype(np.int64) * len(group) + query, return_index=True, return_inverse=True
    )
    ratio = _log_ratio(np.log(np.maximum(wide, _LEAST)), labels, part)
    looked = np.bincount(group[first], ratio, len(names))
    chance, share = np.zeros(len(names)), 0.1
    for _ in range(_ROUNDS):
        odds = np.log(share / (1 - share)) - looked
        chance = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
        share = float(np.clip(chance.mean(), *_SHARES))
    return Blind(chance, share)


def _log_ratio(log_p: np.ndarray, labels: np.ndarray, part: np.ndarray) -> np.ndarray:
    """log r of each part, which are numbered from 0; those of one length are taken together."""
    order = np.argsort(part, kind="stable")
    lengths = np.bincount(part)
    ends = np.cumsum(lengths)
    result = np.zeros(len(lengths))
    for length in np.unique(lengths[lengths > 1]):
        parts = np.flatnonzero(lengths == length)
        rows = order[ends[parts, None] - np.arange(length, 0, -1)]
        rng = np.random.default_rng(0)
        shuffled = np.stack([rng.permutation(length) for _ in range(_PERMUTATIONS)])
        for start in range(0, len(rows), step := max(1, _CELLS // shuffled.size)):
            some = rows[start : start + step]
            as_given = log_p[some, labels[some]].sum(1)
            permuted = log_p[some[:, None], labels[some][:, shuffled]].sum(2)
            most = permuted.max(1)
            mean = most + np.log(np.exp(permuted - most[:, None]).mean(1))
            result[parts[start : start + step]] = as_given - mean
    return result


def outlying_groups(
    labels: Int[np.ndarray, "N"],
    groups: Shaped[np.ndarray, "N"],
    queries: Shaped[np.ndarray, "N"],
) -> Float64[np.ndarray, "G"]:
    """How far the labels of each group, such as a seller, are from those of other groups.

        max_k |s_gk − m_k| / √(t_k² + e_gk²)        t_k = 1.4826 · median |s_gk − m_k|
        e_gk² = max(Q / (Q − 1) Σ_q (Σ_{i ∈ g, q} ([y_i = k] − s_gk))², n_g s_k (1 − s_k)) / n_g²

    with s_gk the share of label k among the n_g rows of g, which are of Q queries, s_k that among
    all rows, and m_k the median of s_gk over groups. t_k is how much honest groups differ, as long
    as fewer than half of them are not (Hampel 1974, "The influence curve and its role in robust
    estimation"), and e_gk the standard error of the share, rows of a query being one draw. Only
    groups of FEWEST_ROWS rows and FEWEST_QUERIES queries or more are compared. Others have 0, and
    so have all where fewer than FEWEST_SELLERS are.

    Args:
      labels: from 0. groups, queries: any values that can be sorted.

    Returns:
      float64 `[G]`, in the order of the groups' values, in standard deviations.

    Raises:
      ValueError: the lengths differ.
    """
    if {groups.shape, queries.shape} != {labels.shape}:
        raise ValueError(f"groups {groups.shape}, queries {queries.shape} of labels {labels.shape}")
    names, group = np.unique(groups, return_inverse=True)
    _, query = np.unique(queries, return_inverse=True)
    rows = np.bincount(group, minlength=len(names))
    draws, draw = np.unique(group.astype(np.int64) * len(group) + query, return_inverse=True)
    group_of_draw = draws // max(len(group), 1)
    several = np.bincount(group_of_draw, minlength=len(names))
    compared = (rows >= FEWEST_ROWS) & (several >= FEWEST_QUERIES)
    result = np.zeros(len(names))
    if compared.sum() < FEWEST_SELLERS:
        return result
    for label in np.unique(labels):
        has = (labels == label).astype(np.float64)
        share, usual = np.bincount(group, has) / rows, has.mean()
        of_draw = np.bincount(draw, has - share[group])
        error = np.bincount(group_of_draw, of_draw**2)[compared] / rows[compared] ** 2
        error *= several[compared] / (several[compared] - 1)
        error = np.maximum(error, usual * (1 - usual) / rows[compared])
        away = np.abs(share[compared] - np.median(share[compared]))
        spread = 1.4826 * np.median(away)
        deviation = np.maximum(np.sqrt(spread**2 + error), _LEAST)
        result[compared] = np.maximum(result[compared], away / deviation)
    return result


def doubtful_groups(
    probabilities: Shaped[np.ndarray, "N K"], labels: Int[np.ndarray, "N"], groups: Groups
) -> Float64[np.ndarray, "N"]:
    """The chance that a pair's label is not to be believed because of the group that it is in.

    1 for the pairs of a seller that is more than OUTLYING away from the others (`outlying_groups`),
    else the chance of its query or annotator (`blind_groups`), which is taken for 0 where less than
    the share DOUBTFUL of them labels blindly. So it is 0 throughout where neither fault is found.

    Args:
      probabilities, labels: as for `blind_groups`. groups: of the same pairs; without sellers none
        is found.

    Raises:
      ValueError: as `blind_groups`.
    """
    queries, annotators, sellers = groups
    blind = blind_groups(probabilities, labels, queries, annotators)
    found = np.zeros(len(labels))
    if blind.share > DOUBTFUL:
        units = queries if annotators is None else annotators
        found = blind.chance[np.unique(units, return_inverse=True)[1]]
    if sellers is not None:
        outlying = outlying_groups(labels, sellers, queries) > OUTLYING
        found = np.where(outlying[np.unique(sellers, return_inverse=True)[1]], 1.0, found)
    return found
