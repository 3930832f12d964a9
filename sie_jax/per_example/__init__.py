"""Exact per-example gradients of any JAX loss for the price of one backward pass."""

from sie_jax.per_example.coupled_norms import CoupledNorms, coupled_grad_norms
from sie_jax.per_example.coupling import Contributions, coupled_value_and_grad
from sie_jax.per_example.explain import Explanation, LeafExplanation, explain
from sie_jax.per_example.forms import Covariance
from sie_jax.per_example.gradients import PerExampleGrads
from sie_jax.per_example.transform import grad_norms, value_and_grad

__all__ = [
    "Contributions",
    "CoupledNorms",
    "Covariance",
    "Explanation",
    "LeafExplanation",
    "PerExampleGrads",
    "coupled_grad_norms",
    "coupled_value_and_grad",
    "explain",
    "grad_norms",
    "value_and_grad",
]
