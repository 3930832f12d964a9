"""A query and an item read apart, by two towers: every item of the batch ranked for every query."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sie_jax.importance.gradients import layer_norms
from sie_jax.tasks.coupled import CoupledTask
from sie_jax.tasks.pairs import Pairs
from sie_jax.tasks.task import Batch, Example

TEMPERATURE = 0.05
SIDES = ("query", "item")

Outputs = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Contrastive(Pairs, CoupledTask):
    """The pair of two towers (`models.Towers`): a vector of the query and one of the item.

    Items are ranked by the cosine. The loss of row i, with query vector q_i, item vector v_i and
    gain g_i, is

        ℓ_i = −t_i log ( exp(⟨q_i, v_i⟩/τ) / Σ_{k ∈ C_i} exp(⟨q_i, v_k⟩/τ) )
        t_i = g_i / Σ_{j of i's query} g_j

    and 0 for a row without gain. C_i are the item itself and its negatives in the batch
    (`negatives`). Without dropout, and with all items in every C_i, F = Σ_i ℓ_i would be the sum of
    the lists' `listed.softmax` over all items of the batch; so a query counts once, however many
    items it has.

    Row i is one unit: its contribution is that of its query's vector and of its item's, which reach
    the parameters together: (∂F/∂q_i)ᵀ ∇q_i + (∂F/∂v_i)ᵀ ∇v_i. A row without gain has one too,
    since its item is a negative of others. With dropout the two have masks of their own.

    Sources: Karpukhin et al. 2020, "Dense Passage Retrieval for Open-Domain Question Answering"
    (in-batch negatives); Qu et al. 2021, "RocketQA" (how many negatives are false).

    temperature: τ > 0.
    """

    temperature: float = TEMPERATURE

    features: ClassVar[tuple[str, ...]] = ("query_ids", "query_mask", "item_ids", "item_mask")
    least: ClassVar[int] = 1  # the items of other queries are there to be ranked against
    norms_cost: ClassVar[int] = 3

    def outputs(self, params: Any, example: Example, *, key: jax.Array | None = None) -> Outputs:
        """`query` and `item`, `[H]` each, of norm 1."""
        towers = nnx.merge(self.graphdef, params)
        keys = (None, None) if key is None else jax.random.split(key)

        def vector(side: str, key: jax.Array | None) -> jax.Array:
            arrays = example[f"{side}_ids"], example[f"{side}_mask"]
            return towers(*arrays, deterministic=key is None, key=key)

        return {side: vector(side, own) for side, own in zip(SIDES, keys, strict=True)}

    def couple(self, outputs: Outputs, batch: Batch) -> jax.Array:
        query, item = outputs["query"], outputs["item"]
        gains = jnp.asarray(self.gains, query.dtype)[batch["label"]]
        gains = jnp.where(batch["mask"], gains, 0)
        lists = batch["list"]
        total = jnp.sum(jnp.where(lists[:, None] == lists[None, :], gains, 0), 1)
        share = gains / jnp.where(total > 0, total, 1)
        # in full precision: an error of the cosine counts 1/τ times
        cosines = jnp.matmul(query, item.T, precision=jax.lax.Precision.HIGHEST)
        others = negatives(gains, lists, batch["item"]) & batch["mask"]
        candidates = others | jnp.eye(len(gains), dtype=bool)
        logits = jnp.where(candidates, cosines / self.temperature, -jnp.inf)
        return -share * jnp.diagonal(jax.nn.log_softmax(logits))

    def embed(self, params: Any, batch: Batch) -> jax.Array:
        """q ⊙ v, whose entries add up to the cosine."""
        outputs = self.outputs(params, batch)
        return outputs["query"] * outputs["item"]

    def head(self, params: Any) -> str:
        """The last layer of the encoder, since nothing stands above it."""
        names = layer_norms(jax.tree.map(lambda _: jnp.zeros(1), params))
        numbers = {name: name.rpartition(".")[2] for name in names}
        return max(
            (name for name, number in numbers.items() if number.isdigit()),
            key=lambda name: int(numbers[name]),
        )

    def columns(self, outputs: Outputs) -> dict[str, jax.Array]:
        """`relevance`, the cosine."""
        return {"relevance": jnp.sum(outputs["query"] * outputs["item"], -1)}


def negatives(
    gains: Float[Array, "n"], lists: Int[Array, "n"], items: Int[Array, "n"]
) -> Bool[Array, "n n"]:
    """Whether item k is a negative for the query of row i: `[i, k]`.

    It is one where it is an item of the same query with less gain than item i, or an item of
    another query that the query of row i is not known to want: none of that query's own rows has
    the same item and a gain above 0. An item that nobody judged for the query may still be wanted.

    Args:
      gains: of n rows. lists: the query of each. items: the item of each, equal numbers for equal
        items.
    """
    same = lists[:, None] == lists[None, :]
    equal = (items[:, None] == items[None, :]).astype(jnp.float32)
    wanted = jnp.matmul((same & (gains > 0)).astype(jnp.float32), equal) > 0
    return jnp.where(same, gains[None, :] < gains[:, None], ~wanted)
