"""Losses of lists and the contributions of rows, against definitions in NumPy and jax.grad."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from transformers import BertConfig

from sie_jax.devices import mesh as meshes
from sie_jax.importance import POLICIES
from sie_jax.models import PairClassifier
from sie_jax.passes import lists, sweep
from sie_jax.passes.predict import predict_pass
from sie_jax.passes.score import batch_pass, score_pass
from sie_jax.tasks import TASKS
from sie_jax.tasks.listed import LOSSES, TEMPERATURE, Listed
from sie_jax.training import state as states
from sie_jax.training import steps
from tests.tasks.trees import assert_close, norms_of

GAINS = (0.0, 0.1, 0.5, 1.0)
# three lists, the last without gain, and two padding rows
LISTS = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 12, 13], np.int32)
LABELS = np.array([3, 0, 1, 2, 2, 3, 0, 0, 0, 3, 0], np.int32)
MASK = np.arange(11) < 9
MESH = meshes.make(1)


def softmax(s: np.ndarray, g: np.ndarray) -> float:
    p = np.exp(s - s.max())
    return float(-(g / g.sum()) @ np.log(p / p.sum())) if g.any() else 0.0


def pairwise(s: np.ndarray, g: np.ndarray) -> float:
    each = [
        np.log1p(np.exp(s[j] - s[i])) for i in range(len(s)) for j in range(len(s)) if g[i] > g[j]
    ]
    return float(np.mean(each)) if each else 0.0


def discount(rank: Any) -> Any:
    return 1 / np.log2(1 + rank)


def ideal(g: np.ndarray) -> float:
    return float(np.sort(g)[::-1] @ discount(np.arange(1, len(g) + 1)))


def lambda_loss(s: np.ndarray, g: np.ndarray) -> float:
    rank = 1 + (s[None, :] > s[:, None]).sum(1)
    total = 0.0
    for i in range(len(s)):
        for j in range(len(s)):
            if g[i] > g[j]:
                apart = abs(rank[i] - rank[j])
                weight = abs(discount(apart) - discount(apart + 1))
                total += (g[i] - g[j]) / ideal(g) * weight * np.log1p(np.exp(s[j] - s[i]))
    return total


def approx_ndcg(s: np.ndarray, g: np.ndarray) -> float:
    if not g.any():
        return 0.0
    ahead = 1 / (1 + np.exp(-(s[None, :] - s[:, None]) / TEMPERATURE))
    rank = 1 + ahead.sum(1) - 0.5
    return float(-(g @ discount(rank)) / ideal(g))


REFERENCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "listwise": softmax,
    "pairwise": pairwise,
    "lambda_loss": lambda_loss,
    "approx_ndcg": approx_ndcg,
}


@pytest.fixture(scope="module", params=LOSSES)
def task(request: pytest.FixtureRequest, bert: Any) -> Listed:
    made = TASKS[request.param](bert[0], GAINS)
    assert isinstance(made, Listed)
    return made


@pytest.fixture(scope="module")
def bert() -> tuple[nnx.GraphDef, Any]:
    config = BertConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        initializer_range=0.3,
    )
    return nnx.split(PairClassifier(config, num_labels=1, num_features=3, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def params(bert: Any) -> Any:
    return bert[1]


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    rows = len(LISTS)
    return {
        "row": np.where(MASK, np.arange(rows), -1).astype(np.int32),
        "input_ids": generator.integers(0, 40, (rows, 6)).astype(np.int32),
        "token_type_ids": np.zeros((rows, 6), np.int32),
        "attention_mask": np.arange(6) < generator.integers(2, 7, (rows, 1)),
        "features": generator.normal(size=(rows, 3)).astype(np.float32) * MASK[:, None],
        "label": LABELS,
        "mask": MASK,
        "weight": generator.uniform(0, 2, rows).astype(np.float32),
        "list": LISTS,
    }


def test_losses_are_those_of_each_list(task: Listed) -> None:
    scores = np.random.default_rng(1).normal(size=11).astype(np.float32)
    found = task.couple(jnp.asarray(scores), {"label": LABELS, "mask": MASK, "list": LISTS})
    gains, reference = np.array(GAINS), REFERENCES[task.name]
    wanted = np.zeros(11)
    for number in range(3):
        inside = number == LISTS
        wanted[inside] = reference(scores[inside].astype(np.float64), gains[LABELS[inside]])
    # sums of some ten float32 terms
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_loss_reads_the_order_of_no_row_and_no_other_list(task: Listed) -> None:
    generator = np.random.default_rng(2)
    scores = generator.normal(size=11).astype(np.float32)
    order = generator.permutation(11)

    def losses(scores: np.ndarray, at: Any) -> np.ndarray:
        batch = {"label": LABELS[at], "mask": MASK[at], "list": LISTS[at]}
        return np.asarray(task.couple(jnp.asarray(scores[at]), batch))

    whole = losses(scores, slice(None))
    np.testing.assert_allclose(losses(scores, order), whole[order], rtol=1e-5, atol=1e-6)
    other = np.where(LISTS == 1, scores + generator.normal(size=11), scores).astype(np.float32)
    inside = LISTS != 1
    np.testing.assert_array_equal(losses(other, slice(None))[inside], whole[inside])


@functools.partial(jax.jit, static_argnums=0)
def materialised(task: Listed, params: Any, batch: Any, key: Any) -> tuple[Any, jax.Array]:
    """Each row's contribution by its definition: (∂F/∂s_i) ∇s_i, and the outputs."""
    outputs = task.outputs_of(params, batch, key)
    slopes = jax.grad(lambda s: jnp.sum(task.couple(s, batch)))(outputs)
    jacobian = jax.jacrev(lambda p: task.outputs_of(p, batch, key))(params)
    return jax.tree.map(
        lambda leaf: slopes.reshape(-1, *[1] * (leaf.ndim - 1)) * leaf, jacobian
    ), outputs


# losses differ in their `couple` alone: of these one is smooth, one has ranks that are constants
@pytest.mark.parametrize("task", ["listwise", "lambda_loss"], indirect=True)
def test_contributions(task: Listed, params: Any, batch: Any) -> None:
    """Their norms, sums and weighted sums by every route; padding is exactly 0."""
    key = jax.random.key(0)  # dropout is on
    wanted, outputs = materialised(task, params, batch, key)
    norms = norms_of(wanted)
    scale = norms.sum()
    weights = batch["weight"] * MASK

    def total(params: Any) -> jax.Array:
        return jnp.sum(task.losses(params, batch, dropout_key=key)[0])

    @jax.jit  # one program to compile, not one for each operation
    def compute(params: Any, batch: Any) -> Any:
        (losses, found), gradients = task.gradients(params, batch, dropout_key=key)
        alone, _ = task.norms(params, batch, dropout_key=key)
        by_step, _ = task.weighted_gradient(params, batch, jnp.asarray(weights), key)
        by_factors = gradients.weighted_sum(jnp.asarray(weights))
        sums = gradients.weighted_sum(jnp.ones(11)), jax.grad(total)(params)
        return losses, found, (gradients.norms(), alone), (by_factors, by_step), sums

    losses, found, by_routes, weighted_sums, sums = compute(params, batch)
    np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses, task.couple(found, batch), rtol=1e-6)
    for one in map(np.asarray, by_routes):
        np.testing.assert_allclose(one, norms, atol=1e-5 * scale)
        assert (one[~MASK] == 0).all()
        assert (one[7:9] == 0).all()  # a list without gain
    weighted = jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), wanted)
    for one in weighted_sums:
        assert_close(one, weighted, scale)
    assert_close(*sums, scale)


@pytest.mark.parametrize("task", ["listwise"], indirect=True)
def test_steps_go_along_weighted_contributions(task: Listed, params: Any, batch: Any) -> None:
    import optax

    model = nnx.merge(task.graphdef, params)
    still = dataclasses.replace(task, graphdef=nnx.graphdef(model))
    wanted, _ = materialised(still, params, batch, None)
    norms = norms_of(wanted)

    def moved(step: Any) -> Any:
        state = states.create(params, optax.sgd(1.0), MESH, seed=0)
        key = steps.step_key(state)
        by_key, _ = materialised(task, params, batch, key)
        after, metrics = step(state, meshes.place_batch(MESH, batch))
        assert "margins" not in metrics
        difference = jax.tree.map(lambda new, old: old - new, after.params, params)
        return difference, by_key

    found, each = moved(steps.weighted_step(task, optax.sgd(1.0), MESH))
    weights = batch["weight"] * MASK / MASK.sum()
    expected = jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), each)
    # parameters of about 1 lose the last bits of a step's difference
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, norms.sum()))

    policy = POLICIES["proportional"]()
    step = steps.online_step(task, optax.sgd(1.0), MESH, score="grad_norm", policy=policy)
    found, each = moved(step)
    of_step = norms_of(each)
    expected = jax.tree.map(lambda leaf: jnp.tensordot(of_step / of_step.sum(), leaf, 1), each)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, norms.sum()))


def test_passes_and_whole_lists_give_what_a_batch_of_whole_lists_gives(
    task: Listed, params: Any, batch: Any
) -> None:
    """Scored in any order and completed by `passes.lists`, as in the batch with its own lists."""

    def swept(made: sweep.Pass, given: Any) -> sweep.Columns:
        (found,) = sweep.sweep(made, params, [given], MESH)
        return sweep.gather([found], np.arange(9))

    wanted = swept(batch_pass(task, MESH), batch)
    order = np.random.default_rng(0).permutation(11)
    shuffled = {name: values[order] for name, values in batch.items() if name != "list"}
    scored = swept(score_pass(task, MESH), shuffled)
    assert "loss" not in scored
    found = lists.completed(task, scored, LABELS[:9], LISTS[:9])
    scale = wanted["grad_norm"].sum()
    np.testing.assert_allclose(found["grad_norm"], wanted["grad_norm"], atol=1e-5 * scale)
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5, atol=1e-6)
    layers = np.linalg.norm(found["layer_norms"], axis=1)
    np.testing.assert_allclose(layers, found["grad_norm"], rtol=1e-5)
    head = np.abs(found["last_layer_norm"])
    assert (head <= found["grad_norm"] * (1 + 1e-6)).all()
    predicted = lists.completed(
        task, swept(predict_pass(task, MESH), shuffled), LABELS[:9], LISTS[:9]
    )
    np.testing.assert_allclose(predicted["relevance"], found["relevance"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predicted["loss"], found["loss"], rtol=1e-5, atol=1e-6)
