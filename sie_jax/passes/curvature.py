"""The curvature passes, which give the Fisher information of a training set in EK-FAC's form."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sie_jax import per_example
from sie_jax.importance import ekfac
from sie_jax.passes import sweep
from sie_jax.tasks.task import ClassificationTask, Example

ENTRIES = ("covariances", "eigenvalues")
"""The names of the two passes."""


def fit_ekfac(
    task: ClassificationTask,
    params: Any,
    examples: sweep.Examples,
    workspace: sweep.Workspace,
    *,
    damping: float,
    seed: int,
) -> ekfac.EKFAC:
    """The Fisher information over the real rows of `examples`, in EK-FAC's form.

    Labels are drawn from the model's own p(y|x), with `seed` folded with the row: the same for
    both passes, whatever the batches. Two passes, 6 forward-equivalents per row. The workspace's
    folder receives `covariances.npz`, the eigenvectors, and `eigenvalues.npz`.
    """
    covariances, eigenvalues = ENTRIES
    bases = sweep.summed(
        covariance_pass(task, workspace.mesh, seed),
        params,
        examples,
        workspace,
        covariances,
        finish=jax.jit(ekfac.eigenbases),
    )
    state = {"params": params, "bases": bases}
    made = eigenvalue_pass(task, workspace.mesh, seed)
    total = sweep.summed(made, state, examples, workspace, eigenvalues)
    # without any row the sums are 0, and so is every influence
    count = jnp.maximum(total["count"], 1)
    return ekfac.EKFAC(bases, sweep.divided(total["eigenvalues"], count), damping)


@functools.cache
def covariance_pass(task: ClassificationTask, mesh: Mesh, seed: int) -> sweep.Pass:
    """Gives a batch's `ekfac.covariance_sums` over its real rows, labels by the model.

    One forward and one backward pass: 3 forward-equivalents.
    """
    gradients_of = per_example.value_and_grad(_own_label(task, seed))

    def run(params: Any, batch: dict[str, jax.Array]) -> Any:
        return ekfac.covariance_sums(gradients_of(params, batch)[1], where=batch["mask"])

    return sweep.compiled(run, mesh, forward_equivalents=3)


@functools.cache
def eigenvalue_pass(task: ClassificationTask, mesh: Mesh, seed: int) -> sweep.Pass:
    """Gives a batch's `ekfac.eigenvalue_sums` over its real rows, and their `count`.

    It is called with a dictionary of `params` and `bases`. 3 forward-equivalents.
    """
    gradients_of = per_example.value_and_grad(_own_label(task, seed))

    def run(state: dict[str, Any], batch: dict[str, jax.Array]) -> dict[str, Any]:
        grads = gradients_of(state["params"], batch)[1]
        sums = ekfac.eigenvalue_sums(grads, state["bases"], where=batch["mask"])
        return {"eigenvalues": sums, "count": jnp.sum(batch["mask"])}

    return sweep.compiled(run, mesh, forward_equivalents=3)


def _own_label(task: ClassificationTask, seed: int) -> Callable[[Any, Example], jax.Array]:
    """The loss of a label drawn from p(y|x), the seed's key folded with the row."""

    def loss(params: Any, example: Example) -> jax.Array:
        outputs = task.outputs(params, example)
        key = jax.random.fold_in(jax.random.key(seed), example["row"])
        return task.couple(outputs, example | {"label": task.drawn(outputs, key)})

    return loss
