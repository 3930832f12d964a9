from typing import Any

import jax
import numpy as np
from flax import nnx

from sie_jax.devices import mesh as meshes
from sie_jax.passes.embeddings import embedding_pass


def test_embeddings_are_what_the_classifier_makes_logits_of(shop: Any) -> None:
    batch = shop.in_order()[0]
    placed = meshes.place_batch(shop.mesh, batch)
    embedding = embedding_pass(shop.task, shop.mesh).function(shop.params, placed)["embedding"]
    assert embedding.shape == (len(batch["row"]), 8)
    model = nnx.merge(shop.graphdef, shop.params)
    names = ("input_ids", "token_type_ids", "attention_mask")
    logits = jax.jit(model)(*(batch[name] for name in names))
    np.testing.assert_allclose(model.classifier(embedding), logits, rtol=1e-5, atol=1e-5)
