"""Policies that turn scores into weights over the objective: uniform, proportional, clipped.

A policy is an unnormalised φ(score) ≥ 0; `normalise` is the one function that makes weights of it.
Weights change the objective to Σ w_i ℓ_i. Drawing examples with probability p_i and correcting by
1/(N p_i) does not, and is another thing (sampling).

What every policy guarantees, for scores `[N]` ≥ 0 and a boolean `where` `[N]`:

| case                                    | weights                                   |
| --------------------------------------- | ----------------------------------------- |
| always                                  | finite, ≥ 0, sum 1 over `where`           |
| `where` is False (padding)              | exactly 0, whatever the score, NaN too    |
| all scores equal, or all 0              | uniform over `where`                      |
| a score that is NaN or infinite         | 0: a broken example has no say            |
| every score NaN or infinite             | uniform over `where`                      |
| `where` is False everywhere             | all 0                                     |
| examples reordered                      | the same weights, reordered               |

Online, a policy sees one global batch and the update is Σ w_i ∇ℓ_i. Offline, it sees the training
set, and a batch of B uses w_i · N/B, so that the expected step is as large as a uniform one.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Policy = Callable[..., Array]


def uniform(scores: Float[Array, " n"], *, where: Bool[Array, " n"] | None = None) -> Array:
    """w_i = 1/N: φ = 1 for every example with a finite score."""
    return normalise(jnp.ones_like(scores), scores=scores, where=where)


def proportional(scores: Float[Array, " n"], *, where: Bool[Array, " n"] | None = None) -> Array:
    """w_i = g_i / Σ_j g_j: φ(g) = g, the textbook formula.

    It favours what the model finds hard, and a mislabelled example is hard: on noisy labels it
    trains on the errors. Needs no batch statistic, so numerator and denominator accumulate exactly
    over microbatches.
    """
    return normalise(scores, scores=scores, where=where)


def clipped(scores: Float[Array, " n"], *, where: Bool[Array, " n"] | None = None) -> Array:
    """w_i ∝ min(1, c/g_i), c the median of the scores: no example pulls harder than the median one.

    With g the gradient norm, w_i‖∇ℓ_i‖ ≤ c/Σφ, as in per-example gradient clipping (Abadi et al.
    2016) with c taken from the data. g = 0 gives φ = 1. Where the median itself is 0 it bounds
    nothing, and the weights are uniform. The median needs the whole batch: microbatches take all
    norms first and one weighted backward pass after.
    """
    where = _where(scores, where)
    scores = _wide(scores)
    median = jnp.nanmedian(jnp.where(where & jnp.isfinite(scores), scores, jnp.nan))
    bounded = jnp.where(scores > median, median / jnp.maximum(scores, median), 1.0)
    return normalise(jnp.where(median > 0, bounded, 1.0), scores=scores, where=where)


POLICIES: dict[str, Policy] = {
    "uniform": uniform,
    "proportional": proportional,
    "clipped": clipped,
}


def normalise(
    values: Float[Array, " n"],
    *,
    scores: Float[Array, " n"],
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """w_i = φ_i / Σ_j φ_j over `where`, with the guarantees of this module's table.

    `values` are the φ_i ≥ 0, `scores` what they were computed from (a non-finite score takes the
    example out). In at least float32, without overflow for any finite φ.
    """
    inside = _where(values, where)
    values = _wide(values)
    usable = inside & jnp.isfinite(scores) & jnp.isfinite(values)
    values = jnp.where(usable, values, 0.0)
    largest = jnp.max(values, initial=0.0)
    # an exact power of two that keeps both the sum and its reciprocal inside float32's range
    scaled = values * jnp.where(largest > 1, 2.0**-64, 2.0**64)
    values = jnp.where(largest > 0, scaled, 1.0 * usable)
    # nothing usable (every score broken): uniform over what is inside
    values = jnp.where(jnp.any(usable), values, 1.0 * inside)
    return values / jnp.maximum(jnp.sum(values), jnp.finfo(values.dtype).tiny)


def _where(values: Array, where: Array | None) -> Array:
    return jnp.ones(values.shape, bool) if where is None else where


def _wide(values: Array) -> Array:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
