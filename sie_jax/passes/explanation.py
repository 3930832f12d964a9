"""Why a model predicts what it does: the training pairs that pushed a pair's prediction most."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from sie_jax import per_example
from sie_jax.data.loading import PlannedBatches
from sie_jax.importance import explaining, influence
from sie_jax.passes import sweep
from sie_jax.tasks import graded as objectives
from sie_jax.training.logs import Clock

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
def projection_pass(graphdef: nnx.GraphDef, mesh: Mesh, *, size: int, seed: int) -> sweep.Pass:
    """Gives, for a batch, `projection` P ∇f `[B, size]`, `residual` 1 − p_c and `chosen` c `[B]`.

    It takes `(params, of_prediction)` for its parameters, so that one compiled pass serves both:
    the class c is the example's label, or, where the boolean `of_prediction` is True, the one that
    the model finds most likely (of several, the first). P is a random matrix that is drawn from
    `seed` alone (PerExampleGrads.project). Dropout is off. One forward and one backward pass: 3
    forward-equivalents per example, and the projection, which costs as much as a layer of `size`.
    """
    cross_entropy = objectives.cross_entropy(graphdef)

    def run(given: tuple[Any, jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        params, of_prediction = given

        def output(params: Any, example: objectives.Example) -> tuple[jax.Array, Any]:
            _, logits = cross_entropy(params, example)
            predicted = jnp.argmax(logits).astype(jnp.int32)
            chosen = jnp.where(of_prediction, predicted, example["label"])
            odds = influence.log_odds(logits, chosen)
            return odds, (jax.nn.sigmoid(-odds), chosen)

        (_, (residual, chosen)), gradients = per_example.value_and_grad(output, has_aux=True)(
            params, batch
        )
        projection = gradients.project(jax.random.key(seed), size)
        return {"projection": projection, "residual": residual, "chosen": chosen}

    return sweep.compiled(run, mesh)


def explain(
    graphdef: nnx.GraphDef,
    params: Any,
    mesh: Mesh,
    training: PlannedBatches,
    targets: PlannedBatches,
    *,
    training_rows: np.ndarray,
    target_rows: np.ndarray,
    target_ids: np.ndarray,
    folder: Path,
    clock: Clock,
    console: Console,
    projection_size: int = 512,
    damping: float = 0.1,
    seed: int = 0,
    top: int = 3,
) -> pa.Table:
    """The training pairs that most raised and most lowered the log-odds of what was predicted.

    What is explained is the class that the model finds most likely for a target, not its label:
    why it said so, right or wrong. Influence is TRAK's with one model (importance.explaining): it
    ranks training pairs by how much those log-odds would fall without them; positive speaks for the
    prediction. It is an estimate from gradients at the last parameters, of signs and order: what
    one model saw early and then forgot is not in it, and another seed of training or of the
    projection moves the lower ranks. `projection_size` is the D of that estimate: the more, the
    nearer to the unprojected one.

    Cost: 3 forward-equivalents for each training pair and each target, once for all targets;
    N · projection_size floats of memory on the host.

    Args:
      params: those that made the predictions.
      training: the pairs they were trained on, each once, which are `training_rows`, ascending.
      targets: the pairs to explain, each once, which are `target_rows`, ascending.
      target_ids: strings `[M]`, the example ids of `target_rows`.
      folder: both passes leave parts here, so that a stop costs at most one (training.sweep). Parts
        that are there are taken as they are: a folder is for one model, seed and projection_size.
      damping: see importance.explaining.explain. top: how many of either kind.

    Returns:
      A table of `example_id`, `predicted` (int32, the class), `direction` ("for" or "against"),
      `rank` (from 1), `row` (the training row) and `influence` (float64), by target row, then "for"
      before "against", then rank. A pair stands only where its influence has the direction's sign,
      so there can be fewer than `top`.
    """
    function = projection_pass(graphdef, mesh, size=projection_size, seed=seed)
    found = [
        sweep.in_parts(
            function,
            (params, jnp.bool_(of_prediction)),
            batches,
            mesh,
            folder / name,
            rows=rows,
            clock=clock,
            console=console,
        )
        for name, batches, rows, of_prediction in (
            ("training", training, training_rows, False),
            ("targets", targets, target_rows, True),
        )
    ]
    pushes = explaining.explain(
        found[0]["projection"],
        found[0]["residual"],
        found[1]["projection"],
        damping=damping,
        top=top,
    )
    lines = [
        {
            "example_id": str(target_ids[target]),
            "predicted": int(found[1]["chosen"][target]),
            "direction": direction,
            "rank": rank,
            "row": int(training_rows[example]),
            "influence": float(influence),
        }
        for target in range(len(target_rows))
        for direction, sign, push in (("for", 1, pushes[0]), ("against", -1, pushes[1]))
        for rank, (example, influence) in enumerate(
            zip(push.examples[target], push.influence[target], strict=True), 1
        )
        if sign * influence > 0
    ]
    return pa.Table.from_pylist(lines, SCHEMA)
