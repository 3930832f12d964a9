"""The gradient passes: norms, products and projections of every example's gradient, and sums."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sie_jax import per_example
from sie_jax.importance import gradients
from sie_jax.passes import sweep
from sie_jax.tasks.task import Example, ScalarTask, SeparateTask

# examples whose gradients are materialised at a time
CHUNK = 4


@functools.cache
def preconditioned_pass(task: SeparateTask, mesh: Mesh) -> sweep.Pass:
    """Gives `preconditioned_norm` `[B]`; called with (parameters, Adam's second moments).

    Dropout is off. Gradients are materialised, CHUNK examples at a time: 3 forward-equivalents.
    """

    def run(states: tuple[Any, Any], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        params, second_moment = states
        norms_of = gradients.preconditioned_norms(
            task.loss(), second_moment, epsilon=1e-8, chunk_size=CHUNK, has_aux=True
        )
        return {"preconditioned_norm": norms_of(params, batch)}

    return sweep.compiled(run, mesh, forward_equivalents=3)


@functools.cache
def example_pass(
    task: ScalarTask,
    mesh: Mesh,
    needs: frozenset[str],
    *,
    projection_size: int,
    seed: int,
) -> sweep.Pass:
    """Gives, for a batch, what `needs` names of the loss gradient: `norm`, `dot`, `ekfac`,
    `ekfac_self` `[B]`. For `projection` it gives `projection` `[B, D]` of ∇f, and the `residual`
    `[B]`; f is the task's output function.

    It is called with a dictionary of `params` and of what it needs beside them: `gradient`,
    `preconditioned`, `curvature`. Dropout is off. One forward and one backward pass, of f: 3
    forward-equivalents.
    """
    gradients_of = per_example.value_and_grad(_output_function(task))

    def run(state: dict[str, Any], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        value, grads = gradients_of(state["params"], batch)
        residual = task.residual(value)
        found = {}
        if "norm" in needs:
            found["norm"] = residual * grads.norms()
        if "dot" in needs:
            found["dot"] = -residual * grads.dot(state["gradient"])
        if "projection" in needs:
            found["projection"] = grads.project(jax.random.key(seed), projection_size)
            found["residual"] = residual
        if "ekfac" in needs:
            found["ekfac"] = -residual * grads.dot(state["preconditioned"])
        if "ekfac_self" in needs:
            found["ekfac_self"] = residual**2 * state["curvature"].self_influence(grads)
        return found

    return sweep.compiled(run, mesh, forward_equivalents=3)


@functools.cache
def target_pass(
    task: ScalarTask,
    mesh: Mesh,
    sums: frozenset[str],
    *,
    projection_size: int,
    seed: int,
) -> sweep.Pass:
    """Gives, for a batch, the sums over its real rows that are named: `gradient`, of the loss, like
    params, and `projection` `[D]`, of ∇f; and the rows' `count`. 3 forward-equivalents.
    """
    gradients_of = per_example.value_and_grad(_output_function(task))

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, Any]:
        value, grads = gradients_of(params, batch)
        found: dict[str, Any] = {"count": jnp.sum(batch["mask"])}
        if "gradient" in sums:
            weights = jnp.where(batch["mask"], -task.residual(value), 0)
            found["gradient"] = grads.weighted_sum(weights)
        if "projection" in sums:
            projections = grads.project(jax.random.key(seed), projection_size)
            found["projection"] = jnp.sum(jnp.where(batch["mask"][:, None], projections, 0), axis=0)
        return found

    return sweep.compiled(run, mesh, forward_equivalents=3)


def _output_function(task: ScalarTask) -> Callable[[Any, Example], jax.Array]:
    def value(params: Any, example: Example) -> jax.Array:
        return task.output_function(task.outputs(params, example), example)

    return value
