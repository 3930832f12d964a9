"""What a family of encoders states about itself, so that no other file knows its names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from transformers import PretrainedConfig


class Encoder(Protocol):
    """What a model asks of its encoder, a `flax.nnx.Module`.

    The encoder creates each parameter with the metadata `mesh_axes`, which says how a mesh splits
    it (`sie_jax.devices.mesh`). `layers.linear` and `layers.embedding` do so.

    Attributes:
      remat: one of `layers.REMAT`; it can be set at any time before `nnx.split`.
      word_embeddings: the table `[V, hidden]`, by which a pretraining head predicts words.
    """

    remat: str
    word_embeddings: nnx.Param[Any]

    @property
    def architecture(self) -> Architecture:
        """The family."""

    @property
    def config(self) -> PretrainedConfig:
        """A copy of the configuration."""

    def __call__(
        self,
        input_ids: Int[Array, "*leading T"],
        token_type_ids: Int[Array, "*leading T"] | None = None,
        attention_mask: Int[Array, "*leading T"] | Bool[Array, "*leading T"] | None = None,
        *,
        deterministic: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*leading T hidden"]:
        """The last hidden state, in the compute dtype."""

    def pool(self, hidden: Float[Array, "*leading T hidden"]) -> Float[Array, "*leading hidden"]:
        """One vector for a text, from its last hidden state."""

    def products(self, length: int) -> int | None:
        """Multiply-adds of one forward pass over a row of `length` tokens, `pool` included.

        Only products of matrices count. None if the number is not known: a run then reports no
        utilisation.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A family of encoders. Each family has one instance, in its own file, listed in `families`.

    Attributes:
      model_type: the name of the family in a folder's config.json.
      prefix: the attribute that holds the encoder in a model with heads. transformers uses the same
        word (`base_model_prefix`), so stored names of tensors begin with it.
      class_name: what the names of transformers' classes begin with, as in `BertModel`.
      config: the class of the family's configurations. They have vocab_size, hidden_size,
        max_position_embeddings, initializer_range, hidden_dropout_prob and classifier_dropout, and
        for the heads of pretraining hidden_act and layer_norm_eps.
      encoder: builds an encoder with a pooler: `encoder(config, *, dtype, rngs)`.
      names: the words of a parameter's path whose stored names differ from ours. That `kernel` and
        `scale` are stored as `weight` need not be said.
      pooler: our name of the layer that `Encoder.pool` applies.
      classifier: our name of the layer that gives the logits.
    """

    model_type: str
    prefix: str
    class_name: str
    config: type[PretrainedConfig]
    encoder: Callable[..., Encoder]
    names: Mapping[str, str] = dataclasses.field(hash=False)
    pooler: str = "pooler"
    classifier: str = "classifier"

    def stored(self, *path: Any) -> str:
        """The stored name of a parameter, from its path in our model, part by part."""
        names = {"kernel": "weight", "scale": "weight", **self.names}
        return ".".join(names.get(str(part), str(part)) for part in path)
