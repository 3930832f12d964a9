"""A query and an item read together, and a grade out of K: cross-entropy over the grades."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Float64, Num

from sie_jax import importance
from sie_jax.importance import influence
from sie_jax.tasks.task import Batch, Example, LabelledTask


@dataclasses.dataclass(frozen=True)
class Graded(LabelledTask):
    """The pair of a cross-encoder. Its outputs are the logits `[K]` of the grades, lowest first.

    The loss is −log p_y in nats, y the example's label. Items are ranked by their expected gain.

    graphdef: of a `PairClassifier`. gains: of each grade, K numbers.
    """

    graphdef: nnx.GraphDef
    gains: tuple[float, ...]

    features: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask")
    output_scores: ClassVar[tuple[str, ...]] = tuple(importance.OUTPUT_SCORES)

    def outputs(self, params: Any, example: Example, *, key: jax.Array | None = None) -> jax.Array:
        model = nnx.merge(self.graphdef, params)
        return model(*self._features(example), deterministic=key is None, key=key)

    def couple(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        return importance.outputs.loss(outputs, batch["label"])

    def rematerialises(self, params: Any) -> bool:
        return nnx.merge(self.graphdef, params).remat != "none"

    @property
    def num_labels(self) -> int:
        return len(self.gains)

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

    def embed(self, params: Any, batch: Batch) -> jax.Array:
        return nnx.merge(self.graphdef, params).embed(*self._features(batch))

    def head(self, params: Any) -> str:
        return nnx.merge(self.graphdef, params).head

    def predictions(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """`probabilities` `[B, K]`, in at least float32."""
        wide = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return {"probabilities": jax.nn.softmax(wide)}

    def columns(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """`probability_0` to `probability_<K-1>`."""
        probabilities = self.predictions(outputs)["probabilities"]
        return dict(zip(self._columns(), probabilities.T, strict=True))

    def from_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"probabilities": np.stack([columns[name] for name in self._columns()], 1)}

    def rank(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """The expected gains."""
        return expected_gains(predictions["probabilities"], self.gains)

    def _features(self, arrays: Mapping[str, jax.Array]) -> list[jax.Array]:
        return [arrays[name] for name in self.features]

    def _columns(self) -> list[str]:
        return [f"probability_{grade}" for grade in range(self.num_labels)]


def expected_gains(
    probabilities: Float[np.ndarray, "N K"], gains: Sequence[float] | Num[np.ndarray, "K"]
) -> Float64[np.ndarray, "N"]:
    """Σ_c p_c · gain_c of each pair, float64.

    Equal rows of `probabilities` give bit-equal gains wherever they stand, so that ties stay ties.

    Args:
      probabilities: of the classes, lowest grade first.
      gains: of each class.
    """
    # Not `probabilities @ gains`: BLAS may add the last rows of a matrix in another order.
    return (probabilities.astype(np.float64) * np.asarray(gains, np.float64)).sum(-1)
