"""Calibration: the gain that a model expects against the gain that its pairs have."""

import numpy as np
from jaxtyping import Float, Num

BINS = 10


def bins(
    predicted: Float[np.ndarray, "N"], observed: Num[np.ndarray, "N"], *, most: int = BINS
) -> list[dict[str, float]]:
    """The mean of both in bins of equally many pairs, by ascending prediction.

    The N pairs are ordered by prediction and cut into min(most, N) runs whose sizes differ by one
    at most. Pairs with equal predictions share the mean of their observed values, so the result
    does not depend on the order of the rows, even where a cut falls between them.

    Returns:
        One `{"predicted", "observed", "pairs"}` for each bin; none without pairs.
    """
    distinct, place, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    shared = np.bincount(place, weights=observed, minlength=len(distinct)) / counts
    order = np.argsort(predicted, kind="stable")
    return [
        {
            "predicted": float(predicted[rows].mean(dtype=np.float64)),
            "observed": float(shared[place[rows]].mean()),
            "pairs": len(rows),
        }
        for rows in np.array_split(order, min(most, len(order)) or 1)
        if len(rows)
    ]


def expected_error(
    confidence: Float[np.ndarray, "N"], right: Num[np.ndarray, "N"], *, width: int = 15
) -> float:
    """Σ_b n_b/N |mean of `right` − mean of `confidence`| over `width` equal bins of confidence.

    confidence: the probability of the predicted class, in [0, 1]. right: 1 where it is the true
    one. NaN without any.

    Source: Guo et al. 2017, "On calibration of modern neural networks", section 2 (ECE).
    """
    if not len(confidence):
        return float("nan")
    place = np.clip(np.ceil(confidence * width).astype(int) - 1, 0, width - 1)
    gap = np.bincount(place, right, width) - np.bincount(place, confidence, width)
    return float(np.abs(gap).sum() / len(confidence))
