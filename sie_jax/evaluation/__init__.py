"""Test metrics, their intervals, and the baselines every run is seen against."""

from sie_jax.evaluation.predictions import Predictions, from_columns, from_probabilities

__all__ = ["Predictions", "from_columns", "from_probabilities"]
