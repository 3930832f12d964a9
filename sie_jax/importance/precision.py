"""The precision that scores are computed in: at least float32, with exact products."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def wide(values: Any) -> Array:
    """The values in at least float32."""
    return jnp.asarray(values, jnp.promote_types(jnp.result_type(values), jnp.float32))


def einsum(equation: str, left: Array, right: Array) -> Array:
    """The product of two arrays in at least float32, at the full precision of that type."""
    return jnp.einsum(equation, wide(left), wide(right), precision=lax.Precision.HIGHEST)
