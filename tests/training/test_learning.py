from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sie_jax import importance, per_example
from sie_jax.devices import mesh as meshes
from sie_jax.tasks.graded import Graded
from sie_jax.training import learning, logs, loop
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.cost import CostMeter
from sie_jax.training.learning import PREFIX, WithValidation
from sie_jax.training.logs import MetricsLog
from sie_jax.training.observers import Observers
from sie_jax.training.run import Run
from sie_jax.training.section import TrainConfig

SEED, RATE = 5, 0.1
SGD = optax.sgd(RATE)
SCORES = ("loss", "grad_norm", "margin")
THETA = np.array([0.3, -0.8, 0.5, -0.2], np.float32)


def placed(shop: Any, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return meshes.place_batch(shop.mesh, batch)


def create(shop: Any, theta: np.ndarray | None = None) -> Any:
    state = learning.create(shop.params, SGD, shop.mesh, seed=SEED, scores=SCORES)
    if theta is not None:
        at = jax.device_put(theta, meshes.replicated(shop.mesh))
        weighting = state.opt_state.weighting._replace(theta=at)
        state = state._replace(opt_state=state.opt_state._replace(weighting=weighting))
    return state


@pytest.fixture(scope="module")
def step(shop: Any) -> Any:
    return learning.learned_step(shop.task, SGD, shop.mesh, scores=SCORES)


@pytest.fixture(scope="module")
def joined(shop: Any) -> dict[str, np.ndarray]:
    """A training batch and a validation batch, both with padding rows."""
    batch = shop.short_batch()
    other = {name: values[::-1].copy() for name, values in shop.in_order()[0].items()}
    other["mask"][:3] = False
    return batch | {PREFIX + name: values for name, values in other.items()}


@pytest.fixture(scope="module")
def naive(shop: Any, joined: Any) -> Any:
    """Losses, logits and materialised gradients of the real training rows; the validation loss's
    value and gradient."""
    real = joined["mask"]
    training = {
        name: jnp.asarray(v[real]) for name, v in joined.items() if not name.startswith(PREFIX)
    }
    validation = {
        name.removeprefix(PREFIX): jnp.asarray(v[joined[PREFIX + "mask"]])
        for name, v in joined.items()
        if name.startswith(PREFIX)
    }
    key = jax.random.fold_in(jax.random.key(SEED), 0)
    loss = shop.task.loss(key)
    quiet = shop.task.loss()

    @jax.jit
    def rows(params: Any) -> Any:
        one = jax.value_and_grad(loss, has_aux=True)
        (losses, logits), gradients = jax.vmap(one, in_axes=(None, 0))(params, training)
        return losses, logits, gradients

    @jax.jit
    def of_validation(params: Any) -> Any:
        def mean_loss(params: Any) -> jax.Array:
            return jnp.mean(jax.vmap(quiet, in_axes=(None, 0))(params, validation)[0])

        return jax.value_and_grad(mean_loss)(params)

    return rows(shop.params), of_validation(shop.params), training["label"]


def naive_features(losses: Any, logits: Any, gradients: Any, labels: Any) -> np.ndarray:
    """Of a first batch: log(1 + score) standardised within it, in float64."""
    squares: Any = sum(
        (np.asarray(leaf, np.float64).reshape(len(leaf), -1) ** 2).sum(1)
        for leaf in jax.tree.leaves(gradients)
    )
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    given = p[np.arange(len(p)), labels]
    others = np.where(np.arange(p.shape[1]) == np.asarray(labels)[:, None], 0, p).max(1)
    scores = np.stack([np.asarray(losses, np.float64), np.sqrt(squares), 1 - (given - others)], 1)
    x = np.log(1 + scores)
    return np.clip((x - x.mean(0)) / x.std(0), -3, 3)


def naive_weights(theta: jax.Array, x: np.ndarray) -> jax.Array:
    phi = 1 / (1 + jnp.exp(-(theta[0] + x @ theta[1:])))
    return phi / phi.sum()


def test_theta_follows_the_derivative_through_the_lookahead() -> None:
    """In float64, by differentiating L_val(params − η Σ_i w_i(θ) ∇ℓ_i) with respect to θ."""
    with jax.enable_x64(True):
        generator = np.random.default_rng(0)
        params = {"w": jnp.array(generator.normal(size=(4, 3)))}
        inputs, labels = generator.normal(size=(9, 4)), generator.integers(0, 3, 9)
        x, theta = generator.normal(size=(6, 2)), jnp.array([0.2, -1.0, 0.7])

        def loss(params: Any, example: Any) -> jax.Array:
            return importance.outputs.loss(example[0] @ params["w"], example[1])

        def mean_loss(params: Any) -> jax.Array:
            return jax.vmap(loss, in_axes=(None, 0))(params, (inputs[6:], labels[6:])).mean()

        batch = (jnp.array(inputs[:6]), jnp.array(labels[:6]))
        eta = 1e-6

        def lookahead(theta: jax.Array) -> jax.Array:
            rows = jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, batch)["w"]
            move = jnp.tensordot(naive_weights(theta, x), rows, 1)
            return mean_loss({"w": params["w"] - eta * move})

        wanted = jax.jit(jax.grad(lookahead))(theta) / eta

        @jax.jit
        def agreements(params: Any) -> jax.Array:
            _, gradients = per_example.value_and_grad(loss)(params, batch)
            return gradients.dot(jax.grad(mean_loss)(params))

        # four rows of padding, one with a gradient that is broken
        where = np.arange(10) < 6
        x = np.concatenate([x, np.ones((4, 2))])
        agreement = jnp.concatenate([agreements(params), jnp.array([1.0, -2.0, jnp.nan, 0.0])])
        weights = learning.weights_of(theta, jnp.array(x), jnp.ones((10, 2)), where=where)
        found = learning.theta_gradient(theta, jnp.array(x), weights, agreement)
    # the lookahead's second order in η is of relative size η
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_one_step_is_what_the_papers_write(shop: Any, step: Any, joined: Any, naive: Any) -> None:
    (losses, logits, gradients), (validation_loss, direction), labels = naive
    x = naive_features(losses, logits, gradients, labels)
    w = naive_weights(jnp.array(THETA), x)
    leaves = zip(jax.tree.leaves(gradients), jax.tree.leaves(direction), strict=True)
    a = sum(np.tensordot(np.float64(g), np.float64(v), v.ndim) for g, v in leaves)
    slope = jax.grad(lambda theta: -jnp.sum(naive_weights(theta, x) * a))(jnp.array(THETA))

    state, metrics = step(create(shop, THETA), placed(shop, joined))
    # float32 sums over some thousand parameters in another order
    np.testing.assert_allclose(metrics["agreement"], (w * a).sum(), rtol=1e-3)
    weighting = state.opt_state.weighting
    size = float(np.abs(slope).max())
    np.testing.assert_allclose(weighting.adam.mu / 0.1, slope, rtol=1e-3, atol=1e-4 * size)
    # the first step of Adam is the rate, against the sign of the gradient
    np.testing.assert_allclose(weighting.theta, THETA - 0.01 * np.sign(slope), atol=1e-4)
    assert float(metrics["theta_threshold"]) == weighting.theta[0]
    assert [float(metrics[f"theta_{name}"]) for name in SCORES] == weighting.theta[1:].tolist()

    wanted = jax.tree.map(
        lambda p, g: np.asarray(p) - RATE * np.tensordot(w, g, 1), shop.params, gradients
    )
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["validation_loss"], validation_loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["effective_sample_size"], 1 / (w**2).sum(), rtol=1e-3)
    assert int(state.step) == 1


def test_the_first_step_is_uniform(shop: Any, step: Any, joined: Any, naive: Any) -> None:
    (_, _, gradients), _, _ = naive
    state, metrics = step(create(shop), placed(shop, joined))
    wanted = jax.tree.map(lambda p, g: np.asarray(p - RATE * g.mean(0)), shop.params, gradients)
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["effective_sample_size"], joined["mask"].sum(), rtol=1e-5)
    assert np.abs(state.opt_state.weighting.theta[1:]).min() > 0, "and the second one is not"


def test_padding_rows_have_no_influence(
    shop: Any, step: Any, joined: Any, assert_trees_equal: Any
) -> None:
    dirty = {name: values.copy() for name, values in joined.items()}
    for prefix in ("", PREFIX):
        padding = ~joined[prefix + "mask"]
        assert padding.any()
        dirty[prefix + "input_ids"][padding] = 7
        dirty[prefix + "attention_mask"][padding] = True
        dirty[prefix + "token_type_ids"][padding] = 1
        dirty[prefix + "label"][padding] = 3
        dirty[prefix + "row"][padding] = 0
        dirty[prefix + "weight"][padding] = np.nan
    ours, metrics = step(create(shop, THETA), placed(shop, joined))
    theirs, other = step(create(shop, THETA), placed(shop, dirty))
    assert_trees_equal(ours._asdict(), theirs._asdict())
    for name in set(metrics) - {"losses", "margins", "row"}:  # which each row has for itself
        assert float(metrics[name]) == float(other[name]), name


class Bag(nnx.Module):
    """Logits that are a sum over tokens: a model that learns what every token stands for."""

    def __init__(self, tokens: int, classes: int) -> None:
        self.table = nnx.Param(jnp.zeros((tokens, classes)))

    def __call__(self, input_ids: jax.Array, *_: jax.Array, **__: Any) -> jax.Array:
        return self.table[input_ids].sum(0)


def test_flipped_labels_lose_their_weight() -> None:
    """A quarter of the training labels is flipped, and the validation labels are right."""
    tokens, size, steps = 6, 32, 150
    generator = np.random.default_rng(0)
    mesh, optimizer = meshes.make(1), optax.sgd(0.5)
    graphdef, params = nnx.split(Bag(tokens, 2))
    task = Graded(graphdef, gains=(0.0, 1.0))
    step = learning.learned_step(task, optimizer, mesh, scores=("loss",), learning_rate=0.03)
    state = learning.create(params, optimizer, mesh, seed=0, scores=("loss",))

    def batch(flipped: np.ndarray) -> dict[str, np.ndarray]:
        ids = generator.integers(0, tokens, (size, 1)).astype(np.int32)
        return {
            "row": np.arange(size, dtype=np.int32),
            "input_ids": ids,
            "token_type_ids": np.zeros_like(ids),
            "attention_mask": np.ones_like(ids, bool),
            "label": np.where(flipped, 1 - ids[:, 0] % 2, ids[:, 0] % 2).astype(np.int32),
            "mask": np.ones(size, bool),
        }

    for _ in range(steps):
        flipped = generator.uniform(size=size) < 0.25
        clean = batch(np.zeros(size, bool))
        one = batch(flipped) | {PREFIX + name: values for name, values in clean.items()}
        state, metrics = step(state, meshes.place_batch(mesh, one))
    hardness = metrics["losses"][:, None]
    weighting = state.opt_state.weighting
    where = np.ones(size, bool)
    _, x = learning.features(weighting.moments, hardness, where=where)
    w = np.asarray(learning.weights_of(weighting.theta, x, hardness, where=where)) * size
    assert float(metrics["theta_loss"]) < 0
    # a random weighting would have a ratio near 1
    assert w[flipped].max() < w[~flipped].min()
    assert w[flipped].mean() < 0.5 * w[~flipped].mean()


def test_features_are_standardised_by_running_moments() -> None:
    features = jax.jit(learning.features)
    generator = np.random.default_rng(0)
    where = np.array([True] * 6 + [False] * 2)
    moments = learning.Moments(jnp.zeros(()), jnp.zeros(2), jnp.zeros(2))
    rows, total, squares = 0.0, np.zeros(2), np.zeros(2)
    for size in (1.0, 10.0, 0.1):
        hardness = generator.lognormal(size=(8, 2)) * size
        hardness[6:] = [[np.nan, 1.0], [1e30, np.inf]]
        hardness[0, 1] = np.nan  # a real row that is broken
        hardness[1, 0] = 1e6  # an outlier
        moments, x = features(moments, jnp.float32(hardness), where=jnp.array(where))
        values = np.log(1 + hardness[1:6])
        rows = 0.99 * rows + 5
        total = 0.99 * total + values.sum(0)
        squares = 0.99 * squares + ((values - total / rows) ** 2).sum(0)
        wanted = np.clip((values - total / rows) / np.sqrt(squares / rows), -3, 3)
        # float32 logarithms, of size up to 14 and with differences of order 0.1
        np.testing.assert_allclose(x[1:6], wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(x[np.array([0, 6, 7])], 0.0)
    same = jnp.full((8, 2), 0.7)
    fresh = learning.Moments(jnp.zeros(()), jnp.zeros(2), jnp.zeros(2))
    _, x = features(fresh, same, where=jnp.array(where))
    # their mean is theirs but for rounding, of 1e-7 against the 1e-4 that counts as a difference
    np.testing.assert_allclose(x, 0.0, atol=0.01)
    _, x = features(fresh, same, where=jnp.zeros(8, bool))
    np.testing.assert_array_equal(x, 0.0)


def test_a_position_in_joined_batches_is_one_integer(shop: Any) -> None:
    training, validation = shop.planned(2), shop.in_order()
    both = WithValidation(training, validation)
    assert (len(both), both.batches_per_epoch) == (len(training), training.batches_per_epoch)
    for i in (0, len(validation) + 1, len(training) - 1):
        item, other = both[i], validation[i % len(validation)]
        for name, values in training[i].items():
            np.testing.assert_array_equal(item[name], values)
            np.testing.assert_array_equal(item[PREFIX + name], other[name])
    with pytest.raises(ValueError, match="no validation batch"):
        WithValidation(training, validation=shop._planned([[]]))


def test_stopped_and_resumed_is_as_if_never_stopped(
    shop: Any, step: Any, console: Any, tmp_path: Path, assert_trees_equal: Any
) -> None:
    class StoppedError(Exception):
        pass

    def run(folder: str, stop_at: int | None = None) -> Any:
        def stopping(state: Any, batch: Any) -> Any:
            if int(state.step) + 1 == stop_at:
                raise StoppedError
            return step(state, batch)

        checkpoints = RunCheckpoints(tmp_path / folder / "checkpoints")
        try:
            return loop.fit(
                Run("learned-0", 0, TrainConfig(epochs=1).schedule()),
                create(shop),
                stopping,
                WithValidation(shop.planned(), shop.in_order()),
                mesh=shop.mesh,
                example_ids=shop.rows.astype(str),
                observers=Observers(
                    checkpoints,
                    MetricsLog(tmp_path / folder / "metrics.jsonl"),
                    CostMeter(tmp_path / folder / "cost.json"),
                    console,
                    checkpoint_every=2,
                    log_every=1,
                ),
            )
        finally:
            checkpoints.close()

    whole, examples = run("whole")
    # each validation batch came once, and its examples count
    assert examples == 2 * len(shop.rows)
    with pytest.raises(StoppedError):
        run("stopped", stop_at=4)
    resumed, again = run("stopped")
    assert_trees_equal(resumed._asdict(), whole._asdict())
    assert again == examples
    first, second = (
        logs.read(tmp_path / folder / "metrics.jsonl") for folder in ("whole", "stopped")
    )
    assert first == second


@pytest.mark.parametrize("scores", [(), ("loss", "hardness")])
def test_unknown_scores_are_named(shop: Any, scores: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="give some of"):
        learning.learned_step(shop.task, SGD, shop.mesh, scores=scores)
