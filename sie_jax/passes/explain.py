"""Why a model predicts what it does: the training pairs that moved a prediction most."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jax.sharding import Mesh

from sie_jax import per_example
from sie_jax.importance import explaining
from sie_jax.passes import sweep
from sie_jax.passes.influence import Options
from sie_jax.tasks.task import ClassificationTask, Example

ENTRIES = ("explaining_training", "explaining_targets")
"""The names of the two passes."""

SCHEMA = pa.schema(
    {
        "example_id": pa.string(),
        "predicted": pa.int32(),
        "direction": pa.string(),
        "rank": pa.int32(),
        "row": pa.int64(),
        "influence": pa.float64(),
    }
)


@functools.cache
def projection_pass(task: ClassificationTask, mesh: Mesh, *, size: int, seed: int) -> sweep.Pass:
    """Gives, for a batch, `projection` P ∇f `[B, size]`, `residual` and the label `chosen` `[B]`.

    f is the task's output function for a label. The pass is called with `(params, of_prediction)`,
    so that it is compiled once for both: the label is the example's, or, where the boolean
    `of_prediction` is True, the one that the model finds most likely. P is a random matrix that is
    drawn from `seed` alone (PerExampleGrads.project). Dropout is off. One forward and one backward
    pass: 3 forward-equivalents per example, and the projection, which costs as much as a layer of
    `size`.
    """

    def run(given: tuple[Any, jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        params, of_prediction = given

        def output(params: Any, example: Example) -> tuple[jax.Array, Any]:
            outputs = task.outputs(params, example)
            chosen = jnp.where(of_prediction, task.likeliest(outputs), example["label"])
            value = task.output_function(outputs, example | {"label": chosen})
            return value, (task.residual(value), chosen)

        (_, (residual, chosen)), gradients = per_example.value_and_grad(output, has_aux=True)(
            params, batch
        )
        projection = gradients.project(jax.random.key(seed), size)
        return {"projection": projection, "residual": residual, "chosen": chosen}

    return sweep.compiled(run, mesh, forward_equivalents=3)


def explain(
    task: ClassificationTask,
    params: Any,
    training: sweep.Examples,
    targets: sweep.Examples,
    workspace: sweep.Workspace,
    options: Options,
    *,
    target_ids: np.ndarray,
    top: int = 3,
) -> pa.Table:
    """The training pairs that most raised and most lowered the log-odds of what was predicted.

    What is explained is the label that the model finds most likely for a target, not the target's
    own: why the model said so, right or wrong. Influence is TRAK's with one model
    (importance.explaining). It ranks training pairs by how much those log-odds would fall without
    them; positive speaks for the prediction. It is an estimate from gradients at the last
    parameters, of signs and order. What one model saw early and then forgot is not in it, and
    another seed of training or of the projection moves the lower ranks. The larger the options'
    `projection_size`, the nearer the estimate is to the unprojected one.

    Cost: 3 forward-equivalents for each training pair and each target, once for all targets;
    N · projection_size floats of memory on the host.

    Args:
      params: those that made the predictions.
      training: the pairs that they were trained on. targets: the pairs to explain.
      workspace: its folder keeps the parts of both passes, so that a stop costs at most one part.
        The folder is for one model and one set of options.
      target_ids: strings `[M]`, the example ids of the targets' rows.
      top: how many pairs of either kind.

    Returns:
      A table of `example_id`, `predicted` (int32, the label), `direction` ("for" or "against"),
      `rank` (from 1), `row` (the training row) and `influence` (float64), by target row, then "for"
      before "against", then rank. A pair is listed only if its influence has the direction's sign,
      so there can be fewer than `top`.
    """
    made = projection_pass(task, workspace.mesh, size=options.projection_size, seed=options.seed)
    found = [
        sweep.in_parts(made, (params, jnp.bool_(of_prediction)), examples, workspace, name)
        for name, examples, of_prediction in zip(
            ENTRIES, (training, targets), (False, True), strict=True
        )
    ]
    pushes = explaining.explain(
        found[0]["projection"],
        found[0]["residual"],
        found[1]["projection"],
        damping=options.damping,
        top=top,
    )
    lines = [
        {
            "example_id": str(target_ids[target]),
            "predicted": int(found[1]["chosen"][target]),
            "direction": direction,
            "rank": rank,
            "row": int(training.rows[example]),
            "influence": float(influence),
        }
        for target in range(len(targets.rows))
        for direction, sign, push in (("for", 1, pushes[0]), ("against", -1, pushes[1]))
        for rank, (example, influence) in enumerate(
            zip(push.examples[target], push.influence[target], strict=True), 1
        )
        if sign * influence > 0
    ]
    return pa.Table.from_pylist(lines, SCHEMA)
