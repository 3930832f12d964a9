import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sie_jax import importance
from sie_jax.devices import mesh as meshes
from sie_jax.training import state as states
from sie_jax.training import steps

SCHEDULE = {
    "learning_rate": 0.01,
    "total_steps": 10,
    "warmup_fraction": 0.0,
    "weight_decay": 0.1,
    "clip_norm": 0.5,
}
OPTIMIZER = states.make_optimizer(**SCHEDULE)
SEED = 5


class AdamW:
    """Clipping by global norm, then AdamW (Loshchilov and Hutter 2019), in numpy float64."""

    def __init__(self, params: Any) -> None:
        leaves, self.tree = jax.tree.flatten(params)
        self.leaves = [np.asarray(leaf, np.float64) for leaf in leaves]
        self.first = [np.zeros_like(leaf) for leaf in self.leaves]
        self.second = [np.zeros_like(leaf) for leaf in self.leaves]
        self.step = 0

    @property
    def params(self) -> Any:
        return jax.tree.unflatten(self.tree, [jnp.float32(leaf) for leaf in self.leaves])

    def update(self, gradient: Any) -> None:
        gradients = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradient)]
        norm = np.sqrt(sum((one**2).sum() for one in gradients))
        scale = min(1.0, SCHEDULE["clip_norm"] / norm)
        rate = SCHEDULE["learning_rate"] * (1 - self.step / SCHEDULE["total_steps"])
        self.step += 1
        for i, one in enumerate(gradients):
            clipped = one * scale
            self.first[i] = 0.9 * self.first[i] + 0.1 * clipped
            self.second[i] = 0.999 * self.second[i] + 0.001 * clipped**2
            first = self.first[i] / (1 - 0.9**self.step)
            second = self.second[i] / (1 - 0.999**self.step)
            decay = SCHEDULE["weight_decay"] if one.ndim > 1 else 0.0
            self.leaves[i] = self.leaves[i] - rate * (
                first / (np.sqrt(second) + 1e-8) + decay * self.leaves[i]
            )


@pytest.fixture(scope="module")
def naive(shop: Any) -> Any:
    """Losses `[B]` and materialised per-example gradients of the real rows of a batch."""

    @jax.jit
    def run(params: Any, step: jax.Array, batch: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(SEED), step)
        loss = shop.task.loss(key)
        one = jax.value_and_grad(lambda params, example: loss(params, example)[0])
        return jax.vmap(one, in_axes=(None, 0))(params, batch)

    def real(params: Any, step: int, batch: dict[str, np.ndarray]) -> Any:
        losses, gradients = run(params, jnp.int32(step), batch)
        mask = batch["mask"]
        return losses[mask], jax.tree.map(lambda leaf: np.asarray(leaf)[mask], gradients)

    return real


def weighted(shop: Any) -> steps.Step:
    return steps.weighted_step(shop.task, OPTIMIZER, shop.mesh)


def online(shop: Any, name: str, score: str = "grad_norm", **options: float) -> steps.Step:
    policy = importance.POLICIES[name](**options)
    return steps.online_step(shop.task, OPTIMIZER, shop.mesh, score=score, policy=policy)


def create(shop: Any, seed: int = SEED) -> states.TrainState:
    return states.create(shop.params, OPTIMIZER, shop.mesh, seed=seed)


def three(shop: Any) -> Iterator[dict[str, np.ndarray]]:
    """Two full batches and the short one."""
    made = shop.in_order()
    yield from (made[0], made[1], shop.short_batch())


def run(shop: Any, step: steps.Step, batches: Any) -> tuple[states.TrainState, list[Any]]:
    state, metrics = create(shop), []
    for batch in batches:
        state, one = step(state, meshes.place_batch(shop.mesh, batch))
        metrics.append(jax.device_get(one))
    return state, metrics


def combined(weights: np.ndarray, gradients: Any) -> Any:
    """Σ_i w_i ∇ℓ_i"""
    return jax.tree.map(lambda leaf: np.tensordot(weights, leaf, 1), gradients)


def assert_close(params: Any, reference: AdamW) -> None:
    # Adam divides by |g|, so a leaf whose gradient is 0 but for rounding (a key's bias) may move
    # by as much as the rate in either direction: compared are the others
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), wanted in zip(leaves, reference.leaves, strict=True):
        name = jax.tree_util.keystr(path)
        if "key" in name and "bias" in name:
            continue
        np.testing.assert_allclose(leaf, wanted, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["weighted", "online"])
def test_equal_weights_are_adamw_on_the_mean_loss(shop: Any, naive: Any, kind: str) -> None:
    step = weighted(shop) if kind == "weighted" else online(shop, "uniform")
    state, metrics = run(shop, step, three(shop))
    reference = AdamW(shop.params)
    for i, batch in enumerate(three(shop)):
        losses, gradients = naive(reference.params, i, batch)
        mean = jax.tree.map(lambda leaf: leaf.mean(0), gradients)
        norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(mean)))
        np.testing.assert_allclose(metrics[i]["loss"], losses.mean(), rtol=1e-4)
        np.testing.assert_allclose(metrics[i]["gradient_norm"], norm, rtol=1e-3)
        np.testing.assert_allclose(
            metrics[i]["effective_sample_size"], batch["mask"].sum(), rtol=1e-5
        )
        reference.update(mean)
    assert_close(state.params, reference)
    assert int(state.step) == 3
    assert int(state.seed) == SEED


def test_weights_scale_each_examples_gradient(shop: Any, naive: Any) -> None:
    batch = shop.short_batch()
    batch["weight"] = np.linspace(0.0, 2.0, len(batch["mask"])).astype(np.float32)
    state, metrics = run(shop, weighted(shop), [batch])
    reference = AdamW(shop.params)
    _, gradients = naive(reference.params, 0, batch)
    w = batch["weight"][batch["mask"]].astype(np.float64)
    reference.update(combined(w / len(w), gradients))
    assert_close(state.params, reference)
    np.testing.assert_allclose(
        metrics[0]["effective_sample_size"], w.sum() ** 2 / (w**2).sum(), rtol=1e-5
    )


def test_online_proportional_weighs_by_the_gradient_norm(shop: Any, naive: Any) -> None:
    state, metrics = run(shop, online(shop, "proportional"), three(shop))
    reference = AdamW(shop.params)
    for i, batch in enumerate(three(shop)):
        _, gradients = naive(reference.params, i, batch)
        norms = np.sqrt(
            sum(
                (leaf.reshape(len(leaf), -1).astype(np.float64) ** 2).sum(1)
                for leaf in jax.tree.leaves(gradients)
            )
        )
        w = norms / norms.sum()
        reference.update(combined(w, gradients))
        np.testing.assert_allclose(metrics[i]["effective_sample_size"], 1 / (w**2).sum(), rtol=1e-3)
    assert_close(state.params, reference)


def test_online_takes_the_scores_of_outputs_too(shop: Any, naive: Any) -> None:
    batch = shop.short_batch()
    state, _ = run(shop, online(shop, "proportional", "loss"), [batch])
    reference = AdamW(shop.params)
    losses, gradients = naive(reference.params, 0, batch)
    w = np.asarray(losses, np.float64) / np.asarray(losses, np.float64).sum()
    reference.update(combined(w, gradients))
    assert_close(state.params, reference)


@pytest.mark.parametrize("score", ["grad_norm", "loss"])
@pytest.mark.parametrize("remat", ["dots", "layers"])
def test_a_rematerialised_model_takes_the_same_online_steps(
    shop: Any, remat: str, score: str
) -> None:
    model = nnx.merge(shop.graphdef, shop.params)
    model.bert.remat = remat
    other = dataclasses.replace(shop, graphdef=nnx.graphdef(model))
    ours, metrics = run(other, online(other, "proportional", score), three(shop))
    theirs, wanted = run(shop, online(shop, "proportional", score), three(shop))
    for mine, reference in zip(metrics, wanted, strict=True):
        for name in reference:
            np.testing.assert_allclose(
                mine[name], reference[name], rtol=1e-4, atol=1e-5, err_msg=name
            )
    reference = AdamW(theirs.params)
    assert_close(ours.params, reference)


@pytest.mark.parametrize("kind", ["weighted", "online"])
def test_padding_rows_have_no_influence(shop: Any, kind: str, assert_trees_equal: Any) -> None:
    step = weighted(shop) if kind == "weighted" else online(shop, "proportional")
    short = shop.short_batch()
    dirty = {name: values.copy() for name, values in short.items()}
    padding = ~short["mask"]
    dirty["input_ids"][padding] = 7
    dirty["attention_mask"][padding] = True
    dirty["token_type_ids"][padding] = 1
    dirty["label"][padding] = 3
    dirty["row"][padding] = 0
    dirty["weight"][padding] = np.nan
    ours, metrics = run(shop, step, [short])
    theirs, other = run(shop, step, [dirty])
    assert_trees_equal(ours.params, theirs.params)
    for name in ("loss", "gradient_norm", "effective_sample_size"):
        assert metrics[0][name] == other[0][name]


def test_one_compiled_step_serves_every_seed(shop: Any) -> None:
    assert weighted(shop) is weighted(shop)
    step: Any = weighted(shop)
    batch = shop.in_order()[0]
    before = step._cache_size()
    found = []
    for seed in (11, 12, 13):
        _, metrics = step(create(shop, seed), meshes.place_batch(shop.mesh, batch))
        found.append(float(metrics["loss"]))
    assert step._cache_size() == max(before, 1)
    assert len(set(found)) == 3  # each has a dropout of its own


def test_equal_policies_share_one_compiled_step(shop: Any) -> None:
    of_share = functools.partial(online, shop, "keep")
    assert of_share(fraction=0.7) is of_share(fraction=0.7)
    assert of_share(fraction=0.7) is not of_share(fraction=0.8)


def test_the_given_params_stay_usable(shop: Any, assert_trees_equal: Any) -> None:
    before = jax.tree.map(np.asarray, shop.params)
    run(shop, weighted(shop), [shop.in_order()[0]])  # donates its state
    assert_trees_equal(before, jax.tree.map(np.asarray, shop.params))
