"""How well influence scores foretell what models trained on subsets of the data will say."""

import numpy as np

from sie_jax.evaluation.detection import midranks


def linear_datamodeling_score(
    scores: np.ndarray, outputs: np.ndarray, subsets: np.ndarray
) -> np.ndarray:
    """LDS: for each target, Spearman's ρ over subsets of Σ_{i ∈ S} τ(z, i) and f(z; θ(S)), `[M]`.

    In [−1, 1]; high: the scores foretell well. Equal values share the mean of their ranks; NaN
    where all sums or all outputs of a target are equal (Park et al. 2023, "TRAK", section 2.2).

    Args:
      scores: float `[M, N]`, the influence of each training example on each target; positive means
        that training on it raises the output.
      outputs: float `[S, M]`, each target's output (its log-odds, say) from a model trained on each
        subset; the mean over several trainings, where they differ.
      subsets: bool `[S, N]`, which examples each subset holds.

    Raises:
      ValueError: the shapes do not fit together.
    """
    (targets, examples), count = scores.shape, len(subsets)
    if outputs.shape != (count, targets) or subsets.shape != (count, examples):
        raise ValueError(
            f"scores {scores.shape}, outputs {outputs.shape} and subsets {subsets.shape} do not "
            "fit: pass [M, N], [S, M] and [S, N]"
        )
    sums = subsets.astype(np.float64) @ scores.T.astype(np.float64)
    return np.array([_spearman(*pair) for pair in zip(sums.T, outputs.T, strict=True)])


def _spearman(left: np.ndarray, right: np.ndarray) -> float:
    ours, theirs = (midranks(values) - (len(values) + 1) / 2 for values in (left, right))
    product = np.sqrt((ours @ ours) * (theirs @ theirs))
    return float(ours @ theirs / product) if product else float("nan")
