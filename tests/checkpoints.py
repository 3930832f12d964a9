"""Writes a folder of a tiny cross-encoder, as Hugging Face leaves one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flax import nnx
from transformers import BertConfig

from sie_jax.data import tokenization
from sie_jax.models import PairClassifier


def write(
    folder: Path,
    texts: Iterable[str],
    *,
    num_labels: int = 4,
    vocabulary_size: int = 100,
    **changed: Any,
) -> Path:
    """A model from random weights with a tokenizer of these texts; `changed` is of BertConfig."""
    tokenizer = tokenization.train(texts, vocabulary_size=vocabulary_size)
    size = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 64,
    }
    config = BertConfig(vocab_size=len(tokenizer), **(size | changed))
    PairClassifier(config, num_labels=num_labels, rngs=nnx.Rngs(0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
