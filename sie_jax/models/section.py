"""The section `model`: a checkpoint to start from, or the size of a BERT with random weights."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from transformers import BertConfig

from sie_jax import remote, sections
from sie_jax.errors import UserError
from sie_jax.models.heads import PairClassifier
from sie_jax.models.layers import REMAT
from sie_jax.models.pretraining import PretrainingModel
from sie_jax.models.towers import Towers

DTYPES = ("float32", "bfloat16")
MOST_LAYERS = 1000


@dataclasses.dataclass(slots=True, kw_only=True)
class ModelConfig:
    """A checkpoint folder to start from, or the size of a BERT that starts from random weights."""

    pretrained: str = ""  # a Hugging Face folder to start from; empty: random weights
    hidden_size: int = 128  # the width, where weights are random; so are the next three
    num_hidden_layers: int = 2  # layers of the encoder
    num_attention_heads: int = 4  # attention heads of each layer
    intermediate_size: int = 512  # width of the feed-forward part of each layer
    dropout: float = 0.1  # the dropout rate of training steps
    dtype: str = "float32"  # the type of the computation: float32 or bfloat16
    # whether a cross-encoder's head takes the features of the pair beside the encoder's output
    features: bool = False
    # dots or layers: less memory, more computation (sie_jax.models.layers.REMAT)
    remat: str = "none"

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        for field in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            sections.at_least(f"model.{field}", getattr(self, field), 1)
        sections.at_least("model.intermediate_size", self.intermediate_size, 1)
        # each is compiled by itself: more take hours
        sections.between("model.num_hidden_layers", self.num_hidden_layers, 1, MOST_LAYERS)
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"model.hidden_size {self.hidden_size} is not a multiple of "
                f"model.num_attention_heads {self.num_attention_heads}: change one of them"
            )
        sections.between("model.dropout", self.dropout, 0.0, 0.99)
        sections.one_of("model.dtype", self.dtype, DTYPES)
        sections.one_of("model.remat", self.remat, REMAT)

    def parameters(self, *, vocabulary_size: int, max_length: int) -> int:
        """How many parameters a BERT of this size has at least: its matrices alone."""
        width, positions = self.hidden_size, max(512, max_length)
        layer = 4 * width**2 + 2 * width * self.intermediate_size
        return (vocabulary_size + positions) * width + self.num_hidden_layers * layer

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
        num_features: int = 0,
    ) -> tuple[PairClassifier, list[str]]:
        """The classifier that a seed starts from, and a note on each kind of tensor not loaded.

        Args:
          label_names: the names of the classes, lowest grade first.
          vocabulary_size: the number of the tokenizer's tokens.
          max_length: the most tokens of a pair.
          seed: initialises what is not loaded.
          folder: a folder to load in place of `pretrained`.
          num_features: how many features the head takes.

        Raises:
          UserError: the folder cannot be loaded, or is too small for the tokens or the length.
        """
        rngs, dtype = nnx.Rngs(seed), jnp.dtype(self.dtype)
        folder = folder or self.folder()
        if folder:
            model, report = PairClassifier.from_pretrained(
                folder,
                label_names=label_names,
                num_features=num_features,
                dtype=dtype,
                rngs=rngs,
            )
            _check_size(folder, model.config, vocabulary_size, max_length)
            notes = report.notes(folder)
        else:
            config = self._random(label_names, vocabulary_size, max_length)
            model = PairClassifier(
                config,
                num_labels=len(label_names),
                num_features=num_features,
                dtype=dtype,
                rngs=rngs,
            )
            notes = []
        model.remat = self.remat
        return model, notes

    def ranker(
        self, label_names: Sequence[str], **options: Any
    ) -> tuple[PairClassifier | Towers, list[str]]:
        """The classifier, or the towers where there are no labels; arguments as `classifier`.

        Towers take no features: `num_features` has to be 0 where there are no labels.
        """
        if label_names:
            return self.classifier(label_names, **options)
        if options.pop("num_features", 0):
            raise ValueError("two towers take no features: they read query and item apart")
        return self.towers(**options)

    def towers(
        self, *, vocabulary_size: int, max_length: int, seed: int, folder: str | Path = ""
    ) -> tuple[Towers, list[str]]:
        """The towers that a seed starts from; arguments, notes and errors as `classifier`.

        Their texts have `max_length` tokens at most, as pairs have.
        """
        dtype, folder = jnp.dtype(self.dtype), folder or self.folder()
        notes: tuple[str, ...] = ()
        if folder:
            model, notes = Towers.from_pretrained(folder, dtype=dtype)
            _check_size(folder, model.config, vocabulary_size, max_length)
        else:
            config = self._random((), vocabulary_size, max_length)
            model = Towers(config, dtype=dtype, rngs=nnx.Rngs(seed))
        model.remat, model.max_length = self.remat, max_length
        return model, list(notes)

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
