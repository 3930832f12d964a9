import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import importance
from sie_jax.passes import sweep
from sie_jax.passes.score import layers, score_pass


@pytest.fixture(scope="module")
def scores(shop: Any) -> sweep.Columns:
    """The scores of all training rows, in row order."""
    made = shop.in_order()
    function = score_pass(shop.task, shop.mesh)
    parts = sweep.sweep(function, shop.params, (made[i] for i in range(len(made))), shop.mesh)
    return sweep.gather(parts, shop.rows)


@pytest.fixture(scope="module")
def naive(shop: Any) -> Any:
    """Per-example (gradient, logits) of every row, one vmap(grad) per batch."""
    loss = shop.task.loss()
    both = jax.jit(jax.vmap(jax.grad(loss, has_aux=True), in_axes=(None, 0)))
    made = shop.in_order()
    outputs = []
    for i in range(len(made)):
        # padding rows come last
        real = made[i]["mask"].sum()
        output = both(shop.params, made[i])
        outputs.append(jax.tree.map(operator.itemgetter(slice(real)), output))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def test_grad_norm_equals_the_norm_of_materialised_gradients(
    shop: Any, scores: Any, naive: Any
) -> None:
    squares = sum(
        (leaf.reshape(len(leaf), -1).astype(np.float64) ** 2).sum(1)
        for leaf in jax.tree.leaves(naive[0])
    )
    assert len(scores["grad_norm"]) == len(shop.prepared.lengths["train"])
    np.testing.assert_allclose(scores["grad_norm"], np.sqrt(squares), rtol=1e-5)


def test_layers_have_the_norms_of_their_gradients(shop: Any, scores: Any, naive: Any) -> None:
    names = layers(shop.params)
    assert set(names) == {"embeddings", "bert.layers.0", "bert.pooler", "classifier"}
    squares = dict.fromkeys(names, 0.0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(naive[0]):
        place = jax.tree_util.keystr(path, simple=True, separator=".")
        (name,) = [one for one in names if one in place]
        squares[name] += (leaf.reshape(len(leaf), -1).astype(np.float64) ** 2).sum(1)
    for name, column in zip(names, scores["layer_norms"].T, strict=True):
        # float32 sums of some hundred squares
        np.testing.assert_allclose(column, np.sqrt(squares[name]), rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(
        scores["last_layer_norm"], scores["layer_norms"][:, names.index("classifier")]
    )


def test_outputs_and_predictions(shop: Any, scores: Any, naive: Any) -> None:
    logits, labels = naive[1], shop.prepared.split("train")["label"].to_numpy()
    classes = [f"probability_{i}" for i in range(logits.shape[1])]
    assert set(scores) == {*importance.SCORES, "last_layer_norm", "layer_norms", *classes}
    found = np.stack([scores[name] for name in classes], 1)
    np.testing.assert_allclose(found, jax.nn.softmax(logits), rtol=1e-5)
    for name, score in importance.OUTPUT_SCORES.items():
        wanted = score(jnp.asarray(logits), jnp.asarray(labels))
        np.testing.assert_allclose(scores[name], wanted, rtol=1e-4, atol=1e-6, err_msg=name)
