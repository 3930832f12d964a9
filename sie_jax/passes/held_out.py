"""What pretraining is measured by: masked words and exchanged items of texts that were held out."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sie_jax.passes import sweep
from sie_jax.tasks.masked import Masked, Sums


def held_out(
    task: Masked, mesh: Mesh, *, seed: int
) -> Callable[[Any, Iterable[dict[str, np.ndarray]]], dict[str, float]]:
    """Gives `measure(params, batches)`: `perplexity` of masked tokens, `pair_accuracy`.

    The perplexity is exp of the mean loss over all masked tokens. An accuracy of 0.5 is chance,
    since half of the pairs are exchanged. Dropout is off, and every call with the same batches
    masks the same words and exchanges the same items. Without masked tokens there is no
    `perplexity`, and without pairs no `pair_accuracy`.
    """

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return task.sums(params, batch, jax.random.key(seed), dropout=False)._asdict()

    made = sweep.compiled(run, mesh, forward_equivalents=1)

    def measure(params: Any, batches: Iterable[dict[str, np.ndarray]]) -> dict[str, float]:
        totals = dict.fromkeys(Sums._fields, 0.0)
        for columns in sweep.sweep(made, params, batches, mesh):
            for name in totals:
                totals[name] += float(columns[name].sum(dtype=np.float64))
        measured = {}
        if totals["masked_tokens"]:
            mean_loss = totals["masked_loss"] / totals["masked_tokens"]
            measured["perplexity"] = float(np.exp(mean_loss))
        if totals["pairs"]:
            measured["pair_accuracy"] = totals["pair_correct"] / totals["pairs"]
        return measured

    return measure
