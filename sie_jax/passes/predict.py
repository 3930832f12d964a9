"""The prediction pass: what the evaluation reads of every example, and its own loss."""

import functools
from typing import Any

import jax
from jax.sharding import Mesh

from sie_jax.passes import sweep
from sie_jax.tasks.coupled import CoupledTask
from sie_jax.tasks.task import LabelledTask


@functools.cache
def predict_pass(task: LabelledTask, mesh: Mesh) -> sweep.Pass:
    """Gives, for a batch, the task's columns and `loss` `[B]`; dropout is off.

    A loss that reads other rows is left out where the batch does not say which rows are of one
    list: `passes.lists` makes it of the columns of whole lists.
    One forward pass: 1 forward-equivalent per example.
    """

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        outputs = task.outputs_of(params, batch, None)
        lacks = isinstance(task, CoupledTask) and "list" not in batch
        own = {} if lacks else {"loss": task.couple(outputs, batch)}
        return {**task.columns(outputs), **own}

    return sweep.compiled(run, mesh, forward_equivalents=1)
