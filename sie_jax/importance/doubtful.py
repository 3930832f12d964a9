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

DOUBTFUL = 0.03
"""The share of blindly labelled groups from which on `doubtful_groups` believes in them. Right or
otherwise faulty labels of generated shops stay below 0.025 (benchmarks/sie_bench)."""
OUTLYING = 6.0
"""The deviation from which on it doubts a seller; honest ones of the same shops stay below 4."""
FEWEST_ROWS, FEWEST_SELLERS = 30, 8
"""The sellers that are compared have so many rows, and are so many."""
_ROUNDS = 50
_LEAST = 1e-4  # of a probability: no single pair decides about its group
_SHARES = (1e-3, 0.5)  # between which the share of blindly labelled groups is


class Groups(NamedTuple):
    """The groups of pairs whose labels can be wrong together, `[N]` each, of values to be sorted.

    annotators: who labelled each pair, or its query where that is not known. sellers: of each item,
    or None.
    """

    annotators: Shaped[np.ndarray, "N"]
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
    groups: Shaped[np.ndarray, "N"],
) -> Blind:
    """The chance that a group's labels were given without a look at its items.

    A mixture of two ways to label a whole group g: each label y_i by the prediction p_i of a model
    that never saw it, or all by one distribution q, whatever the items.

        odds_g = π / (1 − π) · ∏_{i ∈ g} (q_{y_i} / p_i(y_i))^½        chance = odds / (1 + odds)
        π = mean of chance_g        q_k ∝ 1 + Σ_g chance_g · #{i ∈ g: y_i = k}

    by 50 rounds of expectation and maximisation from π = 0.1, with π in [0.001, 0.5]. The root is
    for pairs of a query, which are often mispredicted together. After Dawid and Skene 1979
    ("Maximum likelihood estimation of observer error-rates using the EM algorithm"), with two kinds
    of annotator and the model's prediction in the place of the unknown truth.

    Args:
      probabilities: in [0, 1], rows of sum 1, of a model that was not trained on the group.
      labels: in [0, K). groups: any values that can be sorted: queries, or who labelled.

    Returns:
      Blind. Time and memory O(N).

    Raises:
      ValueError: lengths differ, there is no row, a label is outside [0, K), or a probability is
        outside [0, 1] or NaN.
    """
    wide = checked(probabilities, labels)
    if groups.shape != labels.shape or not len(labels):
        raise ValueError(f"groups {groups.shape} of labels {labels.shape}: give one row or more")
    rows, classes = wide.shape
    names, group = np.unique(groups, return_inverse=True)
    likely = np.log(np.maximum(wide[np.arange(rows), labels], _LEAST))
    looked = np.bincount(group, likely, len(names))
    drawn: np.ndarray = np.bincount(labels, minlength=classes) + 1.0
    chance, share = np.zeros(len(names)), 0.1
    for _ in range(_ROUNDS):
        drawn /= drawn.sum()
        blind = np.bincount(group, np.log(drawn)[labels], len(names))
        odds = np.log(share / (1 - share)) + (blind - looked) / 2
        chance = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
        share = float(np.clip(chance.mean(), *_SHARES))
        drawn = np.bincount(labels, chance[group], classes) + 1.0
    return Blind(chance, share)


def outlying_groups(
    labels: Int[np.ndarray, "N"], groups: Shaped[np.ndarray, "N"]
) -> Float64[np.ndarray, "G"]:
    """How far the labels of each group, such as a seller, are from those of other groups.

        max_k |s_gk − m_k| / √(t_k² + m_k (1 − m_k) / n_g)

    with s_gk the share of label k among the n_g rows of g, m_k the median of s_gk over the groups,
    and t_k = 1.4826 · median |s_gk − m_k|, which is how much honest groups differ as long as fewer
    than half are not (Hampel 1974, "The influence curve and its role in robust estimation"). Only
    groups of FEWEST_ROWS rows or more are compared. Others have 0, and so have all where fewer
    than FEWEST_SELLERS are compared.

    Args:
      labels: from 0. groups: any values that can be sorted.

    Returns:
      float64 `[G]`, in the order of the groups' values, in standard deviations.

    Raises:
      ValueError: the lengths differ.
    """
    if groups.shape != labels.shape:
        raise ValueError(f"groups {groups.shape} of labels {labels.shape}")
    names, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max(initial=0)) + 1))
    np.add.at(counts, (group, labels), 1)
    rows = counts.sum(1)
    compared = rows >= FEWEST_ROWS
    result = np.zeros(len(names))
    if compared.sum() < FEWEST_SELLERS:
        return result
    share = counts[compared] / rows[compared, None]
    usual = np.median(share, 0)
    away = np.abs(share - usual)
    spread = 1.4826 * np.median(away, 0)
    deviation = np.sqrt(spread**2 + usual * (1 - usual) / rows[compared, None])
    result[compared] = (away / np.maximum(deviation, _LEAST)).max(1)
    return result


def doubtful_groups(
    probabilities: Shaped[np.ndarray, "N K"],
    labels: Int[np.ndarray, "N"],
    groups: Groups,
) -> Float64[np.ndarray, "N"]:
    """The chance that a pair's label is not to be believed because of the group that it is in.

    1 for the pairs of a seller that is more than OUTLYING away from the others (`outlying_groups`),
    else the chance of its annotator's group (`blind_groups`), which is taken for 0 where less than
    the share DOUBTFUL of the groups is labelled blindly. So it is 0 throughout where neither fault
    is found.

    Args:
      probabilities, labels: as for `blind_groups`. groups: of the same pairs; without sellers none
        is found.

    Raises:
      ValueError: as `blind_groups`.
    """
    blind = blind_groups(probabilities, labels, groups.annotators)
    found = np.zeros(len(labels))
    if blind.share > DOUBTFUL:
        found = blind.chance[np.unique(groups.annotators, return_inverse=True)[1]]
    if groups.sellers is not None:
        outlying = outlying_groups(labels, groups.sellers) > OUTLYING
        found = np.where(outlying[np.unique(groups.sellers, return_inverse=True)[1]], 1.0, found)
    return found
