"""Test metrics, their intervals, and the baselines every run is seen against."""

from sie_jax.evaluation import (
    agreement,
    baselines,
    claims,
    classification,
    detection,
    intervals,
    ranking,
    trec,
    verdict,
)
from sie_jax.evaluation.intervals import Judgments, summarize
from sie_jax.evaluation.predictions import Predictions, from_columns, from_probabilities

__all__ = [
    "Judgments",
    "Predictions",
    "agreement",
    "baselines",
    "claims",
    "classification",
    "detection",
    "from_columns",
    "from_probabilities",
    "intervals",
    "ranking",
    "summarize",
    "trec",
    "verdict",
]
