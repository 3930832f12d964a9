import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import importance
from sie_jax.importance import outputs


@pytest.fixture
def logits() -> jax.Array:
    return 3 * jax.random.normal(jax.random.key(0), (7, 4))


@pytest.fixture
def labels() -> jax.Array:
    return jnp.array([0, 1, 2, 3, 0, 1, 2])


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def _by_hand(name: str, logits: np.ndarray, label: int) -> float:
    p = _softmax(np.asarray(logits, np.float64))
    others = np.delete(p, label)
    onehot = np.eye(len(p))[label]
    return {
        "loss": -np.log(p[label]),
        "el2n": np.sqrt(((p - onehot) ** 2).sum()),
        "margin": p[label] - others.max(),
        "entropy": -(p * np.log(p)).sum(),
    }[name]


@pytest.mark.parametrize("name", importance.OUTPUT_SCORES)
def test_equals_the_formula_in_numpy(name: str, logits: jax.Array, labels: jax.Array) -> None:
    scores = importance.OUTPUT_SCORES[name](logits, labels)
    expected = [_by_hand(name, row, label) for row, label in zip(logits, labels, strict=True)]
    # float32 softmax of logits below 10: a few units in the last place
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_el2n_is_the_norm_of_the_loss_gradient_at_the_logits(
    logits: jax.Array, labels: jax.Array
) -> None:
    gradients = jax.vmap(jax.grad(outputs.loss))(logits, labels)
    expected = jnp.linalg.norm(gradients, axis=-1)
    np.testing.assert_allclose(outputs.el2n(logits, labels), expected, rtol=1e-5)


def test_logit_margin_is_against_the_strongest_rival(logits: jax.Array, labels: jax.Array) -> None:
    rows = np.asarray(logits, np.float64)
    expected = [row[y] - np.delete(row, y).max() for row, y in zip(rows, labels, strict=True)]
    np.testing.assert_allclose(outputs.logit_margin(logits, labels), expected, rtol=1e-6)
    assert outputs.logit_margin(jnp.array([[2.0]]), jnp.array([0])) == jnp.inf


@pytest.mark.parametrize("name", importance.OUTPUT_SCORES)
def test_extreme_logits_stay_finite(name: str) -> None:
    extreme = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    assert jnp.isfinite(importance.OUTPUT_SCORES[name](extreme, jnp.array([0, 0]))).all()


@pytest.mark.parametrize("name", importance.OUTPUT_SCORES)
def test_hardness_is_high_for_the_wrong_label_or_the_unsure_model(name: str) -> None:
    # a sure model with the right label, an unsure one, and (but for entropy) a sure wrong one
    rows = jnp.array([[5.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 5.0, 0.0]])
    scores = importance.OUTPUT_SCORES[name](rows, jnp.array([0, 0, 0]))
    hardness = importance.hardness(name, scores)
    assert hardness[0] < hardness[1]
    if name != "entropy":
        assert hardness[1] < hardness[2]
    assert (hardness >= 0).all()
