"""Pretraining on plain text: the step on masked words and exchanged items, and its measure."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from sie_jax.importance import outputs
from sie_jax.passes import sweep
from sie_jax.tasks.masking import Vocabulary, exchange_items, mask_words
from sie_jax.training import steps
from sie_jax.training.state import TrainState

Batch = dict[str, jax.Array]


class Sums(NamedTuple):
    """Of each row `[B]`: the loss of its masked tokens, and their number; the loss of its pair,
    whether it was told rightly, and whether it was asked at all."""

    masked_loss: jax.Array
    masked_tokens: jax.Array
    pair_loss: jax.Array
    pair_correct: jax.Array
    pairs: jax.Array


def pretraining_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    vocabulary: Vocabulary,
) -> steps.Step:
    """The step on the mean loss of a batch's masked tokens plus that of its pairs.

    Each mean is over what the batch has of its kind, padding left out: 0 where it has none. What is
    masked and exchanged is drawn anew at every step.
    """
    of_rows = _sums(graphdef, vocabulary, dropout=True)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, steps.Metrics]:
        def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            sums = of_rows(params, batch, steps.step_key(state))
            masked = _mean(sums.masked_loss, sums.masked_tokens)
            pair = _mean(sums.pair_loss, sums.pairs)
            losses = sums.masked_loss / jnp.maximum(sums.masked_tokens, 1) + sums.pair_loss
            return masked + pair, (losses, masked, pair)

        (loss, (losses, masked, pair)), gradient = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        metrics = {
            "loss": loss,
            "masked_loss": masked,
            "pair_loss": pair,
            "gradient_norm": optax.tree.norm(gradient),
            "losses": losses,
        }
        return steps.advance(state, optimizer, gradient), metrics

    return steps.compiled(step, mesh)


def held_out(
    graphdef: nnx.GraphDef, mesh: Mesh, vocabulary: Vocabulary, *, seed: int
) -> Callable[[Any, Iterable[dict[str, np.ndarray]]], dict[str, float]]:
    """Gives `measure(params, batches)`: `perplexity` of masked tokens, `pair_accuracy`.

    The perplexity is exp of the mean loss over all masked tokens; of the accuracy 0.5 is chance,
    as half of the pairs are exchanged. Dropout is off, and the same words are masked and the same
    items exchanged at every call with the same batches. A measure that has nothing to be taken over
    is absent.
    """
    of_rows = _sums(graphdef, vocabulary, dropout=False)

    def run(params: Any, batch: Batch) -> dict[str, jax.Array]:
        return of_rows(params, batch, jax.random.key(seed))._asdict()

    function = sweep.compiled(run, mesh)

    def measure(params: Any, batches: Iterable[dict[str, np.ndarray]]) -> dict[str, float]:
        totals = dict.fromkeys(Sums._fields, 0.0)
        for columns in sweep.sweep(function, params, batches, mesh):
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


def _sums(
    graphdef: nnx.GraphDef, vocabulary: Vocabulary, *, dropout: bool
) -> Callable[[Any, Batch, jax.Array], Sums]:
    def of_rows(params: Any, batch: Batch, key: jax.Array) -> Sums:
        key_exchange, key_mask, key_dropout = jax.random.split(key, 3)
        batch, exchanged, asked = exchange_items(key_exchange, batch, vocabulary)

        def of_row(example: Batch, exchanged: jax.Array, asked: jax.Array) -> Sums:
            row = example["row"]
            masked = mask_words(
                jax.random.fold_in(key_mask, row),
                example["input_ids"],
                example["attention_mask"],
                vocabulary,
            )
            words, pair = nnx.merge(graphdef, params)(
                masked.input_ids,
                example["token_type_ids"],
                example["attention_mask"],
                masked.positions,
                deterministic=not dropout,
                key=jax.random.fold_in(key_dropout, row) if dropout else None,
            )
            chosen = masked.chosen & example["mask"]
            losses = jnp.where(chosen, outputs.loss(words, masked.targets), 0.0)
            belongs = exchanged.astype(jnp.int32)  # class 0: the two belong together
            return Sums(
                losses.sum(),
                chosen.sum(),
                jnp.where(asked, outputs.loss(pair, belongs), 0.0),
                asked & (pair.argmax() == belongs),
                asked.astype(jnp.int32),
            )

        return jax.vmap(of_row)(batch, exchanged, asked)

    return of_rows


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    return jnp.sum(total) / jnp.maximum(jnp.sum(count), 1)
