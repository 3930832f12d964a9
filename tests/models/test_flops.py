"""FLOPs of a training step against a closed formula and XLA's own counts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from transformers import BertConfig

from sie_jax.importance import outputs
from sie_jax.models import FlaxBert, PairClassifier, PretrainingModel
from sie_jax.tasks import masking
from sie_jax.tasks.graded import Graded

LABELS, VOCABULARY = 3, 1500


def bert(hidden: int, layers: int) -> BertConfig:
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * hidden,
        max_position_embeddings=64,
    )


def token_batch(rows: int, length: int) -> dict[str, jax.Array]:
    return {
        "input_ids": jnp.full((rows, length), 7, jnp.int32),
        "token_type_ids": jnp.zeros((rows, length), jnp.int32),
        "attention_mask": jnp.ones((rows, length), bool),
        "label": jnp.zeros(rows, jnp.int32),
        "row": jnp.arange(rows),
    }


def flops_of_xla(loss: Callable[..., jax.Array], params: Any, *arguments: Any) -> float:
    """What XLA counts in the compiled gradient of `loss`."""
    return jax.jit(jax.grad(loss)).lower(params, *arguments).compile().cost_analysis()["flops"]


@pytest.mark.parametrize(("hidden", "layers", "length"), [(64, 2, 32), (256, 1, 32), (256, 1, 2)])
def test_flops_of_a_classifier(hidden: int, layers: int, length: int) -> None:
    rows = 4
    model = PairClassifier(bert(hidden, layers), num_labels=LABELS, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    flops = model.step_flops(rows, length)

    per_layer = 4 * hidden**2 + 2 * hidden * 4 * hidden
    per_token = 6 * layers * per_layer + 12 * layers * hidden * length
    assert flops == rows * (length * per_token + 6 * (hidden**2 + hidden * LABELS))
    abstract = nnx.merge(graphdef, jax.eval_shape(lambda: params))
    assert abstract.step_flops(rows, length) == flops

    of_example = Graded(graphdef, (0.0,) * LABELS).loss()

    def loss(params: Any, batch: Any) -> jax.Array:
        return jax.vmap(of_example, in_axes=(None, 0))(params, batch)[0].mean()

    counted = flops_of_xla(loss, params, token_batch(rows, length))
    # XLA also counts what is not a product (norms, gelu, softmax): in a layer some hundreds of
    # operations for each hidden unit of a token, beside 72 · hidden in the products
    assert flops < counted < flops * (1 + 8 / hidden)


def test_flops_of_pretraining() -> None:
    rows, length, hidden, layers = 4, 32, 128, 1
    model = PretrainingModel(bert(hidden, layers), rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    vocabulary = masking.Vocabulary(
        np.zeros(VOCABULARY, bool), np.arange(VOCABULARY) < 5, mask=4, separator=3, padding=0
    )

    def of_example(params: Any, example: Any) -> jax.Array:
        masked = masking.mask_words(
            jax.random.key(0), example["input_ids"], example["attention_mask"], vocabulary
        )
        words, pair = nnx.merge(graphdef, params)(
            masked.input_ids,
            example["token_type_ids"],
            example["attention_mask"],
            masked.positions,
        )
        return outputs.loss(words, masked.targets).mean() + outputs.loss(pair, example["label"])

    def loss(params: Any, batch: Any) -> jax.Array:
        return jax.vmap(of_example, in_axes=(None, 0))(params, batch).mean()

    positions = masking.places(length)
    flops = model.step_flops(rows, length, positions)
    per_layer = length * 12 * hidden**2 + 2 * length**2 * hidden
    words = positions * (hidden**2 + VOCABULARY * hidden)
    assert flops == 6 * rows * (layers * per_layer + words + hidden**2 + 2 * hidden)
    counted = flops_of_xla(loss, params, token_batch(rows, length))
    assert flops < counted < flops * (1 + 8 / hidden)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (lambda config: PairClassifier(config, num_labels=LABELS, rngs=nnx.Rngs(0)), (4, 8)),
        (lambda config: PretrainingModel(config, rngs=nnx.Rngs(0)), (4, 8, 2)),
    ],
)
def test_an_encoder_that_does_not_know_its_products_has_no_flops(
    make: Callable[[BertConfig], Any], arguments: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FlaxBert, "products", lambda self, length: None)
    assert make(bert(8, 1)).step_flops(*arguments) is None
