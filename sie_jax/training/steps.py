"""The training steps: examples weighted beforehand or by the batch, and a batch as a whole.

They are cached, so that all runs and seeds of one schedule share a compiled program.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from sie_jax import importance
from sie_jax.devices import mesh as meshes
from sie_jax.tasks.masked import Masked
from sie_jax.tasks.task import ClassificationTask, LabelledTask
from sie_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@functools.cache
def weighted_step(task: LabelledTask, optimizer: optax.GradientTransformation, mesh: Mesh) -> Step:
    """The step on Σ_i w_i c_i / n, with w_i = batch["weight"] (mean 1 over the training set).

    c_i is row i's contribution (`tasks.task`), ∇ℓ_i where losses are separate. n is the number of
    real rows in the batch, so weights of 1 give the gradient of the mean loss. The offline policies
    and uniform training take this step.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = step_key(state)
        count = jnp.maximum(jnp.sum(batch["mask"]), 1)
        weights = jnp.where(batch["mask"], batch["weight"], 0.0) / count
        gradient, found = task.weighted_gradient(state.params, batch, weights, key)
        return update(task, state, optimizer, gradient, found, weights, batch)

    return compiled(step, mesh)


@functools.cache
def online_step(
    task: LabelledTask,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    score: str,
    policy: importance.policies.Policy,
) -> Step:
    """The step on Σ_i w_i c_i, with w the policy's weights of this batch's own scores (sum 1).

    Scores, weights and the update come from one forward and one backward pass. The scores are
    those of this step: its dropout is on in them.

    A model that rematerialises does so to save memory, which kept factors would use. It takes one
    pass for the scores, which keeps nothing, and a plain one for the update.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = step_key(state)
        if task.rematerialises(state.params):
            norms, outputs = task.norms(state.params, batch, dropout_key=key)
            weights = weights_of(outputs, lambda: norms, batch)
            gradient, found = task.weighted_gradient(state.params, batch, weights, key)
        else:
            found, gradients = task.gradients(state.params, batch, dropout_key=key)
            weights = weights_of(found[1], gradients.norms, batch)
            gradient = gradients.weighted_sum(weights)
        return update(task, state, optimizer, gradient, found, weights, batch)

    def weights_of(outputs: Any, norms: Callable[[], jax.Array], batch: Batch) -> jax.Array:
        scores = norms() if score == "grad_norm" else task.score(score, outputs, batch)
        return policy(importance.hardness(score, scores), where=batch["mask"])

    return compiled(step, mesh)


@functools.cache
def batch_step(task: Masked, optimizer: optax.GradientTransformation, mesh: Mesh) -> Step:
    """The step on the one loss that a task makes of a batch: pretraining takes this step.

    What is hidden and exchanged is drawn anew at every step.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def objective(params: Any) -> tuple[jax.Array, Metrics]:
            parts = task.parts(task.sums(params, batch, step_key(state), dropout=True))
            return parts["loss"], parts

        (_, parts), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
        metrics = {**parts, "gradient_norm": optax.tree.norm(gradient)}
        return advance(state, optimizer, gradient), metrics

    return compiled(step, mesh)


def update(
    task: LabelledTask,
    state: TrainState,
    optimizer: optax.GradientTransformation,
    gradient: Any,
    found: tuple[jax.Array, Any],
    weights: jax.Array,
    batch: Batch,
) -> tuple[TrainState, Metrics]:
    """The state after a step along `gradient`, and what every step reports.

    found: the losses `[B]` and the outputs of the batch. weights: `[B]`, those of its gradients.
    """
    losses, outputs = found
    mask = batch["mask"]
    metrics = {
        "loss": jnp.sum(jnp.where(mask, losses, 0.0)) / jnp.maximum(jnp.sum(mask), 1),
        "gradient_norm": optax.tree.norm(gradient),
        # (Σw)² / Σw²: how many equally weighted examples the batch amounts to
        "effective_sample_size": jnp.sum(weights) ** 2
        / jnp.maximum(jnp.sum(weights**2), jnp.finfo(weights.dtype).tiny),
        "losses": losses,
    }
    if isinstance(task, ClassificationTask):
        metrics["margins"] = task.margin(outputs, batch)
    return advance(state, optimizer, gradient), metrics


def advance(
    state: TrainState, optimizer: optax.GradientTransformation, gradient: Any
) -> TrainState:
    """The state after one more step of the optimiser."""
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1, state.seed)


def step_key(state: TrainState) -> jax.Array:
    """The random key of the step that a state is about to take."""
    return jax.random.fold_in(jax.random.key(state.seed), state.step)


def compiled(step: Step, mesh: Mesh) -> Step:
    """The step under `jit`, with the state where the mesh put it, and batches split.

    The step gives up the state's buffers. It begins by putting `fsdp`'s shares of the parameters
    together.
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
