from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sie_jax.models.histories import HistoryModel, HistoryShape
from sie_jax.tasks.sequence import POWER, NextItem

SHAPE = HistoryShape(
    items=11, hidden=8, layers=1, heads=2, length=5, text=True, copies=True, dropout=0.2
)
MODEL = HistoryModel(SHAPE, rngs=nnx.Rngs(0))
GRAPHDEF, PARAMS = nnx.split(MODEL)
TEXTS = np.array(jax.random.normal(jax.random.key(1), (12, 8)).at[0].set(0))
BATCH = {
    "row": jnp.array([4, 2, -1]),
    "items": jnp.array([[3, 1, 3, 7, 2], [5, 5, 0, 0, 0], [0, 0, 0, 0, 0]]),
    "targets": jnp.array([[1, 3, 0, 2, 9], [5, 8, 0, 0, 0], [0, 0, 0, 0, 0]]),
    "events": jnp.zeros((3, 5), int),
    "gaps": jnp.zeros((3, 5), int),
    "mask": jnp.array([True, True, False]),
    "weight": jnp.array([1.5, 0.5, 1.0]),
    "progress": jnp.full(3, 0.5),
}


def task(**options: Any) -> NextItem:
    return NextItem(GRAPHDEF, items=11, steps=3.0, texts=TEXTS, **options)


def test_the_loss_is_the_cross_entropy_of_all_items() -> None:
    losses, _ = task().losses(PARAMS, BATCH)
    expected = [0.0, 0.0, 0.0]
    for row in range(2):
        for step in range(5):
            if target := int(BATCH["targets"][row, step]):
                logits = MODEL.last_logits(BATCH["items"][row, : step + 1], texts=jnp.array(TEXTS))
                expected[row] -= float(jax.nn.log_softmax(logits)[target]) / 3
    assert np.allclose(losses, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"negatives": 6, "id_dropout": 0.3}], ids=["all", "drawn"])
def test_contributions_are_exact(options: dict[str, Any]) -> None:
    of, key = task(**options), jax.random.key(3)
    loss, weights = of.loss(key), jnp.array([0.3, 0.7, 0.0])
    rows = [{name: values[row] for name, values in BATCH.items()} for row in range(2)]

    # compiled as one: every operation by itself takes far longer
    @jax.jit
    def compute(params: Any) -> tuple[Any, ...]:
        plain = [jax.grad(lambda params, row=row: loss(params, row)[0])(params) for row in rows]
        (losses, _), grads = of.gradients(params, BATCH, dropout_key=key)
        norms = grads.norms(), of.norms(params, BATCH, dropout_key=key)[0]
        step, _ = of.weighted_gradient(params, BATCH, weights, key)
        return plain, losses, norms, grads.weighted_sum(weights), step, grads.dot(plain[0])

    plain, losses, norms, summed, step, dots = compute(PARAMS)
    expected = [float(jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))) for g in plain]
    for found in norms:
        assert np.allclose(found[:2], expected, rtol=1e-4)
    of_both = jax.tree.map(lambda a, b: 0.3 * a + 0.7 * b, *plain)
    for one, other, third in zip(*map(jax.tree.leaves, (summed, of_both, step)), strict=True):
        assert np.allclose(one, other, atol=1e-5)
        assert np.allclose(third, other, atol=1e-5)
    assert np.allclose(losses[2], 0)
    products = [
        float(sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, plain[0]))))
        for gradient in plain
    ]
    assert np.allclose(dots[:2], products, rtol=1e-4, atol=1e-6)


def test_drawn_items_stand_for_all() -> None:
    many = task(negatives=20_000).losses(PARAMS, BATCH, dropout_key=jax.random.key(0))[0]
    # with dropout the sums differ: compare where there is none
    shape = HistoryShape(
        items=11, hidden=8, layers=1, heads=2, length=5, text=True, copies=True, dropout=0.0
    )
    still = NextItem(
        nnx.graphdef(HistoryModel(shape, rngs=nnx.Rngs(0))),
        items=11,
        steps=3.0,
        texts=TEXTS,
        negatives=20_000,
    )
    drawn = still.losses(PARAMS, BATCH, dropout_key=jax.random.key(0))[0]
    assert np.allclose(drawn, task().losses(PARAMS, BATCH)[0], atol=0.02)
    assert np.isfinite(many).all()


def test_truncation_leaves_the_highest_losses_out() -> None:
    plain = task().outputs_of(PARAMS, BATCH, None)
    whole = np.asarray(plain["losses"])
    cut = np.asarray(task(denoising="truncated", rate=0.4).couple(plain, BATCH))
    # two of six steps: 0.4 · 6 = 2.4
    limit = np.sort(whole[np.asarray(plain["there"])])[-3]
    assert np.allclose(cut, np.where(whole <= limit, whole, 0).sum(1) / 3, atol=1e-6)
    early = {**BATCH, "progress": jnp.zeros(3)}
    assert np.allclose(
        task(denoising="truncated", rate=0.4).couple(plain, early), whole.sum(1) / 3, atol=1e-6
    )


def test_reweighting_multiplies_by_a_power_of_the_chance() -> None:
    plain = task().outputs_of(PARAMS, BATCH, None)
    whole = np.asarray(plain["losses"])
    found = task(denoising="reweighted").couple(plain, BATCH)
    assert np.allclose(found, (whole * np.exp(-POWER * whole)).sum(1) / 3, atol=1e-6)


def test_what_comes_next_is_asked_after_the_last_event() -> None:
    logits = task().logits(PARAMS, BATCH)
    for row, length in ((0, 5), (1, 2)):
        own = MODEL.last_logits(BATCH["items"][row, :length], texts=jnp.array(TEXTS))
        assert np.allclose(logits[row], own, atol=1e-5)
