from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from transformers import BertConfig

from sie_jax import per_example
from sie_jax.importance import gradients, outputs
from sie_jax.models import PairClassifier

B = 5


@pytest.fixture(scope="module", autouse=True)
def compile_quickly() -> Iterator[None]:
    """Tiny models: compiling them takes all the time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def _loss(params: Any, example: tuple[jax.Array, jax.Array]) -> jax.Array:
    x, label = example
    hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"])
    return outputs.loss(hidden @ params["second"]["kernel"], label)


def _loss_and_aux(params: Any, example: tuple[jax.Array, jax.Array]) -> Any:
    return _loss(params, example), example


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _params() -> Any:
    return {
        "first": {"kernel": _normal(0, 4, 3), "bias": _normal(1, 3)},
        "second": {"kernel": _normal(2, 3, 2)},
    }


def _models() -> list[Any]:
    return [_params(), jax.tree.map(lambda leaf: leaf / 2, _params())]


def _batch() -> tuple[np.ndarray, np.ndarray]:
    return _normal(3, B, 4), np.array([0, 1, 0, 1, 1])


def _flat_gradients(params: Any) -> np.ndarray:
    """[B, P] float64, materialised."""
    rows = jax.jit(jax.vmap(jax.grad(_loss), in_axes=(None, 0)))(params, _batch())
    flat = [np.asarray(leaf).reshape(B, -1) for leaf in jax.tree.leaves(rows)]
    return np.concatenate(flat, axis=1).astype(np.float64)


@jax.jit
def _gradients(params: Any) -> per_example.PerExampleGrads:
    return per_example.value_and_grad(_loss)(params, _batch())[1]


def test_grand_is_the_mean_norm_over_models() -> None:
    models = _models()
    norms = jnp.stack([_gradients(params).norms() for params in models])
    expected = [
        sum(np.linalg.norm(_flat_gradients(params)[i]) for params in models) / 2 for i in range(B)
    ]
    # float32 sums of some twenty squares
    np.testing.assert_allclose(gradients.grand(norms), expected, rtol=1e-5)


def test_gradient_variance_is_the_mean_squared_distance_to_the_mean() -> None:
    projections = np.random.default_rng(0).normal(size=(3, B, 4))
    expected = []
    for i in range(B):
        mean = sum(projections[c, i] for c in range(3)) / 3
        expected.append(sum(((projections[c, i] - mean) ** 2).sum() for c in range(3)) / 3)
    found = gradients.gradient_variance(jnp.asarray(projections, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(gradients.gradient_variance(jnp.ones((1, B, 4))), np.zeros(B))


def test_gradient_variance_is_unbiased_over_keys() -> None:
    models = _models()
    grads = [_gradients(params) for params in models]

    @jax.jit
    def one(key: jax.Array) -> jax.Array:
        return gradients.gradient_variance(jnp.stack([each.project(key, 4) for each in grads]))

    keys = 2000
    found = np.asarray(jax.lax.map(one, jax.random.split(jax.random.key(2), keys), batch_size=200))
    full = np.stack([_flat_gradients(params) for params in models])
    expected = ((full - full.mean(0)) ** 2).sum(-1).mean(0)
    # five standard errors of the mean over keys
    np.testing.assert_array_less(np.abs(found.mean(0) - expected), 5 * found.std(0) / np.sqrt(keys))


@pytest.fixture(scope="module")
def bert() -> tuple[nnx.GraphDef, Any, dict[str, jax.Array]]:
    config = BertConfig(
        vocab_size=20,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=6,
        max_position_embeddings=8,
        initializer_range=0.5,
    )
    graphdef, params = nnx.split(PairClassifier(config, num_labels=3, rngs=nnx.Rngs(0)))
    ids = jax.random.randint(jax.random.key(3), (B, 7), 0, 20)
    return graphdef, params, {"input_ids": ids, "label": jnp.array([0, 1, 2, 1, 0])}


def test_layer_norms_of_bert(bert: Any) -> None:
    graphdef, params, batch = bert

    def loss(params: Any, example: Any) -> jax.Array:
        logits = nnx.merge(graphdef, params)(example["input_ids"])
        return outputs.loss(logits, example["label"])

    @jax.jit
    def layers_and_norms(batch: Any) -> Any:
        grads = per_example.value_and_grad(loss)(params, batch)[1]
        return gradients.layer_norms(grads.norms(per_leaf=True)), grads.norms()

    found, norms = layers_and_norms(batch)
    naive = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(params, batch)

    def squares(tree: Any) -> np.ndarray:
        leaves = jax.tree.leaves(tree)
        return sum((np.asarray(x, np.float64).reshape(B, -1) ** 2).sum(1) for x in leaves)

    inner = naive["bert"]
    tables = [name for name in inner if "embeddings" in name]
    assert len(tables) == 4  # words, positions, types and their LayerNorm
    expected = {
        "embeddings": squares([inner[name] for name in tables]),
        "bert.layers.0": squares(inner["layers"][0]),
        "bert.pooler": squares(inner["pooler"]),
        "classifier": squares(naive["classifier"]),
    }
    assert found.keys() == expected.keys()
    for name, square in expected.items():
        np.testing.assert_allclose(found[name], np.sqrt(square), rtol=1e-4, err_msg=name)
    total = sum(np.asarray(layer, np.float64) ** 2 for layer in found.values())
    np.testing.assert_allclose(norms, np.sqrt(total), rtol=1e-5)

    # the last layer's in closed form
    @jax.jit
    def closed_form(params: Any) -> jax.Array:
        model = nnx.merge(graphdef, params)
        pooled = model.bert.pool(model.bert(batch["input_ids"]))
        error = outputs.el2n(model.classifier(pooled), batch["label"])
        return error * jnp.sqrt(jnp.sum(pooled**2, -1) + 1)

    np.testing.assert_allclose(found["classifier"], closed_form(params), rtol=1e-4)


def test_layer_names_of_other_trees() -> None:
    one = np.ones(B, np.float32)
    linen = {"encoder": {"layer_0": {"attention": {"query": {"kernel": 3 * one, "bias": 4 * one}}}}}
    cases = {
        "flat": ({"w": one, "b": 2 * one}, {"b": 2, "w": 1}),
        "linen": (linen, {"encoder.layer_0": 5}),
        "list": ([{"w": 3 * one, "b": 4 * one}, {"w": one}], {"0": 5, "1": 1}),
        "embedding": ({"embed": {"table": 3 * one, "norm": {"scale": 4 * one}}}, {"embeddings": 5}),
        "bare": (one, {"": 1}),
    }
    for name, (tree, expected) in cases.items():
        found = gradients.layer_norms(tree)
        assert {k: float(v[0]) for k, v in found.items()} == pytest.approx(expected), name


def test_preconditioned_norms() -> None:
    params = _params()
    moment = jax.tree.map(lambda leaf: leaf**2 / 3, params)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moment)]).astype(np.float64)
    expected = np.linalg.norm(_flat_gradients(params) / (np.sqrt(flat) + 0.01), axis=1)

    @jax.jit
    def found(params: Any) -> list[jax.Array]:
        # chunks that divide the batch, that do not, and that exceed it
        made = [
            gradients.preconditioned_norms(_loss, moment, epsilon=0.01, chunk_size=size)
            for size in (1, 2, 9)
        ]
        made.append(
            gradients.preconditioned_norms(
                _loss_and_aux, moment, epsilon=0.01, chunk_size=B, has_aux=True
            )
        )
        return [norms(params, _batch()) for norms in made]

    for norms in found(params):
        np.testing.assert_allclose(norms, expected, rtol=1e-5)


def test_preconditioned_norms_want_positive_numbers() -> None:
    with pytest.raises(ValueError, match="epsilon is 0; pass a positive number"):
        gradients.preconditioned_norms(_loss, {}, epsilon=0, chunk_size=1)
    with pytest.raises(ValueError, match="chunk_size is 0; pass at least 1"):
        gradients.preconditioned_norms(_loss, {}, epsilon=1e-8, chunk_size=0)
