"""The transform on Flax: NNX layers, Linen, and the cross-encoder with dropout."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from transformers import BertConfig

from sie_jax import per_example
from sie_jax.models import PairClassifier

pytestmark = pytest.mark.slow

B, T, NUM_LABELS = 3, 7, 4


@pytest.fixture(scope="module")
def classifier():
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    model = PairClassifier(config, num_labels=NUM_LABELS, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    # Larger than BERT's initial weights, so that no gradient is tiny beside another.
    params = jax.tree.map(lambda p: p * 5 if p.ndim > 1 else p, params)

    def loss_fn(params, example, key):
        logits = nnx.merge(graphdef, params)(
            example["input_ids"],
            example["token_type_ids"],
            example["attention_mask"],
            deterministic=False,
            key=key,
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, example["label"])

    ids = jax.random.randint(jax.random.key(0), (B, T), 0, 40)
    batch = {
        "input_ids": ids,
        "token_type_ids": (jnp.arange(T) > 3).astype(int) * jnp.ones((B, 1), int),
        "attention_mask": jnp.arange(T) < jnp.array([[7], [5], [3]]),
        "label": jnp.array([0, 3, 1]),
    }
    return loss_fn, params, batch, jax.random.split(jax.random.key(1), B)


def test_cross_encoder_with_dropout_equals_vmap_grad(classifier, assert_trees_close):
    loss_fn, params, batch, keys = classifier
    weights = jnp.array([0.2, 0.0, 0.8])

    @jax.jit
    def compute(params, batch, keys):
        _, grads = per_example.value_and_grad(loss_fn)(params, batch, keys)
        alone = per_example.grad_norms(loss_fn)(params, batch, keys)
        return grads.materialize(), grads.weighted_sum(weights), grads.norms(), alone

    each, total, norms, alone = compute(params, batch, keys)
    expected = jax.jit(jax.vmap(jax.grad(loss_fn), in_axes=(None, 0, 0)))(params, batch, keys)
    # Two float32 programs of a deep network: roundings of each layer add up, hence 1e-4.
    assert_trees_close(each, expected, rtol=1e-4, atol=1e-5)
    leaves = [np.asarray(leaf).reshape(B, -1) for leaf in jax.tree.leaves(expected)]
    oracle = np.sqrt(sum((leaf**2).sum(1) for leaf in leaves))
    np.testing.assert_allclose(norms, oracle, rtol=1e-5)
    np.testing.assert_allclose(alone, oracle, rtol=1e-5)
    assert isinstance(total, nnx.State)
    combined = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), expected)
    assert_trees_close(total, combined, rtol=1e-4, atol=1e-5)


def test_every_matrix_and_table_of_the_cross_encoder_is_kept_as_factors(classifier):
    loss_fn, params, batch, keys = classifier
    found = per_example.explain(loss_fn, params, batch, keys)
    for leaf in found.leaves:
        kind = {1: "Dense", 2: "Rows" if "embeddings" in leaf.path else "Outer"}
        assert leaf.form == kind[len(leaf.shape)], leaf


def test_linen(assert_trees_close):
    class Model(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, ids):
            x = flax.linen.Embed(20, 8)(ids)
            x = flax.linen.LayerNorm()(x)
            x = x + flax.linen.MultiHeadDotProductAttention(num_heads=2)(x, x)
            return flax.linen.Dense(1)(x).mean()

    model = Model()
    ids = jax.random.randint(jax.random.key(0), (B, T), 0, 20)
    params = model.init(jax.random.key(1), ids[0])["params"]

    def loss_fn(params, ids):
        return model.apply({"params": params}, ids)

    _, grads = jax.jit(per_example.value_and_grad(loss_fn))(params, ids)
    expected = jax.jit(jax.vmap(jax.grad(loss_fn), in_axes=(None, 0)))(params, ids)
    assert_trees_close(grads.materialize(), expected, rtol=1e-4, atol=1e-6)
    found = per_example.explain(loss_fn, params, ids)
    kept = [leaf for leaf in found.leaves if leaf.path.endswith(("['kernel']", "['embedding']"))]
    assert len(kept) == 6
    assert {leaf.form for leaf in kept} == {"Outer", "Rows"}


def test_weighted_step_is_one_compiled_function(classifier):
    """The training step as users write it: NNX State in, Optax on the State, State out."""
    loss_fn, params, batch, keys = classifier
    optimizer = optax.adamw(1e-2)

    @jax.jit
    def step(params, opt_state):
        losses, grads = per_example.value_and_grad(loss_fn)(params, batch, keys)
        norms = grads.norms()
        weights = norms / norms.sum()
        updates, opt_state = optimizer.update(grads.weighted_sum(weights), opt_state, params)
        return optax.apply_updates(params, updates), opt_state, weights @ losses

    opt_state = optimizer.init(params)
    losses = []
    for _ in range(5):
        params, opt_state, loss = step(params, opt_state)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
