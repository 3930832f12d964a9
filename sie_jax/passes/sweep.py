"""Passes over a data set that change nothing: scores of examples, predictions of pairs."""

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from sie_jax import importance, per_example, processes
from sie_jax.data.loading import Arrays, PlannedBatches, iterate
from sie_jax.devices import mesh as meshes
from sie_jax.importance import gradients
from sie_jax.tables import vectors
from sie_jax.tables.spool import write_parquet
from sie_jax.tasks import graded as objectives
from sie_jax.training.logs import Bar, Clock, bar

# batches between two parts of a pass: what a stop can cost
PART_BATCHES = 50
# examples whose gradients are materialised at a time
CHUNK = 4

Columns = dict[str, np.ndarray]
Pass = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]


@functools.cache
def score_pass(graphdef: nnx.GraphDef, mesh: Mesh) -> Pass:
    """Gives, for a batch, what one pass can: `importance.SCORES`, `last_layer_norm` `[B]`,
    `layer_norms` `[B, L]` in the order of `layers`, `probability_0` to `probability_<K-1>` `[B]`.

    Dropout is off. One forward pass and one backward pass that keeps norms only: 2
    forward-equivalents per example.
    """
    norms_of = per_example.grad_norms(
        objectives.cross_entropy(graphdef), has_aux=True, per_leaf=True
    )

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        per_leaf, logits = norms_of(params, batch)
        by_layer = gradients.layer_norms(per_leaf)
        layer_norms = jnp.stack(list(by_layer.values()), 1)
        scores = {
            name: score(logits, batch["label"]) for name, score in importance.OUTPUT_SCORES.items()
        }
        probabilities = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        classes = {f"probability_{i}": column for i, column in enumerate(probabilities.T)}
        return {
            "grad_norm": jnp.linalg.norm(layer_norms, axis=1),
            **scores,
            "last_layer_norm": by_layer["classifier"],
            "layer_norms": layer_norms,
            **classes,
        }

    return compiled(run, mesh)


def layers(params: Any) -> list[str]:
    """The names of the layers whose norms a score pass gives, in their order."""
    return list(gradients.layer_norms(jax.tree.map(lambda _: jnp.zeros(1), params)))


@functools.cache
def preconditioned_pass(graphdef: nnx.GraphDef, mesh: Mesh) -> Pass:
    """Gives `preconditioned_norm` `[B]`; called with (parameters, Adam's second moments).

    Dropout is off. Gradients are materialised, CHUNK examples at a time: 3 forward-equivalents.
    """
    loss_fn = objectives.cross_entropy(graphdef)

    def run(states: tuple[Any, Any], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        params, second_moment = states
        norms_of = gradients.preconditioned_norms(
            loss_fn, second_moment, epsilon=1e-8, chunk_size=CHUNK, has_aux=True
        )
        return {"preconditioned_norm": norms_of(params, batch)}

    return compiled(run, mesh)


@functools.cache
def embedding_pass(graphdef: nnx.GraphDef, mesh: Mesh) -> Pass:
    """Gives `embedding` `[B, H]`, what the classifier is given of a pair; dropout off."""

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        bert = nnx.merge(graphdef, params).bert
        hidden = bert(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        return {"embedding": bert.pool(hidden).astype(jnp.float32)}

    return compiled(run, mesh)


@functools.cache
def predict_pass(graphdef: nnx.GraphDef, mesh: Mesh) -> Pass:
    """Gives, for a batch, `probabilities` `[B, K]` and `loss` `[B]`, dropout off: one forward."""
    loss_fn = objectives.cross_entropy(graphdef)

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        losses, logits = jax.vmap(loss_fn, in_axes=(None, 0))(params, batch)
        return {"probabilities": jax.nn.softmax(logits), "loss": losses}

    return compiled(run, mesh)


def sweep(
    function: Pass, params: Any, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh
) -> Iterator[Columns]:
    """Runs a pass batch by batch and yields its columns with `row`, padding rows left out.

    Every process is given the rows of all processes.
    """
    for batch in batches:
        placed = meshes.place_batch(mesh, batch)
        output = jax.device_get(function(params, placed))
        row = meshes.fetch(mesh, placed["row"])
        real = row >= 0
        yield {"row": row[real], **{name: v[real] for name, v in output.items()}}


def in_parts(
    function: Pass,
    params: Any,
    batches: PlannedBatches,
    mesh: Mesh,
    folder: Path,
    *,
    rows: np.ndarray,
    clock: Clock,
    console: Console,
) -> Columns:
    """Runs a pass over all of `batches`, which hold `rows` (ascending), and gives its columns.

    A pass may give `[B, D]` for a name: that column is then `[N, D]`.

    Every PART_BATCHES batches are left in `folder`, by every process its own rows of them as a
    Parquet file; a part that is there is not computed again, so a pass that was stopped goes on at
    the part it was in.
    """
    parts: list[Path] = []
    process, processes_in_all = jax.process_index(), jax.process_count()
    with bar("score", len(batches), console) as progress:
        for start in range(0, len(batches), PART_BATCHES):
            files = [
                folder / f"part-{start // PART_BATCHES:05d}-{one}-of-{processes_in_all}.parquet"
                for one in range(processes_in_all)
            ]
            parts += files
            stop = min(start + PART_BATCHES, len(batches))
            if processes.agreed(all(file.exists() for file in files)):
                progress.skip(stop - start)
                continue
            taken = _watched(iterate(batches, start=start, stop=stop), progress, clock)
            done = list(sweep(function, params, taken, mesh))
            columns = {
                name: np.concatenate([one[name] for one in done])[process::processes_in_all]
                for name in done[0]
            }
            own = pa.table({name: _column(v) for name, v in columns.items()})
            write_parquet(files[process], own)
    clock.tick(force=True)
    processes.together()  # now every process's parts are there
    tables = [pq.read_table(path) for path in parts]
    return gather(
        ({name: vectors.as_array(t[name]) for name in t.column_names} for t in tables), rows
    )


def _column(values: np.ndarray) -> pa.Array:
    return pa.array(values) if values.ndim == 1 else vectors.as_column(values)


def _watched(batches: Iterable[Arrays], progress: Bar, clock: Clock) -> Iterator[Arrays]:
    for batch in batches:
        yield batch
        progress.advance(batch)
        clock.tick()


def gather(parts: Iterable[Columns], rows: np.ndarray) -> Columns:
    """Puts the parts of a sweep in the order of `rows`, ascending; each must have come once.

    Raises ValueError where one did not.
    """
    joined = [part for part in parts if len(part["row"])]
    order = np.concatenate([part["row"] for part in joined])
    if not np.array_equal(np.sort(order), rows):
        raise ValueError(f"a sweep gave {len(order)} rows where {len(rows)} were due, each once")
    inverse = np.argsort(order)
    return {
        name: np.concatenate([part[name] for part in joined])[inverse]
        for name in joined[0]
        if name != "row"
    }


def compiled(function: Pass, mesh: Mesh) -> Pass:
    """A pass under `jit`: parameters where `mesh.RULES` put them, batches split, results whole."""

    def run(state: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return function(meshes.gathered(mesh, state), batch)

    return jax.jit(
        run,
        in_shardings=(None, meshes.batch_sharded(mesh)),
        out_shardings=meshes.replicated(mesh),
    )
