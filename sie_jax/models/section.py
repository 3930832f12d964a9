"""The section `model`: a checkpoint to start from, or the size of a BERT with random weights."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from transformers import BertConfig

from sie_jax import remote, sections
from sie_jax.errors import UserError
from sie_jax.models.heads import PairClassifier
from sie_jax.models.layers import REMAT
from sie_jax.models.pretraining import PretrainingModel

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(slots=True, kw_only=True)
class ModelConfig:
    """A checkpoint folder to start from, or the size of a BERT that starts from random weights."""

    pretrained: str = ""
    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int = 512
    dropout: float = 0.1
    dtype: str = "float32"
    remat: str = "none"  # dots or layers: less memory, more computation (models.layers.REMAT)

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        for field in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            sections.at_least(f"model.{field}", getattr(self, field), 1)
        sections.at_least("model.intermediate_size", self.intermediate_size, 1)
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"model.hidden_size {self.hidden_size} is not a multiple of "
                f"model.num_attention_heads {self.num_attention_heads}: change one of them"
            )
        sections.between("model.dropout", self.dropout, 0.0, 0.99)
        sections.one_of("model.dtype", self.dtype, DTYPES)
        sections.one_of("model.remat", self.remat, REMAT)

    def folder(self) -> str:
        """The local folder of the checkpoint, copied from an object store if need be, or "".

        Raises:
          UserError: there is no such folder.
        """
        folder = remote.local(self.pretrained)
        if folder and not Path(folder).is_dir():
            raise UserError(
                f"model.pretrained: {folder}: no such folder; give a local folder in "
                "Hugging Face layout"
            )
        return folder

    def classifier(
        self,
        label_names: Sequence[str],
        *,
        vocabulary_size: int,
        max_length: int,
        seed: int,
        folder: str | Path = "",
    ) -> tuple[PairClassifier, list[str]]:
        """The classifier that a seed starts from, and a note on each kind of tensor not loaded.

        Args:
          label_names: the names of the classes, lowest grade first.
          vocabulary_size: the number of the tokenizer's tokens.
          max_length: the most tokens of a pair.
          seed: initialises what is not loaded.
          folder: a folder to load in place of `pretrained`.

        Raises:
          UserError: the folder cannot be loaded, or is too small for the tokens or the length.
        """
        rngs, dtype = nnx.Rngs(seed), jnp.dtype(self.dtype)
        folder = folder or self.folder()
        if folder:
            model, report = PairClassifier.from_pretrained(
                folder, label_names=label_names, dtype=dtype, rngs=rngs
            )
            _check_size(folder, model.config, vocabulary_size, max_length)
            notes = report.notes(folder)
        else:
            config = self._random(label_names, vocabulary_size, max_length)
            model = PairClassifier(config, num_labels=len(label_names), dtype=dtype, rngs=rngs)
            notes = []
        model.remat = self.remat
        return model, notes

    def pretraining_model(
        self, label_names: Sequence[str], *, vocabulary_size: int, max_length: int, seed: int
    ) -> tuple[PretrainingModel, list[str]]:
        """The model that pretraining starts from; arguments, notes and errors as `classifier`."""
        rngs, dtype = nnx.Rngs(seed), jnp.dtype(self.dtype)
        folder = self.folder()
        if folder:
            model, report = PretrainingModel.from_pretrained(folder, dtype=dtype, rngs=rngs)
            _check_size(folder, model.config, vocabulary_size, max_length)
            notes = report.notes(folder)
        else:
            config = self._random(label_names, vocabulary_size, max_length)
            model, notes = PretrainingModel(config, dtype=dtype, rngs=rngs), []
        model.remat = self.remat
        return model, notes

    def _random(
        self, label_names: Sequence[str], vocabulary_size: int, max_length: int
    ) -> BertConfig:
        """The configuration of a BERT with random weights."""
        return BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            max_position_embeddings=max(512, max_length),
            # BERT's 0.02 is made for a width of 768; with it, a narrow model's attention would
            # start out uniform
            initializer_range=self.hidden_size**-0.5,
            id2label=dict(enumerate(label_names)),
            label2id={name: i for i, name in enumerate(label_names)},
        )


def _check_size(
    folder: str | Path, config: BertConfig, vocabulary_size: int, max_length: int
) -> None:
    """Raises UserError if a checkpoint has too few positions or too small a vocabulary."""
    if config.max_position_embeddings < max_length:
        raise UserError(
            f"data.max_length is {max_length}, but the checkpoint {folder} has "
            f"{config.max_position_embeddings} positions: lower it"
        )
    if config.vocab_size < vocabulary_size:
        raise UserError(
            f"{folder}: the tokenizer has {vocabulary_size} tokens, but vocab_size in config.json "
            f"is {config.vocab_size}: take both from one checkpoint"
        )
