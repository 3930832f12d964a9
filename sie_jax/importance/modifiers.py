"""Policies around a policy: one weight per group, groups held to their shares, uniform mixed in.

All keep the guarantees of the table in `policies`. `Mixed(Balanced(…))` has both properties: the
uniform weights that are mixed in are balanced themselves.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from sie_jax.importance.policies import Policy, Scores, Uniform, Weights, Where
from sie_jax.importance.precision import wide


# compared and hashed by identity, because the groups are an array
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Together:
    """The policy's weights of the groups' mean scores: all rows of a group get one weight.

    A score that is not finite is left out of the mean, and its row has weight 0 as always. The
    policy sees the mean once for every row, so that its median and quantiles are those of rows.

    Losses that couple the rows of a group need it: their contributions nearly cancel within the
    group, and weights that differ there break the balance.

    policy: which sees the means.
    groups: int `[N]`, from 0 to num_groups − 1, in the order of the scores; any for padding rows.
    """

    policy: Policy
    groups: Int[np.ndarray, " n"]
    num_groups: int

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        groups, scores = jnp.asarray(self.groups), wide(scores)
        known = jnp.isfinite(scores) if where is None else jnp.isfinite(scores) & where

        def total(values: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(jnp.where(known, values, 0), groups, self.num_groups)

        count = total(jnp.ones_like(scores))
        mean = total(scores) / jnp.maximum(count, 1)
        return self.policy(jnp.where(known, mean[groups], scores), where=where)


# compared and hashed by identity, because the groups are an array
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Balanced:
    """w_i · (n_q / N) / Σ_q w for i in group q: every group's weights sum to its share of the rows.

    n_q of the N rows with a finite score are in q. The policy then decides within each class or
    query alone. Without this, one that favours the hard moves weight to rare classes and ambiguous
    queries, one that favours the easy moves it away from them, and the model learns other class
    frequencies than those of the data. The share is that of the rows, and not the same for every
    group, so that uniform weights stay as they are. The policy itself still sees all scores
    together: its median, ranks and quantiles are those of the whole.

    Label noise that differs between groups is not evened out: a class of wrong labels keeps its
    share. A group whose weights are all 0 (as `Keep` leaves them) becomes uniform within itself.

    policy: whose weights `[N]` are balanced.
    groups: int `[N]`, from 0 to num_groups − 1, in the order of the scores; any for padding rows.
    """

    policy: Policy
    groups: Int[np.ndarray, " n"]
    num_groups: int

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        weights = self.policy(scores, where=where)
        rows = Uniform()(scores, where=where)
        groups = jnp.asarray(self.groups)

        def total(values: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(values, groups, self.num_groups)[groups]

        of_group = total(weights)
        tiny = jnp.finfo(of_group.dtype).tiny
        within = weights / jnp.maximum(of_group, tiny)
        return jnp.where(of_group >= tiny, within * total(rows), rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed:
    """(1 − λ) w_i + λ/N, λ = `uniform`: no row with a finite score weighs less than λ/N.

    It moves every policy towards trusting all labels alike, and so bounds what the policy can do
    for good or ill: what `Keep` drops, wrong labels included, comes back with λ/N. A row whose
    score is not finite keeps weight 0.

    policy: whose weights are mixed. uniform: λ from 0 (the weights as they are) to 1 (uniform).
    """

    policy: Policy
    uniform: float

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        weights = self.policy(scores, where=where)
        return (1 - self.uniform) * weights + self.uniform * Uniform()(scores, where=where)
