"""Regression to the gain: its loss, its least, and how the loss falls along the output."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sie_jax.tasks.regression import Regression

GAINS = (0.0, 0.25, 1.0)
TASK = Regression(nnx.graphdef(nnx.Linear(1, 1, rngs=nnx.Rngs(0))), GAINS)


def test_the_loss_is_half_the_squared_distance_to_the_gain() -> None:
    outputs, labels = np.array([0.5, -1.0, 2.0], np.float32), np.array([1, 0, 2])
    wanted = (outputs - np.array(GAINS)[labels]) ** 2 / 2
    batch = {"label": jnp.asarray(labels)}
    np.testing.assert_allclose(TASK.couple(jnp.asarray(outputs), batch), wanted, rtol=1e-6)
    np.testing.assert_allclose(TASK.score("loss", jnp.asarray(outputs), batch), wanted, rtol=1e-6)
    alone = TASK.couple(jnp.asarray(outputs[1]), {"label": jnp.int32(0)})
    np.testing.assert_allclose(alone, wanted[1], rtol=1e-6)


def test_the_expected_gain_has_the_least_loss() -> None:
    labels = jnp.array([0, 1, 2, 2])
    mean = np.array(GAINS)[np.asarray(labels)].mean()

    def total(output: jax.Array) -> jax.Array:
        return jnp.sum(TASK.couple(jnp.full(4, output), {"label": labels}))

    assert abs(float(jax.grad(total)(jnp.float32(mean)))) < 1e-6


def test_the_loss_falls_along_the_output_function_by_the_residual() -> None:
    """∇ℓ = −residual · ∇f."""
    output, example = jnp.float32(0.3), {"label": jnp.int32(2)}
    value, of_value = jax.value_and_grad(TASK.output_function)(output, example)
    of_loss = jax.grad(TASK.couple)(output, example)
    np.testing.assert_allclose(of_loss, -TASK.residual(value) * of_value, rtol=1e-6)
