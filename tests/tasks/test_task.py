"""Steps and passes on a task that has no model, no tokens and one output for two labels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sie_jax import importance
from sie_jax.devices import mesh as meshes
from sie_jax.passes import sweep
from sie_jax.passes.curvature import covariance_pass
from sie_jax.passes.embeddings import embedding_pass
from sie_jax.passes.explain import projection_pass
from sie_jax.passes.gradients import example_pass, preconditioned_pass
from sie_jax.passes.predict import predict_pass
from sie_jax.passes.score import score_pass
from sie_jax.tasks.task import ClassificationTask
from sie_jax.training import learning, steps
from sie_jax.training import state as states

ROWS, FEATURES, RATE = 6, 3, 0.5
SGD = optax.sgd(RATE)


@dataclasses.dataclass(frozen=True)
class Clicked(ClassificationTask):
    """Logistic regression: the output is the logit of a click."""

    features = ("signals",)
    output_scores = ("loss",)
    meets = tuple(importance.NEEDS)
    num_labels = 2

    def outputs(self, params: Any, example: Any, *, key: Any = None) -> Any:
        return example["signals"] @ params["linear"]["kernel"]

    def couple(self, outputs: Any, batch: Any) -> Any:
        return jnp.logaddexp(0.0, -self.output_function(outputs, batch))

    def rematerialises(self, params: Any) -> bool:
        return False

    def score(self, name: str, outputs: Any, batch: Any) -> Any:
        return self.couple(outputs, batch)

    def margin(self, outputs: Any, batch: Any) -> Any:
        return self.output_function(outputs, batch)

    def likeliest(self, outputs: Any) -> Any:
        return (outputs > 0).astype(jnp.int32)

    def drawn(self, outputs: Any, key: Any) -> Any:
        return jax.random.bernoulli(key, jax.nn.sigmoid(outputs)).astype(jnp.int32)

    def output_function(self, outputs: Any, example: Any) -> Any:
        return jnp.where(example["label"] == 1, outputs, -outputs)

    def residual(self, value: Any) -> Any:
        return jax.nn.sigmoid(-value)

    def embed(self, params: Any, batch: Any) -> Any:
        return batch["signals"]

    def head(self, params: Any) -> str:
        return "linear"

    def columns(self, outputs: Any) -> dict[str, Any]:
        return {"click": jax.nn.sigmoid(outputs)}


TASK, MESH = Clicked(), meshes.make(1)


@pytest.fixture(scope="module")
def params() -> Any:
    return {"linear": {"kernel": jnp.array([0.5, -1.0, 2.0])}}


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "row": np.array([0, 1, 2, 3, 4, -1], np.int32),
        "signals": generator.normal(size=(ROWS, FEATURES)).astype(np.float32),
        "label": np.array([0, 1, 1, 0, 1, 0], np.int32),
        "mask": np.arange(ROWS) < 5,
        "weight": np.array([1, 2, 0.5, 0.5, 1, 1], np.float32),
    }


@pytest.fixture(scope="module")
def naive(params: Any, batch: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the real rows, in float64: p of a click `[N]`, the losses `[N]` and gradients `[N, F]`."""
    x, y = batch["signals"][:5].astype(np.float64), batch["label"][:5]
    p = 1 / (1 + np.exp(-(x @ np.asarray(params["linear"]["kernel"], np.float64))))
    losses = -np.log(np.where(y == 1, p, 1 - p))
    return p, losses, (p - y)[:, None] * x


def moved(step: steps.Step, state: Any, batch: Any) -> tuple[np.ndarray, Any]:
    """By how much a step moved the parameters, and its metrics."""
    before = np.asarray(state.params["linear"]["kernel"])
    after, metrics = step(state, meshes.place_batch(MESH, batch))
    return np.asarray(after.params["linear"]["kernel"]) - before, metrics


def test_steps(params: Any, batch: Any, naive: Any) -> None:
    _, losses, gradients = naive
    state = states.create(params, SGD, MESH, seed=0)
    move, metrics = moved(steps.weighted_step(TASK, SGD, MESH), state, batch)
    np.testing.assert_allclose(move, -RATE * batch["weight"][:5] @ gradients / 5, rtol=1e-5)
    assert float(metrics["loss"]) == pytest.approx(losses.mean(), rel=1e-5)

    for score, values in (("grad_norm", np.linalg.norm(gradients, axis=1)), ("loss", losses)):
        policy = importance.POLICIES["proportional"]()
        step = steps.online_step(TASK, SGD, MESH, score=score, policy=policy)
        move, _ = moved(step, states.create(params, SGD, MESH, seed=0), batch)
        np.testing.assert_allclose(move, -RATE * values @ gradients / values.sum(), rtol=1e-5)

    step = learning.learned_step(TASK, SGD, MESH, scores=("loss",))
    joined = batch | {learning.PREFIX + name: values for name, values in batch.items()}
    state = learning.create(params, SGD, MESH, seed=0, scores=("loss",))
    move, metrics = moved(step, state, joined)
    np.testing.assert_allclose(move, -RATE * gradients.mean(0), rtol=1e-5)
    agreement = gradients.mean(0) @ gradients.mean(0)
    assert float(metrics["agreement"]) == pytest.approx(agreement, rel=1e-4)


def test_passes(params: Any, batch: Any, naive: Any) -> None:
    p, losses, gradients = naive
    norms = np.linalg.norm(gradients, axis=1)

    def columns(made: sweep.Pass, state: Any) -> sweep.Columns:
        (found,) = sweep.sweep(made, state, [batch], MESH)
        assert found.pop("row").tolist() == [0, 1, 2, 3, 4]
        return found

    scores = columns(score_pass(TASK, MESH), params)
    wanted = {"grad_norm": norms, "last_layer_norm": norms, "loss": losses, "click": p}
    assert scores.keys() == wanted.keys() | {"layer_norms"}
    predicted = columns(predict_pass(TASK, MESH), params)
    wanted_of = [(scores, wanted), (predicted, {"loss": losses, "click": p})]
    ones = jax.tree.map(jnp.ones_like, params)
    made = preconditioned_pass(TASK, MESH)
    wanted_of.append((columns(made, (params, ones)), {"preconditioned_norm": norms}))
    embedded = columns(embedding_pass(TASK, MESH), params)
    wanted_of.append((embedded, {"embedding": batch["signals"][:5]}))
    made = example_pass(TASK, MESH, frozenset({"norm", "dot"}), projection_size=2, seed=0)
    found = columns(made, {"params": params, "gradient": ones})
    wanted_of.append((found, {"norm": norms, "dot": gradients.sum(1)}))
    made = projection_pass(TASK, MESH, size=2, seed=0)
    found = columns(made, (params, jnp.bool_(True)))
    likeliest = np.maximum(p, 1 - p)
    wanted_of.append((found, {"chosen": p > 0.5, "residual": 1 - likeliest}))
    for found, expected in wanted_of:
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)

    placed = meshes.place_batch(MESH, batch)
    (sides,) = covariance_pass(TASK, MESH, 0).function(params, placed)
    x = batch["signals"][:5].astype(np.float64)
    np.testing.assert_allclose(sides.input[0], x.T @ x, rtol=1e-5)
