"""Scores (how much an example matters, by one estimator) and weights (what is done with it)."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Array

from sie_jax.importance import (
    groups,
    modifiers,
    outputs,
    sampling,
    table,
    vectors,
    weighting,
)
from sie_jax.importance.weighting import POLICIES

OUTPUT_SCORES: dict[str, Callable[..., Array]] = {
    "loss": outputs.loss,
    "el2n": outputs.el2n,
    "margin": outputs.margin,
    "entropy": outputs.entropy,
}
"""The scores of one forward pass: functions of (logits, labels)."""

SCORES = ("grad_norm", *OUTPUT_SCORES)
"""All scores by name: the columns of an importance table."""


Scores = TypeVar("Scores", Array, np.ndarray)


def hardness(name: str, scores: Scores) -> Scores:
    """A score turned so that high means hard and 0 is the least: 1 − margin, the others unchanged.

    Policies take this, and the audit ranks by it. Works on NumPy and JAX arrays alike.
    """
    return 1.0 - scores if name == "margin" else scores


__all__ = [
    "OUTPUT_SCORES",
    "POLICIES",
    "SCORES",
    "groups",
    "hardness",
    "modifiers",
    "outputs",
    "sampling",
    "table",
    "vectors",
    "weighting",
]
