"""The prediction pass: what the evaluation reads of every example, and its loss."""

import functools
from typing import Any

import jax
from jax.sharding import Mesh

from sie_jax.passes import sweep
from sie_jax.tasks.task import LabelledTask


@functools.cache
def predict_pass(task: LabelledTask, mesh: Mesh) -> sweep.Pass:
    """Gives, for a batch, the task's predictions and `loss` `[B]`; dropout is off.

    One forward pass: 1 forward-equivalent per example.
    """

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        losses, outputs = task.losses(params, batch)
        return {**task.predictions(outputs), "loss": losses}

    return sweep.compiled(run, mesh, forward_equivalents=1)
