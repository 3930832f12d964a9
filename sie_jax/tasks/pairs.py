"""What all tasks of pairs share, and those of a cross-encoder, which reads both texts at once."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from flax import nnx

from sie_jax.tasks.task import Batch, Example

FEATURES = "features"


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A query and an item, and a grade that has a gain.

    graphdef: of the model. gains: of each grade, K numbers.
    """

    graphdef: nnx.GraphDef
    gains: tuple[float, ...]

    def rematerialises(self, params: Any) -> bool:
        """Whether the model was told to."""
        return nnx.merge(self.graphdef, params).remat != "none"

    @property
    def num_labels(self) -> int:
        """As many as there are gains."""
        return len(self.gains)


class Together(Pairs):
    """The pair of a cross-encoder, a `PairClassifier`.

    A batch has FEATURES `[B, F]` where the model's head takes the features of a pair.
    """

    features: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask")

    def outputs(self, params: Any, example: Example, *, key: jax.Array | None = None) -> jax.Array:
        """The logits of the model's labels."""
        model = nnx.merge(self.graphdef, params)
        return model(
            *self._texts(example),
            features=example.get(FEATURES),
            deterministic=key is None,
            key=key,
        )

    def embed(self, params: Any, batch: Batch) -> jax.Array:
        """What the classifier is given."""
        return nnx.merge(self.graphdef, params).embed(*self._texts(batch))

    def head(self, params: Any) -> str:
        """The name of the classifier."""
        return nnx.merge(self.graphdef, params).head

    def _texts(self, arrays: Mapping[str, jax.Array]) -> list[jax.Array]:
        return [arrays[name] for name in self.features]


class Relevance(Together):
    """The pair of a cross-encoder with one output `[]`: its relevance, which ranks items."""

    def outputs(self, params: Any, example: Example, *, key: jax.Array | None = None) -> jax.Array:
        """The one logit."""
        return super().outputs(params, example, key=key)[..., 0]

    def columns(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """`relevance`."""
        return {"relevance": outputs}
