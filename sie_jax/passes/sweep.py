"""How a pass goes over a data set: batch by batch, with parts kept on disk, charged at its end."""

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.sharding import Mesh
from rich.console import Console

from sie_jax import processes
from sie_jax.data.loading import Arrays, PlannedBatches, iterate
from sie_jax.devices import mesh as meshes
from sie_jax.files import whole
from sie_jax.tables import vectors
from sie_jax.tables.spool import write_parquet
from sie_jax.training.cost import CostMeter
from sie_jax.training.progress import Bar, bar

# batches in a part of a pass: a stop loses so many at most
PART_BATCHES = 50

Columns = dict[str, np.ndarray]


class Pass(NamedTuple):
    """A compiled function of (parameters and what it needs beside them, batch), and its price.

    forward_equivalents: what it costs per example. A forward pass counts 1, a full backward pass 2,
    a backward pass that keeps norms only 1.
    """

    function: Callable[[Any, dict[str, jax.Array]], Any]
    forward_equivalents: int


class Examples(NamedTuple):
    """Batches that hold each of `rows`, ascending, once."""

    batches: PlannedBatches
    rows: np.ndarray


class Workspace(NamedTuple):
    """Where passes run and what they leave: the same for all passes of one piece of work.

    Each pass has a name. Its parts lie under that name in `folder`, and its time and price are kept
    by the clock that `clock_of` makes for it.
    """

    mesh: Mesh
    folder: Path
    clock_of: Callable[[str], CostMeter]
    console: Console


def sweep(
    made: Pass, state: Any, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh
) -> Iterator[Columns]:
    """Runs a pass batch by batch and yields its columns with `row`, padding rows left out.

    Every process is given the rows of all processes.
    """
    for batch in batches:
        placed = meshes.place_batch(mesh, batch)
        output = jax.device_get(made.function(state, placed))
        row = meshes.fetch(mesh, placed["row"])
        real = row >= 0
        yield {"row": row[real], **{name: v[real] for name, v in output.items()}}


def in_parts(
    made: Pass, state: Any, examples: Examples, workspace: Workspace, name: str
) -> Columns:
    """Runs a pass over all of `examples` and gives its columns in the order of their rows.

    If a pass gives `[B, D]` for a name, that column is `[N, D]`.

    Every PART_BATCHES batches each process writes its own rows of them to a Parquet file. A part
    that is there is not computed again, so a pass that was stopped resumes at the part it was in. A
    part that cannot be read is computed again.
    """
    parts: list[Path] = []
    process, processes_in_all = jax.process_index(), jax.process_count()
    batches, clock = examples.batches, workspace.clock_of(name)
    with bar("score", len(batches), workspace.console) as progress:
        for start in range(0, len(batches), PART_BATCHES):
            files = [
                workspace.folder
                / name
                / f"part-{start // PART_BATCHES:05d}-{one}-of-{processes_in_all}.parquet"
                for one in range(processes_in_all)
            ]
            parts += files
            stop = min(start + PART_BATCHES, len(batches))
            if processes.agreed(all(_readable(file) for file in files)):
                progress.skip(stop - start)
                continue
            taken = _watched(iterate(batches, start=start, stop=stop), progress, clock)
            done = list(sweep(made, state, taken, workspace.mesh))
            columns = {
                name: np.concatenate([one[name] for one in done])[process::processes_in_all]
                for name in done[0]
            }
            own = pa.table({name: _column(v) for name, v in columns.items()})
            write_parquet(files[process], own)
    _charge(clock, made, examples)
    processes.together()  # from here on the parts of every process exist
    tables = [pq.read_table(path) for path in parts]
    return gather(
        ({name: vectors.as_array(t[name]) for name in t.column_names} for t in tables),
        examples.rows,
    )


def summed(
    made: Pass,
    state: Any,
    examples: Examples,
    workspace: Workspace,
    name: str,
    *,
    finish: Callable[[Any], Any] = lambda total: total,
) -> Any:
    """`finish` of the sum of what a pass gives for all batches, added up on the device.

    It is written to NAME.npz, and read from there if that file exists: either way the same bits.
    `finish` gives a tree like the sum.
    """
    mesh, batches, path = workspace.mesh, examples.batches, workspace.folder / f"{name}.npz"
    treedef: Any = jax.tree.structure(jax.eval_shape(made.function, state, batches[0]))
    clock = workspace.clock_of(name)
    if not processes.agreed(path.exists()):
        total = None
        with bar("score", len(batches), workspace.console) as progress:
            for batch in _watched(iterate(batches), progress, clock):
                part = made.function(state, meshes.place_batch(mesh, batch))
                total = part if total is None else _add(total, part)
        processes.alone(_save, path, meshes.fetch(mesh, jax.tree.leaves(finish(total))))
    _charge(clock, made, examples)
    with np.load(path) as stored:
        kept = [stored[f"arr_{place}"] for place in range(treedef.num_leaves)]
    return jax.device_put(treedef.unflatten(kept), meshes.replicated(mesh))


@jax.jit
def divided(tree: Any, count: jax.Array) -> Any:
    """A tree of sums divided by their number."""
    return jax.tree.map(lambda total: total / count, tree)


def gather(parts: Iterable[Columns], rows: np.ndarray) -> Columns:
    """Puts the parts of a sweep in the order of `rows`, ascending.

    Raises ValueError unless the parts hold each of the rows once.
    """
    joined = [part for part in parts if len(part["row"])]
    order = np.concatenate([part["row"] for part in joined])
    if not np.array_equal(np.sort(order), rows):
        raise ValueError(
            f"a sweep gave {len(order)} rows where {len(rows)} were expected, each once"
        )
    inverse = np.argsort(order)
    return {
        name: np.concatenate([part[name] for part in joined])[inverse]
        for name in joined[0]
        if name != "row"
    }


def compiled(
    function: Callable[[Any, dict[str, jax.Array]], Any], mesh: Mesh, *, forward_equivalents: int
) -> Pass:
    """A pass under `jit`, with parameters where the mesh put them and batches split.

    Every device gets the whole results.
    """

    def run(state: Any, batch: dict[str, jax.Array]) -> Any:
        return function(meshes.gathered(mesh, state), batch)

    jitted = jax.jit(
        run,
        in_shardings=(None, meshes.batch_sharded(mesh)),
        out_shardings=meshes.replicated(mesh),
    )
    return Pass(jitted, forward_equivalents)


def _charge(clock: CostMeter, made: Pass, examples: Examples) -> None:
    count = len(examples.rows)
    clock.charge(examples=count, forward_equivalents=made.forward_equivalents * count)


def _watched(batches: Iterable[Arrays], progress: Bar, clock: CostMeter) -> Iterator[Arrays]:
    for batch in batches:
        yield batch
        progress.advance(batch)
        clock.tick()


def _readable(file: Path) -> bool:
    """Whether a part is there and not cut off."""
    try:
        pq.read_metadata(file)
    except (OSError, pa.ArrowException):
        return False
    return True


def _column(values: np.ndarray) -> pa.Array:
    return pa.array(values) if values.ndim == 1 else vectors.as_column(values)


def _save(path: Path, leaves: list[np.ndarray]) -> None:
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, *leaves)


@functools.partial(jax.jit, donate_argnums=0)
def _add(total: Any, part: Any) -> Any:
    return jax.tree.map(jnp.add, total, part)
