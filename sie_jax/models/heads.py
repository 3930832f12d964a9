"""PairClassifier: a cross-encoder, which reads a query and an item together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray
from transformers import PretrainedConfig

from sie_jax.errors import UserError
from sie_jax.models import families, huggingface
from sie_jax.models.base import EncoderModel, training_flops
from sie_jax.models.layers import STORED_IN_PARTS, dropout, linear


class PairClassifier(EncoderModel):
    """An encoder, its pooler, dropout and a linear classifier over a query and an item together.

        logits = W dropout(pooled) + b                 (+ V features, where it takes features)

    For BERT, pooled = tanh(P h_0 + p) with h_0 the last hidden state of the first token ([CLS]):
    the same network as `transformers.BertForSequenceClassification`. That class has no features:
    a folder holds the model without V.

    Like the encoder it holds `nnx.Param` and nothing else, takes any leading shape, and keeps its
    parameters in float32. The classifier itself runs in float32 whatever `dtype` is.

    Args:
      config: transformers' configuration of a family in `models.families`. If
        `classifier_dropout` is None, `hidden_dropout_prob` is used. The label names are kept if
        there are `num_labels` of them.
      num_labels: the number of classes K >= 1.
      num_features: F, how many features of a pair the head takes; 0: none, and no V.
      dtype: the compute dtype of the encoder, float32 or bfloat16.
      rngs: initialises as BERT does: normal(0, initializer_range), biases 0.

    Raises:
      ValueError: `num_labels` is below 1, or `num_features` below 0.
      UserError: the encoder refuses the configuration.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        *,
        num_labels: int,
        num_features: int = 0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if num_labels < 1:
            raise ValueError(f"num_labels must be at least 1, not {num_labels}")
        if num_features < 0:
            raise ValueError(f"num_features must be at least 0, not {num_features}")
        config = copy.deepcopy(config)
        config.num_labels = num_labels  # keeps the label names if there are as many
        config.problem_type = None  # of the head in the folder, if any
        rate = config.classifier_dropout
        self._rate = float(config.hidden_dropout_prob if rate is None else rate)
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.classifier = linear(config.hidden_size, num_labels, config, jnp.float32, rngs)
        if num_features:
            self.features = _of_features(num_features, num_labels, config, rngs)

    @property
    def head(self) -> str:
        """The name of the layer that gives the logits."""
        return self.architecture.classifier

    def __call__(
        self,
        input_ids: Int[Array, "*leading T"],
        token_type_ids: Int[Array, "*leading T"] | None = None,
        attention_mask: Int[Array, "*leading T"] | Bool[Array, "*leading T"] | None = None,
        *,
        features: Float[Array, "*leading F"] | None = None,
        deterministic: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*leading K"]:
        """Logits, float32. Other arguments and errors are those of `FlaxBert.__call__`.

        features: of each pair, where the head takes some. Without them the logits are those of the
        encoder alone.
        """
        if deterministic:
            key = None
        elif key is None and self._rate > 0:
            raise ValueError("deterministic=False needs a key: the dropout rates are not 0")
        key_encoder, key_head = (None, None) if key is None else jax.random.split(key)
        hidden = self.encoder(
            input_ids, token_type_ids, attention_mask, deterministic=deterministic, key=key_encoder
        )
        pooled = self.encoder.pool(hidden).astype(jnp.float32)
        logits = self.classifier(dropout(pooled, self._rate, key_head))
        return logits if features is None else logits + self.features(features)

    def embed(
        self,
        input_ids: Int[Array, "*leading T"],
        token_type_ids: Int[Array, "*leading T"] | None = None,
        attention_mask: Int[Array, "*leading T"] | Bool[Array, "*leading T"] | None = None,
    ) -> Float[Array, "*leading hidden"]:
        """What the classifier receives of a pair, float32, without dropout."""
        hidden = self.encoder(input_ids, token_type_ids, attention_mask)
        return self.encoder.pool(hidden).astype(jnp.float32)

    def step_flops(self, rows: int, length: int) -> int | None:
        """FLOPs of a training step on `[rows, length]` token ids (`base.training_flops`)."""
        head = self.config.hidden_size * self.config.num_labels
        return training_flops(rows, self.encoder.products(length), head)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        num_labels: int | None = None,
        label_names: Sequence[str] | None = None,
        num_features: int = 0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[PairClassifier, huggingface.LoadReport]:
        """Read a Hugging Face folder; heads that it lacks are initialised and reported.

        The pooler is initialised if the folder has none. The classifier is initialised if the
        folder has none, if it has another number of labels, or if its labels have other names than
        `label_names` (the classes would be mixed up). Names that transformers invents (LABEL_0, …)
        do not count as names.

        Args:
          folder: a local folder with `config.json` and safetensors.
          num_labels: the number of classes; None takes that of `label_names` or else the folder's.
          label_names: the names of the classes in order; None keeps the folder's.
          num_features: how many features the head takes; no folder has weights for them, so that
            these are initialised.
          dtype: the compute dtype.
          rngs: initialises what is absent; `nnx.Rngs(0)` if None.

        Returns:
          The model, and what was initialised and ignored.

        Raises:
          ValueError: `label_names` are not `num_labels` different names.
          UserError: the folder cannot be read, with the reason in one line; or it is to give its
            own labels, and its classifier has another number of them than config.json.
        """
        config, family, checkpoint = huggingface.open_folder(folder, families.FAMILIES)
        classifier = family.stored(family.classifier)
        stored = checkpoint.shape(f"{classifier}.bias")
        if num_labels is None and label_names is None:
            if not config.num_labels:
                raise UserError(
                    f"{folder}: id2label in config.json names no label: give a classifier"
                )
            if stored is not None and stored != (config.num_labels,):
                raise UserError(
                    f"{folder}: id2label in config.json names {config.num_labels} labels, but "
                    f"{classifier}.bias has the shape {list(stored)}: take both from one model"
                )
        if num_labels is None:
            num_labels = config.num_labels if label_names is None else len(label_names)
        stored_names = [config.id2label[i] for i in range(config.num_labels)]
        same_labels = True
        if label_names is not None:
            if len(set(label_names)) != num_labels or len(label_names) != num_labels:
                raise ValueError(f"label_names must be {num_labels} different names")
            made_up = [f"LABEL_{i}" for i in range(len(stored_names))]
            same_labels = stored_names in (made_up, list(label_names))
            config.id2label = dict(enumerate(label_names))
            config.label2id = {name: i for i, name in enumerate(label_names)}
        if not same_labels or stored != (num_labels,):
            checkpoint = checkpoint.without(f"{classifier}.")
        with huggingface.named(folder):
            model = nnx.eval_shape(  # abstract: what is not read is initialised below
                lambda: cls(config, num_labels=num_labels, dtype=dtype, rngs=nnx.Rngs(0))
            )
        report = huggingface.load(model, checkpoint, heads=[{family.pooler}, {family.classifier}])
        rngs = rngs or nnx.Rngs(0)
        hidden = config.hidden_size
        if family.stored(family.prefix, family.pooler, "kernel") in report.initialised:
            pooler = linear(hidden, hidden, config, dtype, rngs, mesh_axes=STORED_IN_PARTS)
            setattr(model.encoder, family.pooler, pooler)
        if f"{classifier}.weight" in report.initialised:
            model.classifier = linear(hidden, num_labels, config, jnp.float32, rngs)
        if num_features:
            model.features = _of_features(num_features, num_labels, config, rngs)
        return model, report

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that transformers' class for sequence classification reads, without V."""
        # transformers takes one label for regression
        fields = (
            {"problem_type": "single_label_classification"} if self.config.num_labels > 1 else {}
        )
        model = nnx.clone(self)
        if hasattr(model, "features"):
            del model.features
        huggingface.save(model, folder, "ForSequenceClassification", **fields)


def _of_features(
    num_features: int, num_labels: int, config: PretrainedConfig, rngs: nnx.Rngs
) -> nnx.Linear:
    """The layer V, without a bias: the classifier has one."""
    return linear(num_features, num_labels, config, jnp.float32, rngs, use_bias=False)
