"""Texts to scores: rows in memory, or a table of any size, by a model that a run left."""

from sie_jax.serving.scoring import FIELDS, Scorer, load, score
from sie_jax.serving.settings import Settings
from sie_jax.serving.table import Counts, score_table

__all__ = ["FIELDS", "Counts", "Scorer", "Settings", "load", "score", "score_table"]
