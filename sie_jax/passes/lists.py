"""What whole lists say of their rows after a pass: losses, and the norms of contributions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sie_jax.passes.sweep import Columns
from sie_jax.tasks.listed import Listed

# of the pair matrices of the lists that are coupled at a time
ELEMENTS_AT_ONCE = 1 << 22
_NORMS = ("grad_norm", "last_layer_norm", "layer_norms")


def completed(task: Listed, columns: Columns, labels: np.ndarray, queries: np.ndarray) -> Columns:
    """The columns with `loss`, that of each row's list, and the norms as those of contributions.

    A list is all that the rows have of one query, as training would see it if no list were drawn
    from. ‖∂F/∂s_i ∇s_i‖ = |∂F/∂s_i| ‖∇s_i‖: the second factor is what the pass gave.

    Args:
      columns: of a prediction or score pass over rows `[N]`; `relevance` is among them.
      labels, queries: `[N]`, of the rows.
    """
    query_index = np.unique(queries, return_inverse=True)[1]
    slopes, losses = _coupled(task, columns["relevance"], labels, query_index)
    scaled = {
        name: (np.abs(slopes).reshape(-1, *[1] * (values.ndim - 1)) * values).astype(values.dtype)
        for name, values in columns.items()
        if name in _NORMS
    }
    return {**columns, **scaled, "loss": losses}


def _coupled(
    task: Listed, relevance: np.ndarray, labels: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """∂F/∂s_i and ℓ_i of each row, float32; a list is padded to the power of two above its size."""
    order = np.argsort(queries, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(queries[order]) != 0])
    sizes = np.diff(np.append(starts, len(order)))
    padded = 2 ** np.ceil(np.log2(sizes)).astype(int)
    found = np.zeros((2, len(relevance)), np.float32)
    for size in np.unique(padded):
        chosen = np.flatnonzero(padded == size)
        at_once = max(1, ELEMENTS_AT_ONCE // size**2)
        for first in range(0, len(chosen), at_once):
            some = chosen[first : first + at_once]
            inside = np.arange(size) < sizes[some][:, None]
            rows = order[np.where(inside, starts[some][:, None] + np.arange(size), 0)]
            values = _of_lists(task, relevance[rows], labels[rows], inside)
            for place, one in enumerate(values):
                found[place, rows[inside]] = np.asarray(one)[inside]
    return found[0], found[1]


@functools.partial(jax.jit, static_argnums=0)
def _of_lists(
    task: Listed, relevance: jax.Array, labels: jax.Array, inside: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def one(
        relevance: jax.Array, labels: jax.Array, inside: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        places = jnp.arange(len(relevance))
        batch = {"label": labels, "mask": inside, "list": jnp.where(inside, -1, places)}
        return task.slopes(relevance, batch)

    return jax.vmap(one)(relevance, labels, inside)
