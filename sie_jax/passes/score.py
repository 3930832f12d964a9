"""The score pass: what one forward pass and one backward pass of norms say of every example."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sie_jax.importance import gradients
from sie_jax.passes import sweep
from sie_jax.tasks.listed import Listed
from sie_jax.tasks.task import LabelledTask


@functools.cache
def score_pass(task: LabelledTask, mesh: Mesh) -> sweep.Pass:
    """Gives, for a batch, `grad_norm`, the task's output scores, `last_layer_norm` `[B]`,
    `layer_norms` `[B, L]` in the order of `layers`, and the task's columns.

    For a task of `tasks.listed`, norms are those of the output's gradient, and there are no scores:
    `passes.lists` makes both of the columns of whole lists, however long. Another loss that reads
    other rows is that of the batch as it is. Dropout is off. Nothing of the backward pass but norms
    is kept: `task.norms_cost` forward-equivalents.
    """

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        scores: dict[str, jax.Array] = {}
        if isinstance(task, Listed):
            per_leaf, outputs = task.output_norms(params, batch, per_leaf=True)
        else:
            per_leaf, outputs = task.norms(params, batch, per_leaf=True)
            scores = {name: task.score(name, outputs, batch) for name in task.output_scores}
        by_layer = gradients.layer_norms(per_leaf)
        layer_norms = jnp.stack(list(by_layer.values()), 1)
        columns = task.columns(outputs)
        return {
            "grad_norm": jnp.linalg.norm(layer_norms, axis=1),
            **scores,
            "last_layer_norm": by_layer[task.head(params)],
            "layer_norms": layer_norms,
            **columns,
        }

    return sweep.compiled(run, mesh, forward_equivalents=task.norms_cost)


@functools.cache
def batch_pass(task: LabelledTask, mesh: Mesh) -> sweep.Pass:
    """Gives `grad_norm` and `loss` `[B]` of a training batch as it is, with its own lists."""

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        norms, outputs = task.norms(params, batch)
        return {"grad_norm": norms, "loss": task.couple(outputs, batch)}

    return sweep.compiled(run, mesh, forward_equivalents=task.norms_cost)


def layers(params: Any) -> list[str]:
    """The names of the layers whose norms a score pass gives, in their order."""
    return list(gradients.layer_norms(jax.tree.map(lambda _: jnp.zeros(1), params)))
