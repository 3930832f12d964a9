"""The recommendation pass: the items that a model of histories puts first for each user."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sie_jax.data.histories.batches import HistoryPlanner
from sie_jax.data.histories.histories import Cases
from sie_jax.data.loading import iterate
from sie_jax.evaluation.retrieval import NOTHING
from sie_jax.passes import sweep
from sie_jax.tasks.sequence import NextItem

OWN = "own"
"""The items of a history that are not to be recommended again `[b, S]`, 0 for none."""


@functools.cache
def recommend_pass(task: NextItem, mesh: Mesh, depth: int) -> sweep.Pass:
    """Gives `items` and `scores` `[B, depth]`, the best first, all items of the catalogue ranked.

    It is called with (parameters, met, among), two truth values of each item `[I + 1]`. An item
    that was not met in training has no id to be scored by: its text says where it belongs, and
    without texts it comes last. Only items of `among` are ranked. One forward pass: 1
    forward-equivalent per history.
    """

    def run(
        state: tuple[Any, jax.Array, jax.Array], batch: dict[str, jax.Array]
    ) -> dict[str, jax.Array]:
        params, met, among = state
        logits = all_logits(task, params, met, batch)
        lowest = jnp.finfo(logits.dtype).min
        logits = jnp.where(among, logits, lowest)
        if OWN in batch:
            rows = jnp.arange(len(logits))[:, None]
            logits = logits.at[rows, batch[OWN]].set(lowest)
        scores, items = jax.lax.top_k(logits, depth)
        return {"items": items.astype(jnp.int32), "scores": scores}

    return sweep.compiled(run, mesh, forward_equivalents=1)


@functools.partial(jax.jit, static_argnums=0)
def all_logits(
    task: NextItem, params: Any, met: jax.Array, batch: dict[str, jax.Array]
) -> jax.Array:
    """The logits `[B, I + 1]` of a batch; the lowest float where an item cannot be scored."""
    logits = task.logits(params, batch, met)
    return logits if task.texts is not None else jnp.where(met, logits, jnp.finfo(logits.dtype).min)


def recommended(
    task: NextItem,
    params: Any,
    met: np.ndarray,
    cases: Cases,
    planner: HistoryPlanner,
    *,
    depth: int,
    repeats: bool,
    among: np.ndarray | None = None,
) -> sweep.Columns:
    """`items` and `scores` `[C, depth]` of all cases.

    Items that are not to be recommended are NOTHING, behind all others.

    repeats: whether items of the history may be recommended again. among: the items that are ranked
    `[I + 1]`, all where None.
    """
    batches = planner.asked(cases)
    own = None if repeats else _own(cases, planner)

    def read() -> Iterator[dict[str, np.ndarray]]:
        for batch in iterate(batches):
            if own is not None:
                batch[OWN] = np.where(batch["row"][:, None] >= 0, own[batch["row"]], 0)
            yield batch

    made = recommend_pass(task, planner.mesh, depth)
    state = (params, jnp.asarray(met), jnp.asarray(np.ones_like(met) if among is None else among))
    parts = sweep.sweep(made, state, read(), planner.mesh)
    found = sweep.gather(parts, np.arange(len(cases)))
    lowest = np.finfo(found["scores"].dtype).min
    found["items"] = np.where(found["scores"] > lowest, found["items"], NOTHING)
    return found


def _own(cases: Cases, planner: HistoryPlanner) -> np.ndarray:
    """The items of each case's whole history [C, S], 0 behind the last."""
    sizes = cases.stop - cases.start
    own = np.zeros((len(cases), int(sizes.max(initial=1))), np.int32)
    for row, (start, stop) in enumerate(zip(cases.start, cases.stop, strict=True)):
        own[row, : stop - start] = planner.histories.item[start:stop]
    return own
