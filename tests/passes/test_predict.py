from typing import Any

import jax
import numpy as np
from flax import nnx

from sie_jax.passes import sweep
from sie_jax.passes.predict import predict_pass


def test_predictions_are_probabilities_in_row_order(shop: Any) -> None:
    made = shop.planned()  # shuffled batches
    parts = sweep.sweep(
        predict_pass(shop.task, shop.mesh),
        shop.params,
        (made[i] for i in range(len(made))),
        shop.mesh,
    )
    columns = sweep.gather(parts, shop.rows)
    classes = [f"probability_{i}" for i in range(4)]
    assert columns.keys() == {*classes, "loss"}
    found = np.stack([columns[name] for name in classes], 1)
    model = jax.jit(nnx.merge(shop.graphdef, shop.params))
    labels = shop.prepared.split("train")["label"].to_numpy()
    for i in range(len(made)):
        batch = made[i]
        rows = batch["row"][batch["mask"]]
        names = ("input_ids", "token_type_ids", "attention_mask")
        z = np.asarray(model(*(batch[name] for name in names)), np.float64)[batch["mask"]]
        wanted = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        np.testing.assert_allclose(found[rows], wanted, rtol=1e-4)
        given = wanted[np.arange(len(rows)), labels[rows]]
        np.testing.assert_allclose(columns["loss"][rows], -np.log(given), rtol=1e-4, atol=1e-6)
