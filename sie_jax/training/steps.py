"""The training steps: one that takes each example's weight, one that makes it from the batch.

Both are cached, so that all runs and seeds of one schedule share a compiled program.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from sie_jax import importance, per_example
from sie_jax.devices import mesh as meshes
from sie_jax.tasks import graded as objectives
from sie_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@functools.cache
def weighted_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Step:
    """The step on Σ_i w_i ℓ_i / n, with w_i = batch["weight"] (mean 1 over the training set).

    n is the number of real rows in the batch, so weights of 1 give the uniform mean. The offline
    policies and uniform training take this step.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        loss_fn = objectives.cross_entropy(graphdef, dropout_key=step_key(state))
        count = jnp.maximum(jnp.sum(batch["mask"]), 1)
        weights = jnp.where(batch["mask"], batch["weight"], 0.0) / count
        gradient, outputs = weighted_gradient(loss_fn, state.params, batch, weights)
        return update(state, optimizer, gradient, outputs, weights, batch)

    return compiled(step, mesh)


@functools.cache
def online_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    score: str,
    policy: importance.policies.Policy,
) -> Step:
    """The step on Σ_i w_i ∇ℓ_i, with w the policy's weights of this batch's own scores (sum 1).

    Scores, weights and the update come from one forward and one backward pass. The scores are
    those of this step: its dropout is on in them.

    A model that rematerialises is there to save memory, which kept factors would use: it takes a
    pass for the scores that keeps nothing, and then a plain one for the update.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        loss_fn = objectives.cross_entropy(graphdef, dropout_key=step_key(state))
        if nnx.merge(graphdef, state.params).bert.remat == "none":
            outputs, gradients = per_example.value_and_grad(loss_fn, has_aux=True)(
                state.params, batch
            )
            weights = weights_of(outputs[1], gradients.norms, batch)
            gradient = gradients.weighted_sum(weights)
        else:
            norms_of = per_example.grad_norms(loss_fn, has_aux=True)
            norms, logits = norms_of(state.params, batch)
            weights = weights_of(logits, lambda: norms, batch)
            gradient, outputs = weighted_gradient(loss_fn, state.params, batch, weights)
        return update(state, optimizer, gradient, outputs, weights, batch)

    def weights_of(logits: jax.Array, norms: Callable[[], jax.Array], batch: Batch) -> jax.Array:
        if score == "grad_norm":
            scores = norms()
        else:
            scores = importance.OUTPUT_SCORES[score](logits, batch["label"])
        return policy(importance.hardness(score, scores), where=batch["mask"])

    return compiled(step, mesh)


def weighted_gradient(
    loss_fn: objectives.LossFunction, params: Any, batch: Batch, weights: jax.Array
) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """Σ_i w_i ∇ℓ_i over the real rows by one plain backward pass, and their losses and logits."""

    def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        losses, logits = jax.vmap(loss_fn, in_axes=(None, 0))(params, batch)
        return jnp.sum(jnp.where(batch["mask"], weights * losses, 0.0)), (losses, logits)

    (_, outputs), gradient = jax.value_and_grad(objective, has_aux=True)(params)
    return gradient, outputs


def update(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    gradient: Any,
    outputs: tuple[jax.Array, jax.Array],
    weights: jax.Array,
    batch: Batch,
) -> tuple[TrainState, Metrics]:
    """The state after a step along `gradient`, and what every step reports.

    outputs: the losses `[B]` and logits `[B, K]` of the batch; weights `[B]`: those it was made by.
    """
    losses, logits = outputs
    mask = batch["mask"]
    metrics = {
        "loss": jnp.sum(jnp.where(mask, losses, 0.0)) / jnp.maximum(jnp.sum(mask), 1),
        "gradient_norm": optax.tree.norm(gradient),
        # (Σw)² / Σw²: how many equally weighted examples the batch amounts to
        "effective_sample_size": jnp.sum(weights) ** 2
        / jnp.maximum(jnp.sum(weights**2), jnp.finfo(weights.dtype).tiny),
        "losses": losses,
        "margins": importance.outputs.logit_margin(logits, batch["label"]),
    }
    return advance(state, optimizer, gradient), metrics


def advance(
    state: TrainState, optimizer: optax.GradientTransformation, gradient: Any
) -> TrainState:
    """The state one step of the optimiser further."""
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1, state.seed)


def step_key(state: TrainState) -> jax.Array:
    """The random key of the step that a state is about to take."""
    return jax.random.fold_in(jax.random.key(state.seed), state.step)


def compiled(step: Step, mesh: Mesh) -> Step:
    """The step under `jit`: the state where `mesh.RULES` put it and given up, batches split.

    `fsdp`'s shares of the parameters are put together at the start of the step.
    """

    def run(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        now = state._replace(params=meshes.gathered(mesh, state.params))
        after, metrics = step(now, batch)
        metrics["row"] = batch["row"]
        return jax.lax.with_sharding_constraint(after, meshes.shardings(mesh, after)), metrics

    return jax.jit(
        run,
        in_shardings=(None, meshes.batch_sharded(mesh)),
        out_shardings=(None, meshes.replicated(mesh)),
        donate_argnums=0,
    )
