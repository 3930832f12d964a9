"""PretrainingModel: an encoder with the two heads that BERT is pretrained with."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray
from transformers import PretrainedConfig

from sie_jax.models import families, huggingface
from sie_jax.models.base import EncoderModel, training_flops
from sie_jax.models.layers import ACTIVATIONS, STORED_IN_PARTS, layer_norm, linear


class PretrainingModel(EncoderModel):
    """An encoder, a head that predicts masked words, and one that predicts whether two texts match.

        vocabulary logits at a position = E LayerNorm(act(W h + w)) + b
        pair logits = R pooled + r

    with h the last hidden state at the position and E the word embeddings, shared with the encoder.
    For BERT this is the same network as `transformers.BertForPreTraining` (Devlin et al. 2019,
    section 3.1). Class 0 of the pair means that the texts belong together, as it does there.

    Like the encoder it holds `nnx.Param` and nothing else and keeps its parameters in float32.

    Args:
      config: transformers' configuration of a family in `models.families`.
      dtype: the compute dtype, float32 or bfloat16; logits are always float32.
      rngs: initialises as BERT does.

    Raises:
      UserError: the encoder refuses the configuration.
    """

    def __init__(
        self, config: PretrainedConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        hidden = config.hidden_size
        self._activation = config.hidden_act
        self._dtype = jnp.dtype(dtype)
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.transform = linear(hidden, hidden, config, dtype, rngs, mesh_axes=STORED_IN_PARTS)
        self.transform_norm = layer_norm(config, dtype, rngs)
        self.vocabulary_bias = nnx.Param(jnp.zeros(config.vocab_size, jnp.float32))
        self.relationship = linear(hidden, 2, config, jnp.float32, rngs)

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

        Logits at every position would be most of the work and of the memory, and at most a quarter
        of the positions is masked. Other arguments and errors are those of `FlaxBert.__call__`.
        """
        hidden = self.encoder(
            input_ids, token_type_ids, attention_mask, deterministic=deterministic, key=key
        )
        chosen = jnp.take_along_axis(hidden, positions[..., None], axis=-2)
        transformed = self.transform_norm(ACTIVATIONS[self._activation](self.transform(chosen)))
        words = jnp.einsum(
            "...h,vh->...v",
            transformed,
            self.encoder.word_embeddings[...].astype(self._dtype),
            preferred_element_type=jnp.float32,
        )
        pooled = self.encoder.pool(hidden).astype(jnp.float32)
        return words + self.vocabulary_bias[...], self.relationship(pooled)

    def step_flops(self, rows: int, length: int, positions: int) -> int | None:
        """FLOPs of a training step on `[rows, length]` token ids (`base.training_flops`).

        positions: the number of positions of each row at which words are predicted.
        """
        hidden, words = self.config.hidden_size, self.config.vocab_size
        heads = positions * (hidden**2 + words * hidden) + 2 * hidden
        return training_flops(rows, self.encoder.products(length), heads)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs | None = None
    ) -> tuple[PretrainingModel, huggingface.LoadReport]:
        """Read a Hugging Face folder; the pooler and the heads that it lacks are initialised.

        Raises:
          UserError: the folder cannot be read, with the reason in one line.
        """
        config, family, checkpoint = huggingface.open_folder(folder, families.FAMILIES)
        # the label names of a classifier do not apply to pairs of texts
        config.num_labels = 2
        with huggingface.named(folder):
            model = cls(config, dtype=dtype, rngs=rngs or nnx.Rngs(0))
        heads = [
            {family.pooler},
            {"transform", "transform_norm", "vocabulary_bias"},
            {"relationship"},
        ]
        return model, huggingface.load(model, checkpoint, heads=heads)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that transformers' classes for pretraining and for the encoder read."""
        huggingface.save(self, folder, "ForPreTraining")
