"""The embedding pass: the vector that the model's head is given of every example."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sie_jax.passes import sweep
from sie_jax.tasks.task import LabelledTask


@functools.cache
def embedding_pass(task: LabelledTask, mesh: Mesh) -> sweep.Pass:
    """Gives, for a batch, `embedding` `[B, H]` float32; dropout is off.

    One forward pass: 1 forward-equivalent per example.
    """

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"embedding": task.embed(params, batch).astype(jnp.float32)}

    return sweep.compiled(run, mesh, forward_equivalents=1)
