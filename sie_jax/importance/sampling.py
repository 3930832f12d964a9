"""Sampling: examples drawn with unequal probabilities, and corrected so that nothing is biased.

A draw i ~ p with the correction c_i = 1/(N p_i) has E[c_i ∇ℓ_i] = Σ_i p_i ∇ℓ_i / (N p_i) = ∇ℓ̄, the
gradient of the plain mean loss: sampling leaves the objective as it is and changes the variance of
the steps (Zhao and Zhang 2015, "Stochastic Optimization with Importance Sampling"). Weights, which
change the objective, are another thing (`policies`).

The variance is least for p ∝ ‖∇ℓ_i‖ (Zhao and Zhang 2015; Alain et al. 2015, "Variance Reduction in
SGD by Distributed Importance Sampling"; Katharopoulos and Fleuret 2018, "Not All Samples Are
Created Equal"). Norms are out of date as soon as the model has moved; p_i ≥ λ/N bounds what that
can cost. Wrong labels are drawn more often and count less each time: they are neither favoured nor
excluded.

These functions take and return host arrays, in float64, so that every process draws the same rows.
"""

import numpy as np


def probabilities(weights: np.ndarray) -> np.ndarray:
    """p_i = w_i / Σ_j w_j in float64, from the weights that a policy gives the scores.

    `Mixed(policy=Tempered(power=α), uniform=λ)(g)` gives p_i = (1 − λ) g_i^α / Σ_j g_j^α + λ/N:
    then p_i ≥ λ/N, and no correction is above 1/λ, apart from the rounding of float32. If all
    scores are equal or 0, a policy's weights are uniform, and so is p.

    Args:
      weights: float `[N]`, finite, all > 0.

    Returns:
      float64 `[N]`, sum 1.

    Raises:
      ValueError: a weight is 0 or not finite. An example that is never drawn, such as one with a
        score of NaN, is missing from the mean, and no correction of the others makes up for it.
    """
    broken = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if len(broken):
        raise ValueError(
            f"{len(broken)} examples would never be drawn, the first is {broken[0]} with weight "
            f"{weights[broken[0]]}: mix the weights with uniform ones, and give finite scores"
        )
    wide = weights.astype(np.float64)
    return wide / wide.sum()


def correction(probabilities: np.ndarray) -> np.ndarray:
    """c_i = 1/(N p_i), float64 `[N]`: what a drawn example's loss is multiplied by; E[c] = 1.

    Examples with p_i = 0 are not among those that are drawn from: they have c_i = 0, and N counts
    the others.
    """
    drawn = probabilities > 0
    return np.divide(1, drawn.sum() * probabilities, out=np.zeros(len(drawn)), where=drawn)


def effective_sample_size(weights: np.ndarray) -> float:
    """(Σ_i w_i)² / Σ_i w_i²: the number of equally weighted examples these amount to (Kish 1965).

    weights: float `[n]` ≥ 0, the corrections of a batch or a policy's weights; 0.0 if all are 0.
    From 1 (one example has everything) to n (all weigh the same).
    """
    wide = np.asarray(weights, np.float64)
    squares = float((wide**2).sum())
    return float(wide.sum() ** 2 / squares) if squares else 0.0


def gradient_variance(
    squared_norms: np.ndarray,
    probabilities: np.ndarray,
    *,
    squared_norm_of_mean: float,
    batch_size: int = 1,
) -> float:
    """tr Cov of the mean corrected gradient of B draws: (Σ_i ‖g_i‖²/(N² p_i) − ‖ḡ‖²) / B.

    The expected squared distance between the gradient of a batch drawn by p, with replacement, and
    the full gradient ḡ = Σ_i g_i / N (Alain et al. 2015). Compare it with that of uniform draws,
    p_i = 1/N. The least possible, for p_i ∝ ‖g_i‖, is ((Σ_i ‖g_i‖ / N)² − ‖ḡ‖²) / B. ‖ḡ‖² is the
    same for every p; 0 in its place leaves differences between two p as they are.

    Args:
      squared_norms: float `[N]`, ‖g_i‖² ≥ 0. probabilities: float `[N]`, > 0, sum 1.
      squared_norm_of_mean: ‖ḡ‖². batch_size: B.

    Returns:
      The variance, ≥ 0 apart from rounding.

    Raises:
      ValueError: the lengths differ.
    """
    if squared_norms.shape != probabilities.shape:
        raise ValueError(
            f"{squared_norms.shape} squared norms for {probabilities.shape} probabilities"
        )
    wide = squared_norms.astype(np.float64)
    second_moment = (wide / probabilities).sum() / len(wide) ** 2
    return float((second_moment - squared_norm_of_mean) / batch_size)
