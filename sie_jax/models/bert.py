"""FlaxBert: the BERT encoder in Flax NNX."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray
from transformers import BertConfig

from sie_jax.devices import memory
from sie_jax.errors import UserError
from sie_jax.models import huggingface
from sie_jax.models.architecture import Architecture
from sie_jax.models.layers import (
    ACTIVATIONS,
    BY_COLUMNS,
    BY_ROWS,
    STORED_IN_PARTS,
    attention,
    dropout,
    embedding,
    layer_norm,
    linear,
    rematerialised,
)


class BertLayer(nnx.Module):
    """One post-norm transformer layer: self-attention, then a two-layer perceptron."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        hidden, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.activation = config.hidden_act
        self.attention_rate = float(config.attention_probs_dropout_prob)
        self.hidden_rate = float(config.hidden_dropout_prob)
        self.query = linear(hidden, hidden, config, dtype, rngs, mesh_axes=BY_COLUMNS)
        self.key = linear(hidden, hidden, config, dtype, rngs, mesh_axes=BY_COLUMNS)
        self.value = linear(hidden, hidden, config, dtype, rngs, mesh_axes=BY_COLUMNS)
        self.attention_output = linear(hidden, hidden, config, dtype, rngs, mesh_axes=BY_ROWS)
        self.attention_norm = layer_norm(config, dtype, rngs)
        self.intermediate = linear(hidden, inner, config, dtype, rngs, mesh_axes=BY_COLUMNS)
        self.output = linear(inner, hidden, config, dtype, rngs, mesh_axes=BY_ROWS)
        self.output_norm = layer_norm(config, dtype, rngs)

    def __call__(
        self,
        x: Float[Array, "*leading T hidden"],
        mask: Bool[Array, "*leading 1 1 T"] | None,
        key: PRNGKeyArray | None,
    ) -> Float[Array, "*leading T hidden"]:
        # Each dropout has a key of its own. Without a key there is no dropout at all.
        key_probabilities, key_attention, key_output = (
            (None, None, None) if key is None else jax.random.split(key, 3)
        )
        split = (*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        attended = attention(
            self.query(x).reshape(split),
            self.key(x).reshape(split),
            self.value(x).reshape(split),
            mask,
            rate=self.attention_rate,
            dropout_key=key_probabilities,
        )
        attended = self.attention_output(attended.reshape(x.shape))
        x = self.attention_norm(x + dropout(attended, self.hidden_rate, key_attention))
        inner = ACTIVATIONS[self.activation](self.intermediate(x))
        return self.output_norm(x + dropout(self.output(inner), self.hidden_rate, key_output))


class FlaxBert(nnx.Module):
    """BERT encoder (Devlin et al., 2019, https://arxiv.org/abs/1810.04805).

    It is the same network as `transformers.BertModel`, and `config` is `transformers.BertConfig`.
    The configuration is copied: later changes to it have no effect.

    Guarantees:
      * Parameters are float32 whatever `dtype` is. `dtype` (float32 or bfloat16) is that of matrix
        products. LayerNorm statistics and the softmax are always float32.
      * The model holds `nnx.Param` and nothing else: `graphdef, params = nnx.split(model)` gives
        every parameter, and `nnx.merge(graphdef, params)` inside `jit`, `grad` or `vmap` gives the
        model back. It keeps no random state: `key` is the only source of randomness.
      * Inputs may have any leading shape: [T], [B, T] and [A, B, T] give the same values.
      * A masked position changes nothing at the positions that are not masked.
      * `remat`, one of `layers.REMAT`, can be set at any time before `nnx.split`. It saves memory
        by a second forward pass through the layers, and changes no value but by rounding.

    Args:
      config: `transformers.BertConfig`.
      dtype: the compute dtype.
      rngs: initialises kernels and embeddings from normal(0, initializer_range), the embedding of
        the padding token and biases to 0, LayerNorm scales to 1.
      add_pooling_layer: whether to hold BERT's pooler, a dense layer with tanh on the first
        token (`pool`), as `BertModel` does. The hidden states do not depend on it.

    Raises:
      UserError: FlaxBert does not support the configuration. It supports `hidden_act` gelu,
        gelu_new, gelu_pytorch_tanh, relu, silu and swish; no decoder, no relative positions, and
        only a `hidden_size` that is a multiple of `num_attention_heads`. Sizes are at least 1,
        rates are in [0, 1), and the parameters fit the machine's memory.
    """

    def __init__(
        self,
        config: BertConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        add_pooling_layer: bool = True,
    ) -> None:
        _check(config)
        # It is kept as text, because a graphdef must be hashable and equal for equal models.
        self._config_json = config.to_json_string(use_diff=False)
        self._rate = float(config.hidden_dropout_prob)
        self._any_dropout = self._rate > 0 or config.attention_probs_dropout_prob > 0
        self._max_length = config.max_position_embeddings
        self._dtype = jnp.dtype(dtype)
        self.remat = "none"
        hidden = config.hidden_size
        self.word_embeddings = embedding(config, config.vocab_size, rngs, config.pad_token_id)
        self.position_embeddings = embedding(config, config.max_position_embeddings, rngs)
        self.token_type_embeddings = embedding(config, config.type_vocab_size, rngs)
        self.embeddings_norm = layer_norm(config, dtype, rngs)
        self.layers = nnx.List(
            [BertLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.num_hidden_layers)]
        )
        self.pooler = (
            linear(hidden, hidden, config, dtype, rngs, mesh_axes=STORED_IN_PARTS)
            if add_pooling_layer
            else None
        )

    @property
    def config(self) -> BertConfig:
        """A copy of the configuration."""
        return BertConfig.from_dict(json.loads(self._config_json))

    @property
    def architecture(self) -> Architecture:
        """The family that this encoder belongs to."""
        return BERT

    def __call__(
        self,
        input_ids: Int[Array, "*leading T"],
        token_type_ids: Int[Array, "*leading T"] | None = None,
        attention_mask: Int[Array, "*leading T"] | Bool[Array, "*leading T"] | None = None,
        *,
        deterministic: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*leading T hidden"]:
        """The last hidden state, in the compute dtype.

        Args:
          input_ids: token ids of any integer dtype. An id outside the vocabulary gives NaN, not
            the embedding of another token.
          token_type_ids: segment ids; all 0 if None.
          attention_mask: True or nonzero at real tokens; all are real if None. A sequence without
            a real token attends to all its tokens equally, and stays finite.
          deterministic: no dropout.
          key: a JAX random key. It is needed with `deterministic=False` unless every dropout rate
            is 0. The same key gives the same masks. Draw one key per call (per example under
            `vmap`).

        Raises:
          ValueError: the sequence is longer than `max_position_embeddings`, or dropout has no key.
        """
        states = self.hidden_states(
            input_ids, token_type_ids, attention_mask, deterministic=deterministic, key=key
        )
        return states[-1]

    def hidden_states(
        self,
        input_ids: Int[Array, "*leading T"],
        token_type_ids: Int[Array, "*leading T"] | None = None,
        attention_mask: Int[Array, "*leading T"] | Bool[Array, "*leading T"] | None = None,
        *,
        deterministic: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> list[Float[Array, "*leading T hidden"]]:
        """The output of the embeddings and of each layer: `num_hidden_layers + 1` arrays.

        The list is that of `output_hidden_states` in transformers. Arguments and errors are those
        of `__call__`.
        """
        length = input_ids.shape[-1]
        if length > self._max_length:
            raise ValueError(
                f"the sequence has {length} tokens, the model at most {self._max_length} "
                "(max_position_embeddings)"
            )
        if deterministic:
            key = None
        elif key is None and self._any_dropout:
            raise ValueError("deterministic=False needs a key: the dropout rates are not 0")
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        mask = None if attention_mask is None else (attention_mask != 0)[..., None, None, :]

        x = jnp.take(self.word_embeddings[...], input_ids, axis=0)
        x = x + jnp.take(self.token_type_embeddings[...], token_type_ids, axis=0)
        positions = jnp.take(self.position_embeddings[...], jnp.arange(length), axis=0)
        x = x + positions.reshape((1,) * (x.ndim - 2) + positions.shape)
        x = self.embeddings_norm(x)
        x = dropout(x, self._rate, _fold(key, 0))
        states = [x]
        for index, layer in enumerate(self.layers, start=1):
            run = functools.partial(layer, mask=mask, key=_fold(key, index))
            states.append(rematerialised(run, self.remat)(states[-1]))
        return states

    def pool(self, hidden: Float[Array, "*leading T hidden"]) -> Float[Array, "*leading hidden"]:
        """tanh(W h + b) of the first token's last hidden state h, as `BertModel.pooler_output`.

        Raises:
          ValueError: the model has no pooler.
        """
        if self.pooler is None:
            raise ValueError("this FlaxBert has no pooling layer (add_pooling_layer=False)")
        return jnp.tanh(self.pooler(hidden[..., 0, :]))

    def products(self, length: int) -> int:
        """Multiply-adds of one forward pass over a row of `length` tokens, `pool` included.

            layers · (length · (4 hidden² + 2 hidden · intermediate) + 2 length² · hidden) + hidden²

        The term with length² is attention's q kᵀ and its product with v. Embeddings are looked up
        and norms are no products, so neither counts.
        """
        config = self.config
        hidden, inner = config.hidden_size, config.intermediate_size
        of_layer = length * (4 * hidden**2 + 2 * hidden * inner) + 2 * length**2 * hidden
        return config.num_hidden_layers * of_layer + hidden**2

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, dtype: DTypeLike = jnp.float32) -> FlaxBert:
        """Read a Hugging Face folder (`config.json` and safetensors); see `models.huggingface`.

        The model has a pooler if the folder has one. Heads in the folder are not read.

        Raises:
          UserError: the folder cannot be read as a BERT, with the reason in one line.
        """
        config, _, checkpoint = huggingface.open_folder(folder, [BERT])
        pooling = BERT.stored(BERT.pooler, "kernel") in checkpoint.tensors
        with huggingface.named(folder):
            model = nnx.eval_shape(  # abstract: every parameter is read, none is initialised
                lambda: cls(config, dtype=dtype, rngs=nnx.Rngs(0), add_pooling_layer=pooling)
            )
        huggingface.load(model, checkpoint)
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a Hugging Face folder that `transformers.BertModel.from_pretrained` reads."""
        huggingface.save(self, folder, "Model")


def _fold(key: PRNGKeyArray | None, index: int) -> PRNGKeyArray | None:
    return None if key is None else jax.random.fold_in(key, index)


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)


def _check(config: BertConfig) -> None:
    place = "in the BERT configuration"
    for name in _SIZES:
        if not 1 <= getattr(config, name) < 2**31:
            raise UserError(f"{name} {place} is {getattr(config, name)}: give at least 1")
    rates = ["hidden_dropout_prob", "attention_probs_dropout_prob"]
    rates += [] if config.classifier_dropout is None else ["classifier_dropout"]
    for name in rates:
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"{name} {place} is {getattr(config, name)}: give 0 or more, below 1")
    for name in ("layer_norm_eps", "initializer_range"):
        if not 0 <= getattr(config, name) < math.inf:
            raise UserError(f"{name} {place} is {getattr(config, name)}: give a number from 0 on")
    padding = config.pad_token_id
    if padding is not None and not 0 <= padding < config.vocab_size:
        raise UserError(f"pad_token_id {place} is {padding}: give a token below vocab_size")
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"hidden_act {config.hidden_act!r} in the BERT configuration is not supported: "
            f"use one of {', '.join(ACTIVATIONS)}"
        )
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"hidden_size {config.hidden_size} in the BERT configuration is not a multiple of "
            f"num_attention_heads {config.num_attention_heads}"
        )
    if config.is_decoder or config.add_cross_attention:
        raise UserError("is_decoder and add_cross_attention must be false: FlaxBert is an encoder")
    position_kind = getattr(config, "position_embedding_type", None) or "absolute"
    if position_kind != "absolute":
        raise UserError(
            f"position_embedding_type {position_kind!r} in the BERT configuration is not "
            "supported: only 'absolute' is"
        )
    hidden, inner = config.hidden_size, config.intermediate_size
    tokens = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    layer = 4 * hidden * (hidden + 1) + 2 * hidden * inner + inner + 5 * hidden
    parameters = (tokens + 2) * hidden + config.num_hidden_layers * layer  # but for the pooler
    sizes = ", ".join(f"{name} {getattr(config, name)}" for name in _SIZES)
    memory.check_machine(4 * parameters, f"a BERT of {sizes}")


BERT = Architecture(
    model_type="bert",
    prefix="bert",
    class_name="Bert",
    config=BertConfig,
    encoder=FlaxBert,
    names={
        "word_embeddings": "embeddings.word_embeddings.weight",
        "position_embeddings": "embeddings.position_embeddings.weight",
        "token_type_embeddings": "embeddings.token_type_embeddings.weight",
        "embeddings_norm": "embeddings.LayerNorm",
        "layers": "encoder.layer",
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "intermediate": "intermediate.dense",
        "output": "output.dense",
        "output_norm": "output.LayerNorm",
        "pooler": "pooler.dense",
        "transform": "cls.predictions.transform.dense",
        "transform_norm": "cls.predictions.transform.LayerNorm",
        "vocabulary_bias": "cls.predictions.bias",
        "relationship": "cls.seq_relationship",
    },
)
