"""What a run says of every pair: a rank score, and a class where it has an opinion of that."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from sie_jax.tasks.graded import expected_gains


class Predictions(NamedTuple):
    """Predicted classes `[N]` (integers) and rank scores `[N]` (floats) of N pairs.

    A ranker that names no classes has None for them, and no metric of classification.
    """

    classes: Int[np.ndarray, "N"] | None
    scores: Float[np.ndarray, "N"]


def from_probabilities(
    probabilities: Float[np.ndarray, "N K"], gains: Sequence[float] | Num[np.ndarray, "K"]
) -> Predictions:
    """The most probable class (the lowest among equals) and the expected gain of each pair."""
    return Predictions(probabilities.argmax(-1), expected_gains(probabilities, gains))
