"""Scores say how much an example matters; weights are what a policy makes of them.

Importing it needs jax and jaxtyping alone. `groups`, `section` and `table`, which need pyarrow too,
are therefore imported by their own names.
"""

from sie_jax.importance import (
    choosing,
    ekfac,
    gradients,
    influence,
    modifiers,
    outputs,
    planning,
    policies,
    reference,
    registry,
    sampling,
    trajectory,
)
from sie_jax.importance.policies import POLICIES
from sie_jax.importance.registry import (
    ESTIMATORS,
    NEEDS,
    OUTPUT_SCORES,
    SCORES,
    hardness,
    needing,
)

__all__ = [
    "ESTIMATORS",
    "NEEDS",
    "OUTPUT_SCORES",
    "POLICIES",
    "SCORES",
    "choosing",
    "ekfac",
    "gradients",
    "hardness",
    "influence",
    "modifiers",
    "needing",
    "outputs",
    "planning",
    "policies",
    "reference",
    "registry",
    "sampling",
    "trajectory",
]
