"""Explanations: the training examples that pushed a prediction most, for it and against it."""

from typing import NamedTuple

import numpy as np

# how many floats of an array [targets, N], or of a copy of [N, D], are in memory at once
MOST_ENTRIES = 1 << 24


class Pushes(NamedTuple):
    """For each of M targets the k training examples of most influence on it, the strongest first.

    Attributes:
      examples: int64 `[M, k]`, places among the N training examples.
      influence: float64 `[M, k]`, their influence.
    """

    examples: np.ndarray
    influence: np.ndarray


def explain(
    training: np.ndarray,
    residuals: np.ndarray,
    targets: np.ndarray,
    *,
    damping: float,
    top: int,
) -> tuple[Pushes, Pushes]:
    """The `top` training examples for every target, and the `top` against it, by TRAK's influence.

        τ_i(z) = φ(z)ᵀ (ΦᵀΦ + λI)⁻¹ φ_i · (1 − p_i),    λ = damping · trace(ΦᵀΦ) / D

    φ is the projected gradient of an output function f, the log-odds of a class: of its label for a
    training example, of the class to be explained for a target. τ_i estimates how much f(z) would
    fall if example i were left out. Positive: training on i raised the target's log-odds, it speaks
    FOR the class. Negative: it speaks AGAINST it. The signs and the order are estimates, the
    amounts are not: the factors p(1 − p) of the loss's curvature are left out of ΦᵀΦ.
    Park et al. 2023 ("TRAK: Attributing Model Behavior at Scale", section 3) with one model, where
    theirs averages over several, and with λ, which damps the directions that few examples have;
    their formula has none.

    Examples that tie are ordered by place. The first k are "for" even if fewer than k influences
    are positive, and likewise "against": look at the signs.

    Cost: N D² + M N D multiplications, on the host in float64; no array [M, N] of more than
    MOST_ENTRIES floats is made (one row of N at the least).

    Args:
      training: Φ, float `[N, D]`.
      residuals: 1 − p_i, float `[N]`, p_i the probability that the model gives the label.
      targets: φ(z), float `[M, D]`, projected by the same matrix as `training`.
      damping: λ in units of the mean eigenvalue of ΦᵀΦ, > 0.
      top: k ≥ 1; if it is above N, all N are given.

    Returns:
      What speaks for each target, by falling τ, and what speaks against it, by rising τ.

    Raises:
      ValueError: the shapes do not fit, the damping or `top` is not positive, a value is not
        finite, or the training projections are all 0.
    """
    number, dim = training.shape
    if residuals.shape != (number,) or targets.shape[1:] != (dim,):
        raise ValueError(
            f"training {training.shape}, residuals {residuals.shape}, targets {targets.shape}: "
            "give [N, D], [N] and [M, D]"
        )
    if damping <= 0 or top < 1:
        raise ValueError(f"damping is {damping}, top is {top}: give positive numbers")
    for name, values in (("residuals", residuals), ("targets", targets)):
        if not np.isfinite(values).all():
            raise ValueError(f"the {name} are not all finite")
    kernel = np.zeros((dim, dim))
    for block in _blocks(number, dim):
        wide = training[block].astype(np.float64)
        kernel += wide.T @ wide
    trace = np.trace(kernel)
    if not 0 < trace < np.inf:
        raise ValueError("the training projections are all 0, or not all finite")
    kernel += damping * trace / dim * np.eye(dim)
    solved = np.linalg.solve(kernel, targets.T.astype(np.float64)).T
    most = min(top, number)
    speaking_for, speaking_against = (
        Pushes(np.empty((len(targets), most), np.int64), np.empty((len(targets), most)))
        for _ in range(2)
    )
    for some in _blocks(len(targets), number):
        influence = np.empty((some.stop - some.start, number))
        for block in _blocks(number, dim):
            wide = training[block].astype(np.float64)
            influence[:, block] = solved[some] @ wide.T * residuals[block]
        for place, row in enumerate(influence, some.start):
            for push, values in ((speaking_for, row), (speaking_against, -row)):
                push.examples[place] = first(values, most)
                push.influence[place] = row[push.examples[place]]
    return speaking_for, speaking_against


def first(values: np.ndarray, number: int) -> np.ndarray:
    """Places of the `number` greatest values, falling; exact ties by place. int64 `[number]`."""
    least = np.partition(values, len(values) - number)[len(values) - number]
    candidates = np.flatnonzero(values >= least)
    return candidates[np.argsort(-values[candidates], kind="stable")][:number]


def _blocks(length: int, width: int) -> list[slice]:
    """Slices of `length` rows that hold MOST_ENTRIES entries at most, or one row."""
    size = max(MOST_ENTRIES // width, 1)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
