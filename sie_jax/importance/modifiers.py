"""What can be done to any policy's weights: hold them to groups' shares, mix them with uniform.

Both keep the guarantees of the table in `weighting`. Balanced first and mixed after, weights have
both properties: the uniform ones that are mixed in are balanced themselves.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sie_jax.importance import weighting


def balanced(
    weights: Float[Array, " n"],
    groups: Int[Array, " n"],
    *,
    num_groups: int,
    scores: Float[Array, " n"],
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """w_i · (n_q / N) / Σ_q w for i in group q: every group's weights sum to its share of the rows.

    n_q of the N rows with a finite score are in q. A policy then decides within each class or query
    alone. Without this, one that favours the hard moves weight to rare classes and ambiguous
    queries, one that favours the easy away from them, and the model learns other class frequencies
    than the data's. The share is that of the rows, and not the same for every group, so that
    uniform weights stay as they are. The policy itself still sees all scores together: its median,
    ranks and quantiles are those of the whole.

    Label noise that differs between groups is not evened out: a class of wrong labels keeps its
    share. A group whose weights are all 0 (as `keep` leaves them) becomes uniform within itself.

    Args:
      weights: float `[N]`, a policy's, of these scores and this `where`.
      groups: int `[N]`, from 0 to num_groups − 1; of padding rows any of them.
      scores: float `[N]`, what the weights were made of: a row whose score is not finite is no row.
      where: bool `[N]`, False for padding.

    Returns:
      Float `[N]`, at least float32, sum 1.
    """
    rows = weighting.uniform(scores, where=where)

    def total(values: Array) -> Array:
        return jax.ops.segment_sum(values, groups, num_groups)[groups]

    of_group = total(weights)
    tiny = jnp.finfo(of_group.dtype).tiny
    within = weights / jnp.maximum(of_group, tiny)
    return jnp.where(of_group >= tiny, within * total(rows), rows)


def mixed(
    weights: Float[Array, " n"],
    *,
    uniform: float,
    scores: Float[Array, " n"],
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """(1 − λ) w_i + λ/N, λ = `uniform`: no row with a finite score weighs less than λ/N.

    Moves every policy towards trusting all labels alike, and so bounds what it can do for good or
    ill: what `keep` drops, wrong labels included, comes back with λ/N.

    Args:
      weights: float `[N]`, a policy's, of these scores and this `where`.
      uniform: λ from 0 (the weights as they are) to 1 (uniform).
      scores: float `[N]`, what the weights were made of: one that is not finite keeps weight 0.
      where: bool `[N]`, False for padding, which stays 0.

    Returns:
      Float `[N]`, at least float32, sum 1.
    """
    return (1 - uniform) * weights + uniform * weighting.uniform(scores, where=where)
