"""A query and an item read together, and a grade out of K: cross-entropy over the grades."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from sie_jax import importance
from sie_jax.importance import influence
from sie_jax.tasks.pairs import Together
from sie_jax.tasks.task import Batch, ClassificationTask, Example


@dataclasses.dataclass(frozen=True)
class Graded(Together, ClassificationTask):
    """The pair of a cross-encoder. Its outputs are the logits `[K]` of the grades, lowest first.

    The loss is −log p_y in nats, y the example's label. Items are ranked by their expected gain.
    """

    output_scores: ClassVar[tuple[str, ...]] = tuple(importance.OUTPUT_SCORES)
    meets: ClassVar[tuple[str, ...]] = tuple(importance.NEEDS)

    def couple(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        return importance.outputs.loss(outputs, batch["label"])

    def score(self, name: str, outputs: jax.Array, batch: Batch) -> jax.Array:
        return importance.OUTPUT_SCORES[name](outputs, batch["label"])

    def margin(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        return importance.outputs.logit_margin(outputs, batch["label"])

    def likeliest(self, outputs: jax.Array) -> jax.Array:
        """The lowest grade among equals."""
        return jnp.argmax(outputs, -1).astype(jnp.int32)

    def drawn(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, jax.lax.stop_gradient(outputs))

    def output_function(self, outputs: jax.Array, example: Example) -> jax.Array:
        """The log-odds of the label, TRAK's output function."""
        return influence.log_odds(outputs, example["label"])

    def residual(self, value: jax.Array) -> jax.Array:
        """1 − p_y."""
        return jax.nn.sigmoid(-value)

    def columns(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """`probability_0` to `probability_<K-1>`, in at least float32."""
        wide = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return {f"probability_{grade}": p for grade, p in enumerate(jax.nn.softmax(wide).T)}
