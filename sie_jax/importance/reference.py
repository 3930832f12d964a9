"""Scores against a reference: held-out models, trusted examples, the query's other items.

A model that was trained on a label partly repeats it. These scores ask someone who did not see it:
a model of other folds, a model of a holdout set, the nearest trusted examples, the neighbours.

These functions take and return host arrays and compute in float64. The caller makes the forward
passes that give their inputs: 1 forward-equivalent per example and model. They cost no other pass.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

_SLACK = 1e-6  # equal probabilities reach their own mean, in spite of rounding
_CELLS = 2**21  # distances held at a time: 16 MiB, in each of some seven arrays


def reducible_loss(
    loss: Float[np.ndarray, "N"], holdout_loss: Float[np.ndarray, "N"]
) -> Float[np.ndarray, "N"]:
    """RHO-loss: the loss under the model in training less that under a model of held-out data.

        ℓ_i − ℓ_i^holdout

    High means USEFUL, not hard: the model has not learned what a model of other data knows already,
    so it can be learned, is worth learning and is not learned yet. About 0: both know it
    (redundant), or neither does (a wrong label, an outlier). Negative: the model knows it better
    than the holdout model, because it was trained on it; late in training the wrong labels are
    here, memorised. It falls during training: take the loss of the current parameters (Mindermann
    et al. 2022, "Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet
    Learnt", equation 3). It can be negative, so give a policy its hardness (`registry.hardness`).

    Args:
      loss: nats, of the current parameters.
      holdout_loss: nats, of a model that was not trained on these examples: one of a holdout set as
        in the paper, or `out_of_fold_loss`.

    Returns:
      float64 `[N]`, nats.

    Raises:
      ValueError: the shapes differ.
    """
    if loss.shape != holdout_loss.shape:
        raise ValueError(f"losses {loss.shape} for holdout losses {holdout_loss.shape}")
    return loss.astype(np.float64) - holdout_loss.astype(np.float64)


def out_of_fold_loss(
    probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"]
) -> Float[np.ndarray, "N"]:
    """−log p_y in nats, p of a model that was not trained on the example.

    High means HARD for one who never saw the label: mislabelled, or rare, or ambiguous. A p_y below
    the least normal float32, 2^−126, counts as that, so that no score exceeds 126 log 2 = 87.3.

    Args:
      probabilities: in [0, 1], rows of sum 1. labels: in [0, K).

    Returns:
      float64 `[N]`, in [0, 87.4].

    Raises:
      ValueError: lengths differ, a label is outside [0, K), a probability outside [0, 1] or NaN.
    """
    wide = checked(probabilities, labels)
    given = wide[np.arange(len(wide)), labels]
    # 0.0 − log, not −log: a probability of 1 has a loss of 0.0, not −0.0
    return 0.0 - np.log(np.maximum(given, float(np.finfo(np.float32).tiny)))


class ConfidentLearning(NamedTuple):
    """What `confident_learning` finds; indices of matrices are (given label, true label).

    thresholds: float64 `[K]`, t_j, infinite for a class that no example is labelled with.
    confident_joint: int64 `[K, K]`, counts of the confident examples; the diagonal is at least 1.
    joint: float64 `[K, K]`, the estimated joint distribution of given and true labels, sum 1.
    suspected: bool `[N]`: counted off the diagonal, and the label is not the most probable class.
    score: float64 `[N]` in [0, 2]. High means probably WRONG; above 1 exactly the suspected.
    """

    thresholds: Float[np.ndarray, "K"]
    confident_joint: Int[np.ndarray, "K K"]
    joint: Float[np.ndarray, "K K"]
    suspected: Bool[np.ndarray, "N"]
    score: Float[np.ndarray, "N"]


def confident_learning(
    labels: Int[np.ndarray, "N"], probabilities: Float[np.ndarray, "N K"]
) -> ConfidentLearning:
    """Finds labels that a model of other folds contradicts, by each class's own mean confidence.

        t_j = mean of p_j over the examples labelled j
        C[i, j] = #{x labelled i: p_j(x) ≥ t_j, j the class that x is counted for}
        Q[i, j] = (C[i, j] / Σ_j C[i, j]) · n_i / N        n_i the examples labelled i
        score = [suspected] + (1 + max over c ≠ y of p_c − p_y) / 2

    An example that reaches one threshold is counted for that class, and one that reaches several
    for its most probable class; one that reaches none is not counted. The score ranks the suspected
    first, and both them and the rest by the normalised margin (Northcutt et al. 2021, "Confident
    Learning: Estimating Uncertainty in Dataset Labels", equations 1 to 3 and section 3.2).

    Counts and suspicions are those of the authors' own package, cleanlab (2.9: off the diagonal,
    the filter "confident_learning"). Like it, and unlike equation 1, an example that reaches
    several thresholds is counted for the most probable of ALL classes, even where that class's own
    threshold is not among those reached; the diagonal is at least 1, so that no row of C is empty;
    thresholds are at least 2e-6 and are reached from 1e-6 below. `joint` is not rounded to whole
    examples, as the package rounds it.

    Args:
      labels: in [0, K). probabilities: in [0, 1], rows of sum 1, of a model that was not trained on
        the example: those of one that was confirm the label.

    Returns:
      ConfidentLearning. Time and memory O(N K).

    Raises:
      ValueError: lengths differ, a label is outside [0, K), a probability outside [0, 1] or NaN,
        or there are fewer than two classes or no examples.
    """
    wide = checked(probabilities, labels)
    rows, classes = wide.shape
    if rows < 1 or classes < 2:
        raise ValueError(
            f"probabilities are {wide.shape}: give one example and two classes or more"
        )
    each = np.arange(rows)
    given = wide[each, labels]
    counts = np.bincount(labels, minlength=classes)
    means = np.bincount(labels, given, classes) / np.maximum(counts, 1)
    thresholds = np.where(counts > 0, np.maximum(means, 2 * _SLACK), np.inf)

    reached = wide >= thresholds - _SLACK
    number = reached.sum(axis=1)
    counted_for = np.where(number > 1, wide.argmax(axis=1), reached.argmax(axis=1))
    confident = number > 0
    confident_joint = np.zeros((classes, classes), np.int64)
    np.add.at(confident_joint, (labels[confident], counted_for[confident]), 1)
    off_diagonal = confident & (counted_for != labels)
    np.fill_diagonal(confident_joint, np.maximum(confident_joint.diagonal(), 1))
    joint = confident_joint / confident_joint.sum(axis=1, keepdims=True) * counts[:, None] / rows

    others = wide.copy()
    others[each, labels] = -np.inf
    excess = others.max(axis=1) - given
    suspected = off_diagonal & (excess > _SLACK)
    return ConfidentLearning(
        thresholds=thresholds,
        confident_joint=confident_joint,
        joint=joint,
        suspected=suspected,
        score=suspected + (1 + excess) / 2,
    )


def knn_shapley(
    embeddings: Float[np.ndarray, "N D"],
    labels: Int[np.ndarray, "N"],
    target_embeddings: Float[np.ndarray, "M D"],
    target_labels: Int[np.ndarray, "M"],
    *,
    neighbours: int,
) -> Float[np.ndarray, "N"]:
    """The exact Shapley value of each example for a classifier by K nearest neighbours.

    The game: a set S of examples is worth to a target (x, y) the share of K votes that are right,

        v(S) = (1/K) Σ_{k ≤ min(K, |S|)} [the k-th nearest of S to x is labelled y],    v(∅) = 0

    With the N examples in the order of their distance to x, and [i] for "i is labelled y":

        s_N = [N] · min(K, N) / (K N)
        s_i = s_{i+1} + ([i] − [i+1]) / K · min(K, i) / i

    and the value is the mean of s over the targets (Jia et al. 2019, "Efficient Task-Specific Data
    Valuation for Nearest Neighbor Algorithms", theorem 1; min(K, N)/K extends it to N < K).

    High means USEFUL: near targets of its own label. Negative means HARMFUL: near targets of other
    labels, as mislabelled examples are. The values sum to v of all examples, averaged over the
    targets. Distances are Euclidean; for cosine similarity give unit vectors. Of two at the same
    distance, to float64 rounding, the earlier counts as nearer.

    Args:
      embeddings, labels: the N ≥ 1 examples. labels are compared for equality alone.
      target_embeddings, target_labels: M ≥ 1 trusted examples. None should be among the N: it would
        be its own nearest neighbour.
      neighbours: K ≥ 1.

    Returns:
      float64 `[N]`, in [−1, 1], without a unit. Time O(M N (D + log N)); targets are taken in parts
      so that memory is O(N) beyond some 100 MiB.

    Raises:
      ValueError: the shapes do not fit, there are no examples or no targets, K < 1, or an embedding
        is not finite.
    """
    rows, targets = len(embeddings), len(target_embeddings)
    shapes = f"embeddings {embeddings.shape}, target_embeddings {target_embeddings.shape}"
    if (
        embeddings.ndim != 2
        or target_embeddings.shape != (targets, embeddings.shape[1])
        or labels.shape != (rows,)
        or target_labels.shape != (targets,)
    ):
        raise ValueError(
            f"{shapes} with labels {labels.shape}, target_labels {target_labels.shape}"
        )
    if not rows or not targets:
        raise ValueError(f"{shapes}: give one example and one target or more")
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}; give 1 or more")
    wide, wide_targets = _finite(embeddings), _finite(target_embeddings)
    squares = (wide**2).sum(axis=1)
    places = np.arange(1, rows)
    steps = np.minimum(neighbours, places) / (neighbours * places)
    last = min(neighbours, rows) / (neighbours * rows)
    total = np.zeros(rows)
    part = max(1, _CELLS // rows)
    for start in range(0, targets, part):
        # less ‖x‖², which all distances to one target share
        distances = squares - 2 * wide_targets[start : start + part] @ wide.T
        order = np.argsort(distances, axis=1, kind="stable")
        votes = (labels[order] == target_labels[start : start + part, None]).astype(np.float64)
        values = np.empty_like(votes)
        values[:, -1] = votes[:, -1] * last
        # from the farthest inwards
        steps_inwards = ((votes[:, :-1] - votes[:, 1:]) * steps)[:, ::-1]
        values[:, :-1] = values[:, -1:] + np.cumsum(steps_inwards, axis=1)[:, ::-1]
        total += np.bincount(order.ravel(), values.ravel(), rows)
    return total / targets


def query_agreement(
    embeddings: Float[np.ndarray, "N D"],
    labels: Int[np.ndarray, "N"],
    queries: Shaped[np.ndarray, "N"],
    *,
    num_classes: int,
    temperature: float = 0.1,
) -> Float[np.ndarray, "N"]:
    """How near the grades of the query's other items are to this one's; similar items count more.

        agreement_i = 1 − Σ_j k_ij |y_i − y_j| / ((C − 1) Σ_j k_ij)        j ≠ i of i's query
        k_ij = exp(cos(e_i, e_j) / τ)

    C is `num_classes`, τ `temperature`. With two classes it is the k-weighted share of the other
    items that have the same label; with more, a neighbour one grade away speaks less against the
    label than one at the other end. It is the estimate of Nadaraya 1964 ("On Estimating
    Regression") and Watson 1964 ("Smooth Regression Analysis"), of the distance between grades and
    within one query, with the example itself left out.

    High means the neighbours AGREE (easy). Low means that similar items of the query have other
    grades, because the label is wrong or a detail decides. It is 1 if the query has no other item:
    nothing contradicts.

    Args:
      embeddings: of the items. An embedding of length 0 has cosine 0 with every other.
      labels: grades in [0, C). queries: any values that can be sorted; equal ones are one query.
      num_classes: C ≥ 2.
      temperature: τ > 0. Towards 0 the most similar item alone counts; towards infinity all
        count the same.

    Returns:
      float64 `[N]`, in [0, 1]. Time O(Σ_q n_q² D), memory O(n_q²) of the largest query.

    Raises:
      ValueError: lengths differ, a label is outside [0, C), an embedding is not finite, C < 2 or
        τ ≤ 0.
    """
    rows = len(embeddings)
    if embeddings.ndim != 2 or labels.shape != (rows,) or queries.shape != (rows,):
        raise ValueError(
            f"embeddings {embeddings.shape} with labels {labels.shape}, queries {queries.shape}"
        )
    if num_classes < 2 or not temperature > 0:
        raise ValueError(
            f"num_classes is {num_classes}, temperature is {temperature}: give 2 or more, above 0"
        )
    _check_labels(labels, num_classes)
    wide, grades = _finite(embeddings), labels.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    directions = wide / np.where(lengths > 0, lengths, 1.0)
    agreement = np.ones(rows)
    _, query = np.unique(queries, return_inverse=True)
    order = np.argsort(query, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(query[order])) + 1):
        if len(members) < 2:
            continue
        similarity = directions[members] @ directions[members].T / temperature
        np.fill_diagonal(similarity, -np.inf)
        # the greatest is 0: no overflow, and some kernel is 1 however small τ is
        kernel = np.exp(similarity - similarity.max(axis=1, keepdims=True))
        apart = np.abs(grades[members][:, None] - grades[members]) / (num_classes - 1)
        contradiction = (kernel * apart).sum(axis=1) / kernel.sum(axis=1)
        agreement[members] = np.maximum(1 - contradiction, 0.0)  # rounding can pass 1
    return agreement


def checked(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The probabilities `[N, K]` in float64, they and the labels `[N]` in their ranges."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"probabilities {probabilities.shape} for labels {labels.shape}")
    _check_labels(labels, probabilities.shape[1])
    wide = probabilities.astype(np.float64)
    broken = np.flatnonzero(~((wide >= 0) & (wide <= 1 + _SLACK)).all(axis=1))
    if len(broken):
        raise ValueError(
            f"{len(broken)} examples have probabilities outside [0, 1], the first is {broken[0]}: "
            "give the softmax of the logits"
        )
    return np.minimum(wide, 1.0)


def _check_labels(labels: np.ndarray, classes: int) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise ValueError(
            f"{len(outside)} labels are outside [0, {classes}), the first is "
            f"{labels[outside[0]]} of example {outside[0]}"
        )


def _finite(embeddings: np.ndarray) -> np.ndarray:
    wide = embeddings.astype(np.float64)
    broken = np.flatnonzero(~np.isfinite(wide).all(axis=1))
    if len(broken):
        raise ValueError(f"{len(broken)} embeddings are not finite, the first is {broken[0]}")
    return wide
