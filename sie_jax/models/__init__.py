"""Encoders and heads in Flax NNX, and their Hugging Face folders."""

from sie_jax.models.bert import FlaxBert
from sie_jax.models.heads import PairClassifier
from sie_jax.models.huggingface import LoadReport
from sie_jax.models.pretraining import PretrainingModel
from sie_jax.models.towers import Towers

__all__ = ["FlaxBert", "LoadReport", "PairClassifier", "PretrainingModel", "Towers"]
