import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import per_example
from sie_jax.importance import modifiers, policies, sampling

N, B, DRAWS, UNIFORM = 40, 4, 10_000, 0.1


def drawing(scores: jax.Array, power: float = 1.0) -> np.ndarray:
    policy = modifiers.Mixed(policy=policies.Tempered(power=power), uniform=UNIFORM)
    return sampling.probabilities(np.asarray(policy(scores)))


@pytest.fixture(scope="module")
def gradients() -> np.ndarray:
    """The gradients `[N, parameters]` of a small network on examples of unequal size."""

    def loss(params: dict[str, jax.Array], example: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum((jnp.tanh(example["x"] @ params["w"]) @ params["v"] - example["y"]) ** 2)

    keys = jax.random.split(jax.random.key(0), 4)
    params = {"w": jax.random.normal(keys[0], (5, 3)), "v": jax.random.normal(keys[1], (3, 2))}
    batch = {
        "x": jax.random.normal(keys[2], (N, 5)),
        "y": jax.random.normal(keys[3], (N, 2)) * jnp.geomspace(0.1, 10, N)[:, None],
    }
    _, grads = per_example.value_and_grad(loss)(params, batch)
    leaves = jax.tree.leaves(grads.materialize())
    return np.concatenate([np.asarray(leaf, np.float64).reshape(N, -1) for leaf in leaves], 1)


def norms(gradients: np.ndarray) -> jax.Array:
    return jnp.float32(np.linalg.norm(gradients, axis=1))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, -1.0])
def test_the_corrected_gradient_is_the_full_one_in_expectation(
    gradients: np.ndarray, power: float
) -> None:
    p = drawing(norms(gradients), power)
    corrected = sampling.correction(p)[:, None] * gradients
    full = gradients.mean(0)
    # float64 sums of 40 terms, enumerated
    np.testing.assert_allclose(p @ corrected, full, rtol=1e-12, atol=1e-13)
    rows = np.random.default_rng(1).choice(N, DRAWS, p=p)
    mean, error = corrected[rows].mean(0), corrected[rows].std(0) / np.sqrt(DRAWS)
    # of 21 numbers one is beyond 4 standard errors with probability 0.001
    assert (np.abs(mean - full) <= 4 * error).all()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_variance_is_the_one_observed(gradients: np.ndarray, power: float) -> None:
    p = drawing(norms(gradients), power)
    full = gradients.mean(0)
    variance = sampling.gradient_variance(
        (gradients**2).sum(1), p, squared_norm_of_mean=full @ full, batch_size=B
    )
    rows = np.random.default_rng(2).choice(N, (DRAWS, B), p=p)
    means = (sampling.correction(p)[rows, None] * gradients[rows]).mean(1)
    distances = ((means - full) ** 2).sum(1)
    assert abs(distances.mean() - variance) <= 4 * distances.std() / np.sqrt(DRAWS)


def test_the_norms_give_the_least_variance(gradients: np.ndarray) -> None:
    squares, full = (gradients**2).sum(1), gradients.mean(0)
    g = np.sqrt(squares)
    shapes = {power: g**power / (g**power).sum() for power in (0.0, 0.5, 0.9, 1.0, 1.1, 2.0)}
    found = {
        power: sampling.gradient_variance(squares, p, squared_norm_of_mean=full @ full)
        for power, p in shapes.items()
    }
    assert min(found, key=lambda power: found[power]) == 1.0
    assert found[1.0] == pytest.approx(g.mean() ** 2 - full @ full)
    assert found[0.0] == pytest.approx(squares.mean() - full @ full)


def test_probabilities_are_the_formula_and_bound_the_correction() -> None:
    scores = jnp.array([0.0, 1.0, 4.0, 1e6])
    p = drawing(scores, 0.5)
    np.testing.assert_allclose(p, 0.9 * np.array([0, 1, 2, 1e3]) / 1003 + 0.1 / 4, rtol=1e-6)
    assert p.dtype == np.float64
    assert p.sum() == pytest.approx(1.0, abs=1e-15)
    corrections = sampling.correction(p)
    assert corrections.max() == pytest.approx(1 / UNIFORM, rel=1e-6)
    assert p @ corrections == pytest.approx(1.0)


@pytest.mark.parametrize("value", [0.0, 1.0, 3e38])
def test_equal_scores_are_drawn_alike_and_need_no_correction(value: float) -> None:
    p = drawing(jnp.full(8, value))
    np.testing.assert_allclose(p, np.full(8, 1 / 8), rtol=1e-6)
    np.testing.assert_allclose(sampling.correction(p), np.ones(8), rtol=1e-6)


@pytest.mark.parametrize("broken", [jnp.nan, jnp.inf])
def test_a_broken_score_is_refused(broken: float) -> None:
    with pytest.raises(ValueError, match=r"^1 examples would never be drawn, the first is 2 with"):
        drawing(jnp.array([1.0, 2.0, broken]))


def test_effective_sample_size() -> None:
    assert sampling.effective_sample_size(np.full(7, 3.0)) == pytest.approx(7)
    assert sampling.effective_sample_size(np.array([0.0, 5.0, 0.0])) == pytest.approx(1)
    assert sampling.effective_sample_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(36 / 14)
    assert sampling.effective_sample_size(np.zeros(3)) == 0


def test_variance_of_other_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="squared norms for"):
        sampling.gradient_variance(np.ones(3), np.full(4, 0.25), squared_norm_of_mean=0.0)


def test_what_is_not_drawn_from_has_no_correction_and_does_not_count() -> None:
    p = np.array([0.5, 0.0, 0.3, 0.2])
    expected = [1 / (3 * 0.5), 0.0, 1 / (3 * 0.3), 1 / (3 * 0.2)]
    np.testing.assert_allclose(sampling.correction(p), expected, rtol=1e-15)
