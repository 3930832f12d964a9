"""What a run says of every pair: a rank score, and a class where it has an opinion of that."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Num

RELEVANCE, PROBABILITY = "relevance", "probability_"


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


def from_columns(
    columns: Mapping[str, np.ndarray], gains: Sequence[float] | Num[np.ndarray, "K"]
) -> Predictions:
    """What a task's columns say (`tasks`): a relevance `[N]`, or the probabilities of the classes.

    columns: `relevance`, or `probability_0` to `probability_<K-1>`; others are not read.
    """
    if RELEVANCE in columns:
        return Predictions(None, columns[RELEVANCE].astype(np.float64))
    return from_probabilities(probabilities(columns), gains)


def probabilities(columns: Mapping[str, np.ndarray]) -> Float[np.ndarray, "N K"]:
    """The probabilities of the classes, lowest grade first."""
    names = [name for name in columns if name.startswith(PROBABILITY)]
    return np.stack([columns[name] for name in sorted(names, key=_grade)], 1)


def predicted(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of the columns that `from_columns` reads."""
    return {
        name: values
        for name, values in columns.items()
        if name == RELEVANCE or name.startswith(PROBABILITY)
    }


def expected_gains(
    probabilities: Float[np.ndarray, "N K"], gains: Sequence[float] | Num[np.ndarray, "K"]
) -> Float64[np.ndarray, "N"]:
    """Σ_c p_c · gain_c of each pair, float64.

    Equal rows of `probabilities` give bit-equal gains wherever they stand, so that ties stay ties.

    Args:
      probabilities: of the classes, lowest grade first.
      gains: of each class.
    """
    # Not `probabilities @ gains`: BLAS may add the last rows of a matrix in another order.
    return (probabilities.astype(np.float64) * np.asarray(gains, np.float64)).sum(-1)


def _grade(name: str) -> int:
    return int(name.removeprefix(PROBABILITY))
