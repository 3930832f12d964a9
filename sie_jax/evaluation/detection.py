"""How well a score finds the wrong labels, where the truth is known."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def midranks(values: np.ndarray) -> np.ndarray:
    """The ranks of `values` `[N]` from 1, float64; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative) + ½ P(equal).

    scores: float `[N]`; positive: bool `[N]`. The Mann-Whitney statistic over midranks (Hanley and
    McNeil 1982), float64. NaN where one of the two classes is empty.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    rank_sum = midranks(scores)[positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def planted_errors(
    labels: np.ndarray, truth: np.ndarray, hardness: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """The wrong labels among those whose truth is known, and how well each score finds them.

    labels, truth: int `[N]`, truth −1 where unknown; hardness: for each score, `[N]`, high for
    hard. Gives `{"rate", "count", "auroc": {score: number or None}}`, or None where no label is
    known to be wrong. An AUROC is None where every known label is wrong.
    """
    known = truth >= 0
    wrong = (truth != labels)[known]
    if not wrong.any():
        return None
    areas = {name: auroc(values[known], wrong) for name, values in hardness.items()}
    return {
        "rate": float(wrong.mean()),
        "count": int(wrong.sum()),
        "auroc": {name: None if np.isnan(area) else area for name, area in areas.items()},
    }


def wrong_labels(labels: np.ndarray, truth: np.ndarray, *, classes: int) -> dict[str, Any] | None:
    """How many labels are wrong among those whose truth is known; None where none is known.

    labels, truth: int `[N]`, truth −1 where unknown. Gives `{"known", "wrong", "by_label"}`, the
    last one a `{"known", "wrong"}` for each grade that rows are labelled with.
    """
    known, wrong = truth >= 0, (truth >= 0) & (truth != labels)
    if not known.any():
        return None
    by_label = [
        {"known": int(known[of_grade].sum()), "wrong": int(wrong[of_grade].sum())}
        for of_grade in (labels == grade for grade in range(classes))
    ]
    return {"known": int(known.sum()), "wrong": int(wrong.sum()), "by_label": by_label}


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall curve, Σ_t (R_t − R_{t−1}) P_t over the different scores t.

    P_t and R_t are the precision and recall of all examples with a score of at least t, so that
    scores that tie come in together, whatever their order; nothing is interpolated. A score that
    says nothing has the share of positives in expectation, not ½.

    scores: float `[N]`; positive: bool `[N]`. NaN where there is no positive.
    """
    taken, found = _cumulative(scores, positive)
    if found[-1] == 0:
        return float("nan")
    steps = np.diff(found, prepend=0) / found[-1]
    return float((steps * found / taken).sum())


def precision_at(scores: np.ndarray, positive: np.ndarray, count: int) -> float:
    """The share of positives among the `count` highest scores, 1 ≤ count ≤ N.

    Where scores tie across the edge it is the expectation over their orders.
    """
    taken, found = _cumulative(scores, positive)
    # between two thresholds the expected number found grows in a straight line
    return float(np.interp(count, np.r_[0, taken], np.r_[0, found]) / count)


def _cumulative(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many examples, and how many positives, have at least each of the different scores."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.nan))  # NaN differs from all
    return last + 1, np.cumsum(positive[order])[last]
