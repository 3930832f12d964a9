"""What a run says of every pair: a class and a rank score."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from sie_jax.tasks.graded import expected_gains


class Predictions(NamedTuple):
    """Predicted classes `[N]` (integers) and rank scores `[N]` (floats) of N pairs."""

    classes: Int[np.ndarray, "N"]
    scores: Float[np.ndarray, "N"]


def from_probabilities(
    probabilities: Float[np.ndarray, "N K"], gains: Sequence[float] | Num[np.ndarray, "K"]
) -> Predictions:
    """The most probable class (the lowest among equals) and the expected gain of each pair."""
    return Predictions(probabilities.argmax(-1), expected_gains(probabilities, gains))
