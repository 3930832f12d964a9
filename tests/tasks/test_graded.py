from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sie_jax import importance
from sie_jax.tasks.graded import Graded

NAMES = ("input_ids", "token_type_ids", "attention_mask", "label", "row")


@pytest.fixture(scope="module")
def run(shop: Any) -> Any:
    """Losses and logits of a batch, compiled once per shape; dropout with a key, off without."""

    @jax.jit
    def with_dropout(key: jax.Array, batch: Any) -> Any:
        loss = shop.task.loss(key)
        return jax.vmap(loss, in_axes=(None, 0))(shop.params, batch)

    @jax.jit
    def without(batch: Any) -> Any:
        loss = shop.task.loss()
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


def test_a_task_is_what_it_is_made_of(shop: Any) -> None:
    """Compiled steps are cached by it."""
    model = nnx.merge(shop.graphdef, shop.params)
    again = Graded(nnx.graphdef(model), shop.prepared.scale.gains)
    assert again == shop.task
    assert hash(again) == hash(shop.task)
    model.bert.remat = "layers"
    other = Graded(nnx.graphdef(model), shop.prepared.scale.gains)
    assert other != shop.task
    assert other.rematerialises(shop.params)
    assert not shop.task.rematerialises(shop.params)


def test_the_coupling_is_trivial(shop: Any, run: Any, batch: Any) -> None:
    """Each loss is of its own row, whether one row is given or the batch."""
    losses, logits = run(batch)
    np.testing.assert_allclose(shop.task.couple(logits, batch), losses, rtol=1e-6)
    alone = {name: values[3] for name, values in batch.items()}
    np.testing.assert_allclose(shop.task.couple(logits[3], alone), losses[3], rtol=1e-6)


def test_scores_and_margin_are_those_of_the_logits(shop: Any, run: Any, batch: Any) -> None:
    _, logits = run(batch)
    assert shop.task.output_scores == tuple(importance.OUTPUT_SCORES)
    for name, score in importance.OUTPUT_SCORES.items():
        found = shop.task.score(name, logits, batch)
        np.testing.assert_array_equal(found, score(logits, batch["label"]))
    given = np.take_along_axis(np.asarray(logits), batch["label"][:, None], 1)[:, 0]
    margins = np.asarray(shop.task.margin(logits, batch))
    assert ((margins > 0) == (given == np.asarray(logits).max(1))).all()


def test_the_loss_falls_along_the_output_function_by_the_residual() -> None:
    """∇ℓ = −residual · ∇f, with respect to the logits."""
    task = Graded(nnx.graphdef(nnx.Linear(1, 1, rngs=nnx.Rngs(0))), (0.0, 0.5, 1.0))
    logits, example = jnp.array([0.3, -1.2, 0.8]), {"label": jnp.int32(1)}
    value, of_value = jax.value_and_grad(task.output_function)(logits, example)
    of_loss = jax.grad(task.couple)(logits, example)
    np.testing.assert_allclose(of_loss, -task.residual(value) * of_value, rtol=1e-5)


def test_labels_of_the_model_itself(shop: Any) -> None:
    logits = jnp.log(jnp.array([0.1, 0.4, 0.4, 0.1]))
    assert int(shop.task.likeliest(logits)) == 1
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.bincount(jax.vmap(lambda key: shop.task.drawn(logits, key))(keys), minlength=4)
    # five standard deviations
    np.testing.assert_allclose(drawn / 4000, [0.1, 0.4, 0.4, 0.1], atol=5 * (0.24 / 4000) ** 0.5)


def test_columns_are_the_probabilities(shop: Any, run: Any, batch: Any) -> None:
    _, logits = run(batch)
    columns = shop.task.columns(logits)
    assert list(columns) == [f"probability_{grade}" for grade in range(shop.task.num_labels)]
    found = np.stack([*columns.values()], 1)
    np.testing.assert_allclose(found, jax.nn.softmax(logits), rtol=1e-6)
