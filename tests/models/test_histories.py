import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sie_jax.models.histories import PADDING, HistoryModel, HistoryShape, begin

SHAPE = HistoryShape(
    items=9, hidden=8, layers=1, heads=2, length=6, events=2, gaps=True, text=True, copies=True
)


@pytest.fixture(scope="module")
def model() -> HistoryModel:
    made = HistoryModel(SHAPE, rngs=nnx.Rngs(0))
    made.copies.set_value(jnp.arange(6.0))
    made.alike.set_value(jnp.ones(6))
    return made


@pytest.fixture(scope="module")
def texts() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (10, 8)).at[0].set(0)


ITEMS = jnp.array([3, 1, 3, 7, PADDING, PADDING])
EVENTS = jnp.array([0, 1, 0, 0, 0, 0])
GAPS = jnp.array([0, 4, 2, 9, 0, 0])


def test_nothing_later_changes_what_was_before(model: HistoryModel, texts: jax.Array) -> None:
    states = model(ITEMS, EVENTS, GAPS, texts)
    other = model(ITEMS.at[3].set(2), EVENTS.at[3].set(1), GAPS.at[3].set(1), texts)
    assert np.array_equal(states[:3], other[:3])
    assert not np.allclose(states[3], other[3])
    # and padding is no event
    short = model(ITEMS[:4], EVENTS[:4], GAPS[:4], texts)
    assert np.allclose(states[:4], short, atol=1e-6)


def test_logits_add_up_from_their_parts(model: HistoryModel, texts: jax.Array) -> None:
    states = model(ITEMS, EVENTS, GAPS, texts)
    last = states[3]
    asked = model.meet_text(last) + texts[ITEMS[:4]].sum(0) / 8
    expected = model.items[...] @ last + texts @ asked + model.bias[...]
    # events 0 to 3 are 3, 2, 1 and 0 events ago, and items 3, 1, 3 and 7
    for item, copied in ((3, 3.0 + 1.0), (1, 2.0), (7, 0.0)):
        expected = expected.at[item].add(copied)
    found = model.last_logits(ITEMS, EVENTS, GAPS, texts)
    assert np.allclose(found[1:], expected[1:], atol=1e-5)
    assert found[PADDING] == jnp.finfo(jnp.float32).min


def test_an_unknown_item_is_scored_by_its_text_alone(model: HistoryModel, texts: jax.Array) -> None:
    known = jnp.ones(10, bool).at[5].set(False)
    found = model.last_logits(ITEMS, EVENTS, GAPS, texts, known)
    other = HistoryModel(SHAPE, rngs=nnx.Rngs(0))
    nnx.update(other, nnx.state(model))
    other.items.set_value(other.items[...].at[5].set(100.0))
    again = other.last_logits(ITEMS, EVENTS, GAPS, texts, known)
    assert np.allclose(found, again, atol=1e-5)


def test_training_begins_from_popularity() -> None:
    params = nnx.state(HistoryModel(SHAPE, rngs=nnx.Rngs(0)))
    counts = np.array([0, 5, 0, 1, 0, 0, 0, 0, 0, 4])
    begin(params, counts, copies=2.5)
    bias = np.asarray(params["bias"][...])[1:]
    chance = np.exp(bias) / np.exp(bias).sum()
    assert np.allclose(chance, (counts[1:] + 1) / (counts.sum() + 9), atol=1e-6)
    assert np.asarray(params["copies"][...]).tolist() == [2.5] * 6
