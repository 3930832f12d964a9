"""PretrainingModel: BERT with the two heads that it is pretrained with."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray
from transformers import BertConfig

from sie_jax.models import huggingface
from sie_jax.models.bert import ACTIVATIONS, FlaxBert, layer_norm, linear


class PretrainingModel(nnx.Module):
    """BERT, a head that names masked words, and one that tells whether two texts belong together.

        vocabulary logits at a position = E LayerNorm(act(W h + w)) + b
        pair logits = R tanh(P h_0 + p) + r

    with h the last hidden states, h_0 that of the first token and E the word embeddings, shared
    with the encoder: the same network as `transformers.BertForPreTraining` (Devlin et al. 2019,
    section 3.1). Class 0 of the pair means that the texts belong together, as it does there.

    Like `FlaxBert` it holds `nnx.Param` and nothing else and keeps its parameters in float32.

    Args:
      config: `transformers.BertConfig`.
      dtype: the compute dtype, float32 or bfloat16; logits are float32 always.
      rngs: initialises as BERT does.

    Raises:
      UserError: as `FlaxBert`.
    """

    def __init__(
        self, config: BertConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        hidden = config.hidden_size
        self._activation = config.hidden_act
        self._dtype = jnp.dtype(dtype)
        self.bert = FlaxBert(config, dtype=dtype, rngs=rngs)
        self.transform = linear(hidden, hidden, config, dtype, rngs)
        self.transform_norm = layer_norm(config, dtype, rngs)
        self.vocabulary_bias = nnx.Param(jnp.zeros(config.vocab_size, jnp.float32))
        self.relationship = linear(hidden, 2, config, jnp.float32, rngs)

    @property
    def config(self) -> BertConfig:
        """A copy of the configuration."""
        return self.bert.config

    def __call__(
        self,
        input_ids: Int[Array, "*leading T"],
        token_type_ids: Int[Array, "*leading T"],
        attention_mask: Int[Array, "*leading T"] | Bool[Array, "*leading T"],
        positions: Int[Array, "*leading P"],
        *,
        deterministic: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "*leading P V"], Float[Array, "*leading 2"]]:
        """The vocabulary logits at `positions` alone, and the pair logits.

        Logits at every position would be most of the work and of the memory; the masked ones are
        a quarter of them at most. Other arguments and errors as in `FlaxBert.__call__`.
        """
        hidden = self.bert(
            input_ids, token_type_ids, attention_mask, deterministic=deterministic, key=key
        )
        chosen = jnp.take_along_axis(hidden, positions[..., None], axis=-2)
        transformed = self.transform_norm(ACTIVATIONS[self._activation](self.transform(chosen)))
        words = jnp.einsum(
            "...h,vh->...v",
            transformed,
            self.bert.word_embeddings[...].astype(self._dtype),
            preferred_element_type=jnp.float32,
        )
        pooled = self.bert.pool(hidden).astype(jnp.float32)
        return words + self.vocabulary_bias[...], self.relationship(pooled)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs | None = None
    ) -> tuple[PretrainingModel, huggingface.LoadReport]:
        """Read a Hugging Face folder; the pooler and the heads that it lacks are initialised.

        Raises:
          UserError: the folder cannot be read as a BERT, with the reason in one line.
        """
        config = huggingface.read_config(folder)
        # the fields that are of a classifier are of no use here
        config.num_labels = 2
        model = cls(config, dtype=dtype, rngs=rngs or nnx.Rngs(0))
        checkpoint = huggingface.Checkpoint.open(folder)
        heads = ("pooler.", "cls.predictions.", "cls.seq_relationship.")
        for head in heads:  # half a head is no head
            mine = {name for name in huggingface.names(model) if name.startswith(head)}
            if not mine <= set(checkpoint.tensors):
                checkpoint = checkpoint.without(head)
        return model, huggingface.load(model, checkpoint, optional=heads)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `transformers.BertForPreTraining` and `BertModel` read."""
        huggingface.save(self, folder, {"architectures": ["BertForPreTraining"]})
