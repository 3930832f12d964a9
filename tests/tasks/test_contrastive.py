"""The contrastive loss of two towers and what each row contributes, against NumPy and jax.grad."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from transformers import BertConfig

from sie_jax.devices import mesh as meshes
from sie_jax.importance import POLICIES
from sie_jax.models import Towers
from sie_jax.passes import sweep
from sie_jax.passes.embeddings import embedding_pass
from sie_jax.passes.predict import predict_pass
from sie_jax.passes.score import batch_pass, layers, score_pass
from sie_jax.tasks import TASKS
from sie_jax.tasks.contrastive import Contrastive, negatives
from sie_jax.tasks.listed import softmax
from sie_jax.training import state as states
from sie_jax.training import steps
from tests.tasks.trees import assert_close, norms_of

GAINS = (0.0, 0.1, 0.5, 1.0)
TEMPERATURE = 0.2
# three queries, the last without gain, and two padding rows; items 2 and 5 stand in two lists
LISTS = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 12, 13], np.int32)
LABELS = np.array([3, 0, 1, 2, 2, 3, 0, 0, 0, 3, 0], np.int32)
ITEMS = np.array([2, 1, 0, 2, 4, 5, 3, 5, 6, -1, -1], np.int32)
MASK = np.arange(11) < 9
MESH = meshes.make(1)


def towers(layers: int) -> tuple[Contrastive, Any]:
    """The task of two towers, and their parameters."""
    config = BertConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        initializer_range=0.3,
    )
    graphdef, params = nnx.split(Towers(config, rngs=nnx.Rngs(0)))
    made = TASKS["contrastive"](graphdef, GAINS, temperature=TEMPERATURE)
    assert isinstance(made, Contrastive)
    return made, params


@pytest.fixture(scope="module")
def shallow() -> tuple[Contrastive, Any]:
    return towers(1)


@pytest.fixture(scope="module")
def task(shallow: tuple[Contrastive, Any]) -> Contrastive:
    return shallow[0]


@pytest.fixture(scope="module")
def params(shallow: tuple[Contrastive, Any]) -> Any:
    return shallow[1]


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    """Queries of at most 4 tokens, items of at most 7."""
    generator = np.random.default_rng(0)
    rows = len(LISTS)
    made = {
        "row": np.where(MASK, np.arange(rows), -1).astype(np.int32),
        "label": LABELS,
        "mask": MASK,
        "weight": generator.uniform(0, 2, rows).astype(np.float32),
        "list": LISTS,
        "item": ITEMS,
    }
    for side, length in (("query", 4), ("item", 7)):
        made[f"{side}_ids"] = generator.integers(0, 40, (rows, length)).astype(np.int32)
        made[f"{side}_mask"] = np.arange(length) < generator.integers(1, length + 1, (rows, 1))
    return made


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def random_outputs(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        side: unit(generator.normal(size=(11, 8))).astype(np.float32) for side in ("query", "item")
    }


def reference(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """The formula, row by row."""
    gains = np.where(MASK, np.array(GAINS)[LABELS], 0)
    cosines = outputs["query"].astype(np.float64) @ outputs["item"].astype(np.float64).T
    losses = np.zeros(11)
    for i in np.flatnonzero(gains):
        ours = [j for j in range(11) if LISTS[j] == LISTS[i]]
        wanted = {ITEMS[j] for j in ours if gains[j] > 0}
        competing = [i]
        for k in np.flatnonzero(MASK):
            less = k in ours and gains[k] < gains[i]
            if less or (k not in ours and ITEMS[k] not in wanted):
                competing.append(int(k))
        exponentials = np.exp(cosines[i, competing] / TEMPERATURE)
        share = gains[i] / sum(gains[j] for j in ours)
        losses[i] = -share * np.log(exponentials[0] / exponentials.sum())
    return losses


def test_losses_are_those_of_the_formula(task: Contrastive) -> None:
    outputs = random_outputs(1)
    found = task.couple(
        jax.tree.map(jnp.asarray, outputs),
        {"label": LABELS, "mask": MASK, "list": LISTS, "item": ITEMS},
    )
    # sums of some ten float32 terms, divided by the temperature
    np.testing.assert_allclose(found, reference(outputs), rtol=1e-5, atol=1e-6)
    assert (np.asarray(found)[np.isin(LISTS, (2, 12, 13))] == 0).all()


def test_with_one_positive_a_query_it_is_the_softmax_over_the_batch() -> None:
    """Then no item is left out, and F is that of `listed.softmax` over every item for a query."""
    task = Contrastive(nnx.graphdef(nnx.Module()), (0.0, 1.0), TEMPERATURE)
    generator = np.random.default_rng(2)
    item = unit(generator.normal(size=(6, 8))).astype(np.float32)
    query = np.repeat(unit(generator.normal(size=(2, 8))), 3, 0).astype(np.float32)
    labels, lists = np.array([1, 0, 0, 0, 1, 0]), np.repeat([0, 1], 3)
    found = task.couple(
        {"query": jnp.asarray(query), "item": jnp.asarray(item)},
        {"label": labels, "mask": np.ones(6, bool), "list": lists, "item": np.arange(6)},
    )
    for number in range(2):
        gains = jnp.asarray(labels * (lists == number), jnp.float32)
        scores = jnp.asarray(item @ query[3 * number] / TEMPERATURE)
        (wanted,) = np.unique(softmax(scores, gains, jnp.zeros(6, int)))
        np.testing.assert_allclose(np.sum(found[lists == number]), wanted, rtol=1e-5)


def test_what_a_query_wants_is_no_negative_for_it() -> None:
    """Query 0 wants items 7 and 8, of which 7 also stands in the list of query 1."""
    gains = jnp.array([1.0, 0.5, 0.0, 1.0, 0.0])
    found = negatives(gains, jnp.array([0, 0, 0, 1, 1]), jnp.array([7, 8, 9, 7, 9]))
    wanted = [
        [False, True, True, False, True],  # item 8 has less gain; item 7 is wanted
        [False, False, True, False, True],
        [False, False, False, False, True],
        [False, True, True, False, True],  # the list of query 0 has item 7 too
        [False, True, True, False, False],
    ]
    np.testing.assert_array_equal(found, wanted)


def test_a_lower_temperature_weighs_the_nearest_negative_more(task: Contrastive) -> None:
    outputs = jax.tree.map(jnp.asarray, random_outputs(3))
    batch = {"label": LABELS, "mask": MASK, "list": LISTS, "item": ITEMS}
    gradients = []
    for temperature in (1.0, 0.01):
        made = Contrastive(task.graphdef, GAINS, temperature)
        of_items = np.linalg.norm(made.slopes(outputs, batch)[0]["item"], axis=1)
        gradients.append(np.sort(of_items / of_items.sum()))
    assert gradients[1][-1] > gradients[0][-1]
    assert gradients[1][2] < gradients[0][2]


@functools.partial(jax.jit, static_argnums=0)
def materialised(task: Contrastive, params: Any, batch: Any, key: Any) -> Any:
    """Each row's contribution by its definition: (∂F/∂q_i)ᵀ ∇q_i + (∂F/∂v_i)ᵀ ∇v_i."""
    outputs = task.outputs_of(params, batch, key)
    slopes = jax.grad(lambda s: jnp.sum(task.couple(s, batch)))(outputs)
    jacobians = jax.jacrev(lambda p: task.outputs_of(p, batch, key))(params)

    def of_side(side: str) -> Any:
        return jax.tree.map(
            lambda leaf: jnp.einsum("bh,bh...->b...", slopes[side], leaf), jacobians[side]
        )

    return jax.tree.map(jnp.add, of_side("query"), of_side("item"))


def test_contributions(task: Contrastive, params: Any, batch: Any) -> None:
    """Their norms, sums and weighted sums by every route; padding is exactly 0."""
    key = jax.random.key(0)  # dropout is on
    wanted = materialised(task, params, batch, key)
    norms = norms_of(wanted)
    scale = norms.sum()
    weights = batch["weight"] * MASK

    def total(params: Any) -> jax.Array:
        return jnp.sum(task.losses(params, batch, dropout_key=key)[0])

    @jax.jit  # one program to compile, not one for each operation
    def compute(params: Any, batch: Any) -> Any:
        (losses, outputs), gradients = task.gradients(params, batch, dropout_key=key)
        alone, _ = task.norms(params, batch, dropout_key=key)
        by_leaf, _ = task.norms(params, batch, dropout_key=key, per_leaf=True)
        squares = sum(leaf**2 for leaf in jax.tree.leaves(by_leaf))
        by_step, _ = task.weighted_gradient(params, batch, jnp.asarray(weights), key)
        by_factors = gradients.weighted_sum(jnp.asarray(weights))
        sums = gradients.weighted_sum(jnp.ones(11)), jax.grad(total)(params)
        by_routes = gradients.norms(), alone, jnp.sqrt(squares)
        return losses, outputs, by_routes, (by_factors, by_step), sums

    losses, outputs, by_routes, weighted_sums, sums = compute(params, batch)
    np.testing.assert_allclose(losses, task.couple(outputs, batch), rtol=1e-6)
    for one in map(np.asarray, by_routes):
        np.testing.assert_allclose(one, norms, atol=1e-5 * scale)
        assert (one[~MASK] == 0).all()
    assert (norms[7:9] > 0).all()  # without gain a row is a negative of others
    weighted = jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), wanted)
    for one in weighted_sums:
        assert_close(one, weighted, scale)
    assert_close(*sums, scale)


def test_query_and_item_drop_out_apart(task: Contrastive, params: Any, batch: Any) -> None:
    one = {name: values[0] for name, values in batch.items()}
    for part in ("ids", "mask"):
        one[f"item_{part}"] = one[f"query_{part}"]
    still = task.outputs(params, one)
    np.testing.assert_array_equal(still["query"], still["item"])
    moving = task.outputs(params, one, key=jax.random.key(0))
    assert np.abs(moving["query"] - moving["item"]).max() > 1e-3


def test_online_steps_go_along_weighted_contributions(
    task: Contrastive, params: Any, batch: Any
) -> None:
    policy = POLICIES["proportional"]()
    step = steps.online_step(task, optax.sgd(1.0), MESH, score="grad_norm", policy=policy)
    state = states.create(params, optax.sgd(1.0), MESH, seed=0)
    each = materialised(task, params, batch, steps.step_key(state))
    after, metrics = step(state, meshes.place_batch(MESH, batch))
    norms = norms_of(each)
    wanted = jax.tree.map(lambda leaf: jnp.tensordot(norms / norms.sum(), leaf, 1), each)
    found = jax.tree.map(lambda new, old: old - new, after.params, params)
    # parameters of about 1 lose the last bits of a step's difference
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, norms.sum()))
    assert "margins" not in metrics


def test_passes(batch: Any) -> None:
    task, params = towers(2)

    def swept(made: sweep.Pass, given: Any = batch) -> sweep.Columns:
        (found,) = sweep.sweep(made, params, [given], MESH)
        return sweep.gather([found], np.arange(9))

    scored, found = swept(score_pass(task, MESH)), swept(batch_pass(task, MESH))
    outputs = jax.jit(lambda params, batch: task.outputs_of(params, batch, None))(params, batch)
    cosines = (np.asarray(outputs["query"]) * np.asarray(outputs["item"])).sum(1)[:9]
    np.testing.assert_allclose(scored["relevance"], cosines, atol=1e-6)
    np.testing.assert_allclose(scored["loss"], found["loss"], rtol=1e-5, atol=1e-6)
    scale = found["grad_norm"].sum()
    np.testing.assert_allclose(scored["grad_norm"], found["grad_norm"], atol=1e-5 * scale)
    # the last of the encoder's two layers
    last = layers(params).index("bert.layers.1")
    np.testing.assert_array_equal(scored["last_layer_norm"], scored["layer_norms"][:, last])
    embedded = swept(embedding_pass(task, MESH))["embedding"]
    np.testing.assert_allclose(embedded.sum(1), cosines, atol=1e-6)
    # without lists, as in serving, there is no loss
    alone = {name: values for name, values in batch.items() if name not in ("list", "item")}
    predicted = swept(predict_pass(task, MESH), alone)
    assert predicted.keys() == {"relevance"}
    np.testing.assert_allclose(predicted["relevance"], cosines, atol=1e-6)
    assert swept(predict_pass(task, MESH)).keys() == {"relevance", "loss"}
