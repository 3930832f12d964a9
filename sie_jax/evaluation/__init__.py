"""Test metrics, their intervals, and the baselines every run is seen against."""

from sie_jax.evaluation import (
    agreement,
    baselines,
    classification,
    detection,
    intervals,
    ranking,
    trec,
)
from sie_jax.evaluation.intervals import summarize
from sie_jax.evaluation.predictions import Predictions, from_probabilities

__all__ = [
    "Predictions",
    "agreement",
    "baselines",
    "classification",
    "detection",
    "from_probabilities",
    "intervals",
    "ranking",
    "summarize",
    "trec",
]
