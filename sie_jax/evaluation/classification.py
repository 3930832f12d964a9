"""Classification metrics from confusion matrices, kept per query so that they can be resampled."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int, Int64, Num


def confusion_per_query(
    labels: Int[np.ndarray, "N"],
    predictions: Int[np.ndarray, "N"],
    query_index: Int[np.ndarray, "N"],
    *,
    num_queries: int,
    num_classes: int,
) -> Int64[np.ndarray, "Q K K"]:
    """Counts, for every query, how often label `i` was predicted as class `j`.

        C[q, i, j] = #{n : query_index[n] = q, labels[n] = i, predictions[n] = j}

    Args:
        labels: True classes in `[0, K)`.
        predictions: Predicted classes in `[0, K)`.
        query_index: The query of each pair, in `[0, Q)`.
        num_queries: Q. A query without pairs gives a matrix of zeros.
        num_classes: K.

    Returns:
        int64 counts `[Q, K, K]`, rows are the truth. They sum to N, do not depend on the order of
        the pairs, and the matrix of any set of queries is the sum of theirs.

    Raises:
        ValueError: A label, prediction or query index is out of its range.
    """
    for name, values, end in (
        ("labels", labels, num_classes),
        ("predictions", predictions, num_classes),
        ("query_index", query_index, num_queries),
    ):
        if values.size and not (values.min() >= 0 and values.max() < end):
            raise ValueError(f"{name} must lie in [0, {end})")
    shape = (num_queries, num_classes, num_classes)
    cell = np.ravel_multi_index((query_index, labels, predictions), shape)
    return np.bincount(cell, minlength=num_queries * num_classes**2).reshape(shape)


def metrics(
    confusion: Num[np.ndarray, "*batch K K"], label_names: Sequence[str]
) -> dict[str, Float64[np.ndarray, "*batch"]]:
    """Computes accuracy, F1, precision and recall of every confusion matrix.

    With TP_k, FP_k and FN_k the true positives, false positives and false negatives of class k:

        accuracy         = Σ_k TP_k / N
        precision_<name> = TP_k / (TP_k + FP_k)
        recall_<name>    = TP_k / (TP_k + FN_k)
        macro_f1         = 1/K Σ_k 2 TP_k / (2 TP_k + FP_k + FN_k)
        micro_f1         = Σ_k 2 TP_k / Σ_k (2 TP_k + FP_k + FN_k) = Σ_k TP_k / N

    One class per pair makes `micro_f1` equal `accuracy`; both are given because both are asked for.

    | case                                      | result                                      |
    |-------------------------------------------|---------------------------------------------|
    | class never predicted (precision 0/0)     | 0                                           |
    | class never true (recall 0/0)             | 0                                           |
    | class neither true nor predicted (F1 0/0) | 0, and it still counts as one of the K      |
    | no pairs at all                           | NaN for every metric: nothing was measured  |

    So `macro_f1` is scikit-learn's `f1_score(labels=range(K), average="macro", zero_division=0)`:
    it averages over all K labels of the scale, so that resamples and runs share one denominator.

    Args:
        confusion: Counts `[..., K, K]`, rows are the truth. Any leading axes.
        label_names: The K names used in `precision_<name>` and `recall_<name>`.

    Returns:
        float64 arrays `[...]` in [0, 1], by metric name.

    Raises:
        ValueError: `confusion` is not K x K for the K names.
    """
    num_classes = len(label_names)
    if confusion.shape[-2:] != (num_classes, num_classes):
        raise ValueError(f"confusion {confusion.shape} must end in {num_classes, num_classes}")
    confusion = confusion.astype(np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    predicted = confusion.sum(-2)
    true = confusion.sum(-1)
    total = true.sum(-1)

    def ratio(numerator, denominator):
        return np.where(denominator == 0, 0.0, numerator) / np.where(
            denominator == 0, 1, denominator
        )

    precision = ratio(hits, predicted)
    recall = ratio(hits, true)
    result = {
        "accuracy": ratio(hits.sum(-1), total),
        "macro_f1": ratio(2 * hits, predicted + true).mean(-1),
        "micro_f1": ratio(2 * hits.sum(-1), 2 * total),
    }
    result |= {f"precision_{name}": precision[..., k] for k, name in enumerate(label_names)}
    result |= {f"recall_{name}": recall[..., k] for k, name in enumerate(label_names)}
    return {name: np.where(total == 0, np.nan, value) for name, value in result.items()}
