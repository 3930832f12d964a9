"""The loss of one query-item pair, as a pure function of the parameters."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from sie_jax.importance import outputs

Example = dict[str, jax.Array]
LossFunction = Callable[[Any, Example], tuple[jax.Array, jax.Array]]


def cross_entropy(graphdef: nnx.GraphDef, *, dropout_key: jax.Array | None = None) -> LossFunction:
    """Gives `loss(params, example) -> (cross-entropy in nats, logits [K])` for one example.

    `example` is one row of a batch: input_ids, token_type_ids, attention_mask `[T]`, label, row.
    With a `dropout_key` dropout is on, and the example's key is that key folded with its row: it
    depends neither on the batch nor on the number of devices. Without one dropout is off.
    """

    def loss(params: Any, example: Example) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, params)
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, example["row"])
        logits = model(
            example["input_ids"],
            example["token_type_ids"],
            example["attention_mask"],
            deterministic=dropout_key is None,
            key=key,
        )
        return outputs.loss(logits, example["label"]), logits

    return loss
