"""Texts to scores: rows in memory, or a table of any size, by a model that a run left."""

from sie_jax.serving.results import Counts
from sie_jax.serving.scoring import Scorer, load, score
from sie_jax.serving.settings import Settings
from sie_jax.serving.table import Pairs, score_table

__all__ = ["Counts", "Pairs", "Scorer", "Settings", "load", "score", "score_table"]
