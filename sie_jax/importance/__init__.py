"""Scores say how much an example matters; weights are what a policy makes of them."""

from sie_jax.importance import (
    choosing,
    ekfac,
    gradients,
    groups,
    influence,
    modifiers,
    outputs,
    planning,
    policies,
    reference,
    registry,
    sampling,
    table,
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
    "groups",
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
    "table",
    "trajectory",
]
