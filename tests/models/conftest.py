"""A tiny BERT with every parameter random, and BERT written a second time, in numpy float64."""

import math

import jax
import numpy as np
import pytest
from compiling import compile_quickly
from flax import nnx
from model_folders import NAMES
from transformers import BertConfig

from sie_jax.models import FlaxBert, PairClassifier

__all__ = ["compile_quickly"]


@pytest.fixture
def config():
    return BertConfig(
        vocab_size=23,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=10,
        layer_norm_eps=1e-5,
    )


@pytest.fixture
def randomise():
    """Set every parameter at random: fresh ones have biases of 0, which would hide mistakes."""

    def run(model, seed=0):
        generator = np.random.default_rng(seed)
        state = nnx.state(model, nnx.Param)
        for _, leaf in nnx.to_flat_state(state):
            leaf.set_value(jax.numpy.asarray(generator.normal(0, 0.5, leaf.shape), "float32"))
        nnx.update(model, state)
        return model

    return run


@pytest.fixture
def bert(config, randomise):
    return randomise(FlaxBert(config, rngs=nnx.Rngs(0)))


@pytest.fixture
def classifier(config, randomise):
    config.id2label = dict(enumerate(NAMES))
    config.label2id = {name: i for i, name in enumerate(NAMES)}
    return randomise(PairClassifier(config, num_labels=3, rngs=nnx.Rngs(0)))


@pytest.fixture
def folder(bert, tmp_path):
    """A folder that save_pretrained wrote."""
    bert.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def batch():
    """Three sequences of 4, 6 and 1 tokens, padded to 6."""
    generator = np.random.default_rng(7)
    mask = np.arange(6) < np.array([4, 6, 1])[:, None]
    ids = np.where(mask, generator.integers(1, 23, (3, 6)), 0).astype(np.int32)
    types = np.where(mask, generator.integers(0, 2, (3, 6)), 0).astype(np.int32)
    return ids, types, mask.astype(np.int32)


@pytest.fixture
def numpy_hidden_states():
    """All hidden states of one unpadded sequence, from tensors named as in Hugging Face."""
    activations = {
        "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
        "gelu_new": lambda x: (
            0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        ),
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x / (1 + np.exp(-x)),
    }

    def run(tensors, config, ids, types):
        tensors = {name: np.asarray(value, np.float64) for name, value in tensors.items()}

        def dense(x, name):
            return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

        def norm(x, name):
            centred = x - x.mean(-1, keepdims=True)
            variance = (centred**2).mean(-1, keepdims=True)
            normed = centred / np.sqrt(variance + config.layer_norm_eps)
            return normed * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

        x = np.stack(
            [
                tensors["embeddings.word_embeddings.weight"][word]
                + tensors["embeddings.token_type_embeddings.weight"][kind]
                + tensors["embeddings.position_embeddings.weight"][position]
                for position, (word, kind) in enumerate(zip(ids, types, strict=True))
            ]
        )
        x = norm(x, "embeddings.LayerNorm")
        states = [x]
        depth = config.hidden_size // config.num_attention_heads
        for index in range(config.num_hidden_layers):
            layer = f"encoder.layer.{index}"
            query, key, value = (
                dense(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value")
            )
            attended = np.zeros_like(x)
            for head in range(config.num_attention_heads):
                units = slice(head * depth, (head + 1) * depth)
                logits = query[:, units] @ key[:, units].T / math.sqrt(depth)
                weights = np.exp(logits - logits.max(1, keepdims=True))
                weights /= weights.sum(1, keepdims=True)
                attended[:, units] = weights @ value[:, units]
            attended = dense(attended, f"{layer}.attention.output.dense")
            x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
            inner = activations[config.hidden_act](dense(x, f"{layer}.intermediate.dense"))
            x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
            states.append(x)
        return states

    return run
