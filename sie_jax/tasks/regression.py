"""A query and an item read together, and one number: regression to the gain."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from sie_jax.tasks.pairs import Relevance
from sie_jax.tasks.task import Batch, Example, ScalarTask


@dataclasses.dataclass(frozen=True)
class Regression(Relevance, ScalarTask):
    """The pair of a cross-encoder with one output s. Items are ranked by it.

    The loss is (s − g_y)² / 2, y the example's label and g its gain; the expected gain has the
    least.
    """

    output_scores: ClassVar[tuple[str, ...]] = ("loss",)
    meets: ClassVar[tuple[str, ...]] = (
        "outputs",
        "gradients",
        "optimizer",
        "checkpoints",
        "targets",
        "embeddings",
    )

    def couple(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        return self.output_function(outputs, batch) ** 2 / 2

    def score(self, name: str, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Its one score is the loss."""
        assert name in self.output_scores
        return self.couple(outputs, batch)

    def output_function(self, outputs: jax.Array, example: Example) -> jax.Array:
        """s − g_y."""
        return outputs - jnp.asarray(self.gains, outputs.dtype)[example["label"]]

    def residual(self, value: jax.Array) -> jax.Array:
        """g_y − s."""
        return -value
