from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sie_jax.tasks import graded as objectives

NAMES = ("input_ids", "token_type_ids", "attention_mask", "label", "row")


@pytest.fixture(scope="module")
def run(shop: Any) -> Any:
    """Losses and logits of a batch, compiled once per shape; dropout with a key, off without."""

    @jax.jit
    def with_dropout(key: jax.Array, batch: Any) -> Any:
        loss = objectives.cross_entropy(shop.graphdef, dropout_key=key)
        return jax.vmap(loss, in_axes=(None, 0))(shop.params, batch)

    @jax.jit
    def without(batch: Any) -> Any:
        loss = objectives.cross_entropy(shop.graphdef)
        return jax.vmap(loss, in_axes=(None, 0))(shop.params, batch)

    return lambda batch, key=None: without(batch) if key is None else with_dropout(key, batch)


@pytest.fixture(scope="module")
def batch(shop: Any) -> dict[str, np.ndarray]:
    return {name: values for name, values in shop.in_order()[0].items() if name in NAMES}


def test_cross_entropy_of_the_model(shop: Any, run: Any, batch: Any) -> None:
    losses, logits = run(batch)
    model = nnx.merge(shop.graphdef, shop.params)
    wanted = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)
    z = np.asarray(wanted, np.float64)
    nats = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), batch["label"]]
    np.testing.assert_allclose(losses, nats, rtol=1e-5)


def test_dropout_depends_on_key_and_row(run: Any, batch: Any) -> None:
    same = {name: np.repeat(values[:1], 8, 0) for name, values in batch.items()}
    rows = np.array([0, 1, 2, 3, 4, 5, 6, 0], np.int32)
    losses, _ = run({**same, "row": rows}, jax.random.key(0))
    assert losses[0] == losses[7]
    assert len(set(np.asarray(losses[:7]).tolist())) == 7
    other, _ = run({**same, "row": rows}, jax.random.key(1))
    assert losses[0] != other[0]


def test_dropout_does_not_depend_on_the_position_in_the_batch(run: Any, batch: Any) -> None:
    key = jax.random.key(3)
    losses, _ = run(batch, key)
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    moved, _ = run({name: values[order] for name, values in batch.items()}, key)
    np.testing.assert_array_equal(moved, losses[order])


def test_dropout_does_not_depend_on_the_other_rows(run: Any, batch: Any) -> None:
    key = jax.random.key(3)
    losses, _ = run(batch, key)
    alone, _ = run({name: values[2:3] for name, values in batch.items()}, key)
    np.testing.assert_allclose(alone[0], losses[2], rtol=1e-6)


def test_a_padding_row_gives_a_finite_loss(shop: Any, run: Any) -> None:
    short = shop.short_batch()
    losses, logits = run({name: short[name] for name in NAMES}, jax.random.key(0))
    assert jnp.isfinite(losses).all()
    assert jnp.isfinite(logits).all()
