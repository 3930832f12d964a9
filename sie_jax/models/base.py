"""What all models with heads on an encoder have in common."""

from __future__ import annotations

from typing import Any

from flax import nnx
from jaxtyping import DTypeLike
from transformers import PretrainedConfig

from sie_jax.errors import UserError
from sie_jax.models import families
from sie_jax.models.architecture import Architecture, Encoder


class EncoderModel(nnx.Module):
    """An encoder of the configuration's family; a subclass adds heads.

    The encoder is the attribute that its family's models have in transformers: `model.bert` for a
    BERT.

    Attributes:
      segments: how many segments the texts of a row are: 2 where they are pairs.
      architecture: what the family states about itself.

    Raises:
      UserError: the encoder refuses the configuration, or it has fewer segments.
    """

    segments = 2

    def __init__(self, config: PretrainedConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        if getattr(config, "type_vocab_size", self.segments) < self.segments:
            raise UserError(
                f"type_vocab_size in the configuration is {config.type_vocab_size}, but a pair of "
                f"texts has {self.segments} segments: give a checkpoint that was made for pairs"
            )
        self.architecture: Architecture = families.of(config)
        encoder = self.architecture.encoder(config, dtype=dtype, rngs=rngs)
        setattr(self, self.architecture.prefix, encoder)

    @property
    def encoder(self) -> Encoder:
        """The encoder."""
        encoder: Encoder = getattr(self, self.architecture.prefix)
        return encoder

    @property
    def config(self) -> Any:
        """A copy of the configuration, label names (`id2label`) included."""
        return self.encoder.config

    @property
    def remat(self) -> str:
        """What the backward pass keeps of the forward pass, one of `layers.REMAT`.

        It can be set at any time before `nnx.split`. It changes no value but by rounding.
        """
        return self.encoder.remat

    @remat.setter
    def remat(self, value: str) -> None:
        self.encoder.remat = value


def training_flops(rows: int, encoder: int | None, heads: int) -> int | None:
    """FLOPs of one training step: 3 · 2 · rows · (encoder + heads), None if not known.

    `encoder` and `heads` are multiply-adds of one row's forward pass. A multiply-add is two
    operations, and the backward pass has twice those of the forward pass (Chowdhery et al. 2022,
    appendix B, https://arxiv.org/abs/2204.02311). Padding counts, since the device multiplies it
    too. What a step computes twice (rematerialisation) or in addition (norms of per-example
    gradients, a validation gradient) does not count.

    rows: the rows of the batch over all processes, padding rows included.
    """
    return None if encoder is None else 3 * 2 * rows * (encoder + heads)
