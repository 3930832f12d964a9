"""A query with its items as one list: losses of a ranking, which couple the items of a list."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import rax
from jaxtyping import Array, Float, Int

from sie_jax import per_example
from sie_jax.data.lists import LEAST
from sie_jax.tasks.coupled import CoupledTask
from sie_jax.tasks.pairs import Relevance
from sie_jax.tasks.task import Batch, Outputs, key_of

# of the sigmoid that stands for a step in soft ranks: scores that differ by it are about in order
TEMPERATURE = 0.1

ListLoss = Callable[[Float[Array, "n"], Float[Array, "n"], Int[Array, "n"]], Float[Array, "n"]]


def softmax(
    scores: Float[Array, "n"], gains: Float[Array, "n"], lists: Int[Array, "n"]
) -> Float[Array, "n"]:
    """ℓ = −Σ_i (g_i / Σ_j g_j) log softmax(s)_i of each list; 0 for a list without gain.

    It bounds MRR and nDCG from below (Bruch et al. 2019, "An Analysis of the Softmax Cross Entropy
    Loss for Learning-to-Rank with Binary Relevance").

    Args:
      scores, gains: of n items. lists: the list of each.

    Returns:
      The loss of each item's list.
    """
    share = gains / _positive(_total(gains, lists))
    return _total(rax.softmax_loss(scores, share, segments=lists, reduce_fn=None), lists)


def pairwise(
    scores: Float[Array, "n"], gains: Float[Array, "n"], lists: Int[Array, "n"]
) -> Float[Array, "n"]:
    """ℓ = mean over pairs i, j of a list with g_i > g_j of log(1 + exp(s_j − s_i)); 0 without any.

    Arguments and result are those of `softmax`. Source: Burges et al. 2005, "Learning to Rank Using
    Gradient Descent" (RankNet).
    """
    losses = rax.pairwise_logistic_loss(scores, gains, segments=lists, reduce_fn=None)
    ahead = (gains[:, None] > gains[None, :]) & (lists[:, None] == lists[None, :])
    pairs = _total(jnp.sum(ahead, 1, dtype=scores.dtype), lists)
    return _total(_of_first(losses), lists) / _positive(pairs)


def lambda_loss(
    scores: Float[Array, "n"], gains: Float[Array, "n"], lists: Int[Array, "n"]
) -> Float[Array, "n"]:
    """ℓ = Σ over pairs i, j of a list with g_i > g_j of |Δ| log(1 + exp(s_j − s_i)).

    Δ is (g_i − g_j) / idealDCG times the difference of the discounts at |rank_i − rank_j|, which
    makes it a bound on nDCG; ranks are constants. Arguments and result are those of `softmax`.
    Source: Wang et al. 2018, "The LambdaLoss Framework for Ranking Metric Optimization", 4.2.
    """
    ideal = rax.dcg_metric(gains, gains, segments=lists, gain_fn=_as_it_is, reduce_fn=None)
    share = gains / _positive(_total(ideal, lists))  # rax's own would be that of first items alone
    losses = rax.pairwise_logistic_loss(
        scores, share, segments=lists, lambdaweight_fn=_LAMBDA_WEIGHTS, reduce_fn=None
    )
    # rax multiplies by the number of all items given, of whatever list
    return _total(_of_first(losses), lists) / len(scores)


def approx_ndcg(
    scores: Float[Array, "n"], gains: Float[Array, "n"], lists: Int[Array, "n"]
) -> Float[Array, "n"]:
    """ℓ = −nDCG of each list with soft ranks 1 + Σ_j sigmoid((s_j − s_i) / τ), τ = TEMPERATURE.

    0 for a list without gain. Arguments and result are those of `softmax`. Source: Qin et al. 2010,
    "A General Approximation Framework for Direct Optimization of Information Retrieval Measures".
    """
    values = rax.ndcg_metric(
        scores, gains, segments=lists, gain_fn=_as_it_is, rank_fn=_SOFT_RANKS, reduce_fn=None
    )
    return -_total(values, lists)


LOSSES: dict[str, ListLoss] = {
    "listwise": softmax,
    "pairwise": pairwise,
    "lambda_loss": lambda_loss,
    "approx_ndcg": approx_ndcg,
}
"""The losses of a list, by the names of their tasks."""


@dataclasses.dataclass(frozen=True)
class Listed(Relevance, CoupledTask):
    """The pair of a cross-encoder with one output s, whose loss is that of its query's list.

    Loss i is the loss of the list of row i: rows with one `batch["list"]` are of one list, and
    every padding row is a list of its own, whose loss is 0. So F = Σ_i ℓ_i counts a list by its
    rows. Row i's contribution is ∂F/∂s_i ∇s_i.

    name: of LOSSES.
    """

    name: str

    least: ClassVar[int] = LEAST

    def couple(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        wide = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        gains = jnp.asarray(self.gains, wide.dtype)[batch["label"]]
        if "mask" in batch:
            gains = jnp.where(batch["mask"], gains, 0)
        return LOSSES[self.name](wide, gains, batch["list"])

    def norms(
        self,
        params: Any,
        batch: Batch,
        *,
        dropout_key: jax.Array | None = None,
        per_leaf: bool = False,
    ) -> tuple[Any, Outputs]:
        norms, outputs = self.output_norms(
            params, batch, dropout_key=dropout_key, per_leaf=per_leaf
        )
        # the output is one number, so that its gradient has only to be scaled
        scale = jnp.abs(self.slopes(outputs, batch)[0])
        return jax.tree.map(lambda norm: scale * norm, norms), outputs

    def output_norms(
        self,
        params: Any,
        batch: Batch,
        *,
        dropout_key: jax.Array | None = None,
        per_leaf: bool = False,
    ) -> tuple[Any, Outputs]:
        """‖∇s_i‖ `[B]`, by leaf if asked for, and the outputs; no list is read."""

        def outputs(params: Any, example: Any) -> tuple[jax.Array, jax.Array]:
            relevance = self.outputs(params, example, key=key_of(example, dropout_key))
            return relevance, relevance

        return per_example.grad_norms(outputs, has_aux=True, per_leaf=per_leaf)(params, batch)


def _total(values: jax.Array, lists: jax.Array) -> jax.Array:
    """The sum over each item's list."""
    return jnp.sum(jnp.where(lists[:, None] == lists[None, :], values[None, :], 0), 1)


def _of_first(pairs: jax.Array) -> jax.Array:
    """Sums over the pairs `[n · n]` of the same first item."""
    return jnp.sum(pairs.reshape(math.isqrt(len(pairs)), -1), 1)


def _positive(values: jax.Array) -> jax.Array:
    """Itself where it is above 0, else 1: to divide by."""
    return jnp.where(values > 0, values, 1)


def _as_it_is(values: jax.Array) -> jax.Array:
    return values


def _step(difference: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(difference / TEMPERATURE)


_LAMBDA_WEIGHTS = functools.partial(rax.dcg2_lambdaweight, gain_fn=_as_it_is)
_SOFT_RANKS = functools.partial(rax.utils.approx_ranks, step_fn=_step)
