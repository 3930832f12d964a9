"""The pretraining step and what it is held to, on a tiny BERT and a handful of texts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from transformers import BertConfig

from sie_jax.devices import mesh as meshes
from sie_jax.models import PretrainingModel
from sie_jax.passes.held_out import held_out
from sie_jax.tasks import masking
from sie_jax.tasks.masked import Masked
from sie_jax.training import state as states
from sie_jax.training import steps

SIZE, LENGTH, ROWS = 24, 16, 8
VOCABULARY = masking.Vocabulary(
    continues=np.arange(SIZE) >= 20,
    special=np.arange(SIZE) < 5,
    mask=4,
    separator=3,
    padding=0,
)


@pytest.fixture(scope="module")
def parts():
    config = BertConfig(
        vocab_size=SIZE,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.25,
    )
    graphdef, params = nnx.split(PretrainingModel(config, rngs=nnx.Rngs(0)))
    return Masked(graphdef, VOCABULARY), params, meshes.make(1)


@pytest.fixture(scope="module")
def batch():
    """Seven texts and a padding row: one word again and again, that of the row, on both sides."""
    ids = np.array([[2, *[word] * 6, 3, *[word + 1] * 7, 3] for word in range(5, 13)], np.int32)
    return {
        "row": np.array([*range(7), -1], np.int32),
        "input_ids": ids,
        "token_type_ids": np.tile(np.array([0] * 8 + [1] * 8, np.int32), (ROWS, 1)),
        "attention_mask": np.ones((ROWS, LENGTH), bool),
        "label": np.array([0, 1, 2, 3, -1, -1, 4, 0], np.int32),
        "mask": np.arange(ROWS) < 7,
        "weight": np.ones(ROWS, np.float32),
    }


STEPS = 800
# decays to nothing: at a constant rate the last steps go up and down, and rounding says which
OPTIMIZER = optax.adam(optax.cosine_decay_schedule(0.005, STEPS))


@pytest.fixture(scope="module")
def step(parts):
    task, _, mesh = parts
    return steps.batch_step(task, OPTIMIZER, mesh)


def start(parts):
    _, params, mesh = parts
    return states.create(params, OPTIMIZER, mesh, seed=3)


def test_the_loss_is_the_mean_over_masked_tokens_plus_the_mean_over_pairs(parts, step, batch):
    task, params, mesh = parts
    _, metrics = step(start(parts), meshes.place_batch(mesh, batch))
    # the same draws, then one row after the other
    key = jax.random.fold_in(jax.random.key(3), 0)
    key_exchange, key_mask, _ = jax.random.split(key, 3)
    arrays = {name: jnp.asarray(values) for name, values in batch.items()}
    after, exchanged, asked = masking.exchange_items(key_exchange, arrays, VOCABULARY)
    model = nnx.merge(task.graphdef, params)
    masked_losses, pair_losses = [], []
    for at in range(7):
        masked = masking.mask_words(
            jax.random.fold_in(key_mask, batch["row"][at]),
            after["input_ids"][at],
            after["attention_mask"][at],
            VOCABULARY,
        )
        words, pair = model(
            masked.input_ids,
            after["token_type_ids"][at],
            after["attention_mask"][at],
            masked.positions,
        )
        words, pair = np.asarray(words, np.float64), np.asarray(pair, np.float64)
        for logits, target, chosen in zip(words, masked.targets, masked.chosen, strict=True):
            if chosen:
                masked_losses.append(np.log(np.exp(logits).sum()) - logits[target])
        if asked[at]:
            pair_losses.append(np.log(np.exp(pair).sum()) - pair[int(exchanged[at])])
    assert len(pair_losses) == 5
    assert exchanged.any()
    assert masked_losses
    assert float(metrics["masked_loss"]) == pytest.approx(np.mean(masked_losses), rel=1e-5)
    assert float(metrics["pair_loss"]) == pytest.approx(np.mean(pair_losses), rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(
        np.mean(masked_losses) + np.mean(pair_losses), rel=1e-5
    )


def test_padding_rows_change_nothing(parts, step, batch):
    mesh = parts[2]
    other = {name: values.copy() for name, values in batch.items()}
    other["input_ids"][7] = 9
    after = [step(start(parts), meshes.place_batch(mesh, one))[0].params for one in (batch, other)]
    for left, right in zip(*map(jax.tree.leaves, after), strict=True):
        np.testing.assert_array_equal(left, right)


def test_every_step_hides_something_else_and_two_runs_agree(parts, step, batch):
    mesh = parts[2]
    losses = []
    for number in (0, 1, 2, 0, 1, 2):  # the parameters stay, so that what is hidden alone differs
        state = start(parts)._replace(step=jnp.int32(number))
        _, metrics = step(state, meshes.place_batch(mesh, batch))
        losses.append(float(metrics["loss"]))
    assert losses[:3] == losses[3:]
    assert len(set(losses)) == 3


def test_training_lowers_the_held_out_perplexity(parts, step, batch):
    task, params, mesh = parts
    measure = held_out(task, mesh, seed=0)
    state = start(parts)
    before = measure(params, [batch, batch])
    assert before == measure(params, [batch, batch])
    for _ in range(STEPS):
        state, _ = step(state, meshes.place_batch(mesh, batch))
    after = measure(state.params, [batch, batch])
    # what is hidden stands all around, and what belongs together is one word and the next
    assert after["perplexity"] < 2 < before["perplexity"]
    assert after["pair_accuracy"] == 1.0


def test_where_nothing_is_masked_there_is_no_perplexity(parts, batch):
    task, params, mesh = parts
    empty = {**batch, "input_ids": np.full((ROWS, LENGTH), 3, np.int32)}
    measured = held_out(task, mesh, seed=0)(params, [empty])
    assert "perplexity" not in measured


def test_without_pairs_there_is_no_accuracy_of_pairs(parts, step, batch):
    task, params, mesh = parts
    alone = {**batch, "label": np.full(ROWS, -1, np.int32)}
    measured = held_out(task, mesh, seed=0)(params, [alone])
    assert set(measured) == {"perplexity"}
    _, metrics = step(start(parts), meshes.place_batch(mesh, alone))
    assert float(metrics["pair_loss"]) == 0.0
    assert np.isfinite(float(metrics["gradient_norm"]))
