import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import importance
from sie_jax.passes import sweep
from sie_jax.tasks import graded as objectives
from sie_jax.training.logs import Clock


@pytest.fixture(scope="module")
def scores(shop: Any) -> sweep.Columns:
    """The scores of all training rows, in row order."""
    made = shop.in_order()
    function = sweep.score_pass(shop.graphdef, shop.mesh)
    parts = sweep.sweep(function, shop.params, (made[i] for i in range(len(made))), shop.mesh)
    return sweep.gather(parts, shop.rows)


@pytest.fixture(scope="module")
def naive(shop: Any) -> Any:
    """Per-example (gradient, logits) of every row, one vmap(grad) per batch."""
    loss = objectives.cross_entropy(shop.graphdef)
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
    names = sweep.layers(shop.params)
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


def test_predictions_are_probabilities_in_row_order(shop: Any, scores: Any) -> None:
    made = shop.planned()  # shuffled batches
    function = sweep.predict_pass(shop.graphdef, shop.mesh)
    parts = sweep.sweep(function, shop.params, (made[i] for i in range(len(made))), shop.mesh)
    columns = sweep.gather(parts, shop.rows)
    np.testing.assert_allclose(columns["probabilities"].sum(1), 1.0, rtol=1e-5)
    classes = [scores[f"probability_{i}"] for i in range(columns["probabilities"].shape[1])]
    np.testing.assert_allclose(columns["probabilities"], np.stack(classes, 1), rtol=1e-4)
    np.testing.assert_allclose(columns["loss"], scores["loss"], rtol=1e-4, atol=1e-6)


def test_parts_that_are_there_are_not_computed_again(
    shop: Any, scores: Any, tmp_path: Path, console: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "PART_BATCHES", 2)
    made, computed = shop.in_order(), []
    inner = sweep.score_pass(shop.graphdef, shop.mesh)

    def function(params: Any, batch: Any) -> Any:
        computed.append(np.asarray(batch["row"]).tolist())
        return inner(params, batch)

    def run() -> sweep.Columns:
        clock = Clock(tmp_path / "clock.json")
        return sweep.in_parts(
            function,
            shop.params,
            made,
            shop.mesh,
            tmp_path / "parts",
            rows=shop.rows,
            clock=clock,
            console=console,
        )

    first = run()
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == -(-len(made) // 2) > 2
    assert len(computed) == len(made)
    computed.clear()
    parts[1].unlink()
    again = run()
    assert computed == [made[i]["row"].tolist() for i in (2, 3)]
    for name, values in scores.items():
        np.testing.assert_array_equal(first[name], values)
        np.testing.assert_array_equal(again[name], values)
    computed.clear()
    run()
    assert computed == []


def test_gather_wants_every_row_once() -> None:
    def parts(*rows: list[int]) -> Iterator[sweep.Columns]:
        for one in rows:
            yield {"row": np.array(one), "loss": np.array(one) * 10.0}

    np.testing.assert_array_equal(
        sweep.gather(parts([2, 0], [], [1]), np.arange(3))["loss"], [0, 10, 20]
    )
    some = sweep.gather(parts([7], [4]), np.array([4, 7]))
    np.testing.assert_array_equal(some["loss"], [40, 70])
    for rows in ([[0, 1]], [[0, 1, 1]], [[0, 1], [2, 0]], [[0, 1, 3]]):
        with pytest.raises(ValueError, match=r"rows where 3 were due, each once"):
            sweep.gather(parts(*rows), np.arange(3))
