"""PairClassifier: a cross-encoder over a query and an item, read together by one BERT."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray
from transformers import BertConfig

from sie_jax.models import huggingface
from sie_jax.models.bert import FlaxBert, dropout, linear


class PairClassifier(nnx.Module):
    """BERT, its pooler, dropout and a linear classifier over a query and an item read together.

        logits = W dropout(tanh(P h_0 + p)) + b

    with h_0 the last hidden state of the first token ([CLS]): the same network as
    `transformers.BertForSequenceClassification`.

    Like `FlaxBert` it holds `nnx.Param` and nothing else, takes any leading shape, and keeps its
    parameters in float32. The classifier itself runs in float32 whatever `dtype` is.

    Args:
      config: `transformers.BertConfig`; `classifier_dropout` falls back to `hidden_dropout_prob`.
        Its label names are kept where there are `num_labels` of them.
      num_labels: the number of classes K >= 1.
      dtype: the compute dtype of the encoder, float32 or bfloat16.
      rngs: initialises as BERT does: normal(0, initializer_range), biases 0.

    Raises:
      ValueError: `num_labels` is below 1.
      UserError: as `FlaxBert`.
    """

    def __init__(
        self,
        config: BertConfig,
        *,
        num_labels: int,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if num_labels < 1:
            raise ValueError(f"num_labels must be at least 1, not {num_labels}")
        config = copy.deepcopy(config)
        config.num_labels = num_labels  # keeps the label names if there are as many
        rate = config.classifier_dropout
        self._rate = float(config.hidden_dropout_prob if rate is None else rate)
        self.bert = FlaxBert(config, dtype=dtype, rngs=rngs)
        self.classifier = linear(config.hidden_size, num_labels, config, jnp.float32, rngs)

    @property
    def config(self) -> BertConfig:
        """A copy of the configuration, label names (`id2label`) included."""
        return self.bert.config

    @property
    def remat(self) -> str:
        """What the backward pass keeps of the forward pass, one of `bert.REMAT`."""
        return self.bert.remat

    @property
    def head(self) -> str:
        """The name of the layer that gives the logits."""
        return "classifier"

    def embed(
        self,
        input_ids: Int[Array, "*leading T"],
        token_type_ids: Int[Array, "*leading T"] | None = None,
        attention_mask: Int[Array, "*leading T"] | Bool[Array, "*leading T"] | None = None,
    ) -> Float[Array, "*leading hidden"]:
        """What the classifier receives of a pair, float32, without dropout."""
        hidden = self.bert(input_ids, token_type_ids, attention_mask)
        return self.bert.pool(hidden).astype(jnp.float32)

    def __call__(
        self,
        input_ids: Int[Array, "*leading T"],
        token_type_ids: Int[Array, "*leading T"] | None = None,
        attention_mask: Int[Array, "*leading T"] | Bool[Array, "*leading T"] | None = None,
        *,
        deterministic: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*leading K"]:
        """Logits, float32. Arguments and errors as in `FlaxBert.__call__`."""
        if deterministic:
            key = None
        elif key is None and self._rate > 0:
            raise ValueError("deterministic=False needs a key: the dropout rates are not 0")
        key_bert, key_head = (None, None) if key is None else jax.random.split(key)
        hidden = self.bert(
            input_ids, token_type_ids, attention_mask, deterministic=deterministic, key=key_bert
        )
        pooled = self.bert.pool(hidden).astype(jnp.float32)
        return self.classifier(dropout(pooled, self._rate, key_head))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        num_labels: int | None = None,
        label_names: Sequence[str] | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[PairClassifier, huggingface.LoadReport]:
        """Read a Hugging Face folder; what the heads lack is initialised and reported.

        The pooler is initialised where the folder has none. The classifier is initialised where
        the folder has none, where it has another number of labels, and where its labels have
        other names than `label_names` (the classes would be mixed up); names that transformers
        made up (LABEL_0, …) do not count as names.

        Args:
          folder: a local folder with `config.json` and safetensors.
          num_labels: the number of classes; None takes `label_names`' or else the folder's.
          label_names: the classes' names in order; None keeps the folder's.
          dtype: the compute dtype.
          rngs: initialises what is absent; `nnx.Rngs(0)` where None.

        Returns:
          The model, and what was initialised and ignored.

        Raises:
          ValueError: `label_names` are not `num_labels` different names.
          UserError: the folder cannot be read as a BERT, with the reason in one line.
        """
        config = huggingface.read_config(folder)
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
        checkpoint = huggingface.Checkpoint.open(folder)
        if not same_labels or checkpoint.shape("classifier.bias") != (num_labels,):
            checkpoint = checkpoint.without("classifier.")
        for head in ("pooler.dense", "classifier"):  # half a head is no head
            if not {f"{head}.weight", f"{head}.bias"} <= set(checkpoint.tensors):
                checkpoint = checkpoint.without(f"{head}.")
        model = nnx.eval_shape(  # abstract: what is not read is initialised below
            lambda: cls(config, num_labels=num_labels, dtype=dtype, rngs=nnx.Rngs(0))
        )
        report = huggingface.load(model, checkpoint, optional=("pooler.", "classifier."))
        rngs = rngs or nnx.Rngs(0)
        hidden = config.hidden_size
        if any(name.startswith("bert.pooler.") for name in report.initialised):
            model.bert.pooler = linear(hidden, hidden, config, dtype, rngs)
        if any(name.startswith("classifier.") for name in report.initialised):
            model.classifier = linear(hidden, num_labels, config, jnp.float32, rngs)
        return model, report

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `transformers.BertForSequenceClassification` reads."""
        fields: dict[str, Any] = {"architectures": ["BertForSequenceClassification"]}
        if self.config.num_labels > 1:  # one label means regression in transformers
            fields["problem_type"] = "single_label_classification"
        huggingface.save(self, folder, fields)
