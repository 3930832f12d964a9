import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.importance import influence, outputs

B = 5
# float64 throughout, with a few hundred roundings, and an inverse damped to a condition below 1e3
EXACT = 1e-9

pytestmark = pytest.mark.usefixtures("float64")


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) / 2


def test_log_odds_and_its_gradient() -> None:
    logits, labels = 3 * _normal(0, 6, 4), np.array([0, 1, 2, 3, 0, 1])
    exponentials = np.exp(logits)
    probabilities = (exponentials / exponentials.sum(1, keepdims=True))[np.arange(6), labels]
    odds = influence.log_odds(logits, labels)
    np.testing.assert_allclose(odds, np.log(probabilities / (1 - probabilities)), rtol=EXACT)
    residuals = jax.nn.sigmoid(-odds)
    np.testing.assert_allclose(residuals, 1 - probabilities, rtol=EXACT)
    of_loss, of_odds = (
        jax.jit(jax.vmap(jax.grad(function)))(logits, labels)
        for function in (outputs.loss, influence.log_odds)
    )
    np.testing.assert_allclose(of_loss, -np.asarray(residuals)[:, None] * of_odds, atol=EXACT)


def test_log_odds_stays_exact_where_the_model_is_sure() -> None:
    # in float32 p_y rounds to 1 here; 1 − p = 2 exp(−40) and ∇f = (1, −1/2, −1/2)
    logits, label = jnp.array([40.0, 0.0, 0.0], jnp.float32), jnp.array(0)
    odds, gradient = jax.jit(jax.value_and_grad(influence.log_odds))(logits, label)
    np.testing.assert_allclose(odds, 40 - np.log(2), rtol=1e-6)
    np.testing.assert_allclose(jax.nn.sigmoid(-odds), 2 * np.exp(-40), rtol=1e-5)
    np.testing.assert_allclose(gradient, [1, -0.5, -0.5], rtol=1e-6)


def test_tracin_is_the_mean_of_pairwise_tracin() -> None:
    generator, rates = np.random.default_rng(0), [0.1, 0.02]
    training, targets = generator.normal(size=(2, B, 7)), generator.normal(size=(2, 3, 7))
    pairwise = np.zeros((B, 3))
    for c in range(2):
        for i in range(B):
            for j in range(3):
                pairwise[i, j] += rates[c] * training[c, i] @ targets[c, j]
    dots = np.stack([training[c] @ targets[c].mean(0) for c in range(2)])
    np.testing.assert_allclose(influence.tracin(dots, rates), pairwise.mean(1), rtol=EXACT)
    expected = [sum(rates[c] * training[c, i] @ training[c, i] for c in range(2)) for i in range(B)]
    norms = np.linalg.norm(training, axis=2)
    np.testing.assert_allclose(influence.tracin_self(norms, rates), expected, rtol=EXACT)


def test_gradient_similarity_is_a_cosine() -> None:
    generator = np.random.default_rng(0)
    target = generator.normal(size=3)
    rows = np.stack([*generator.normal(size=(3, 3)), 5 * target, -2 * target, np.zeros(3)])
    norms, length = np.linalg.norm(rows, axis=1), float(np.linalg.norm(target))
    found = influence.gradient_similarity(rows @ target, norms, length)
    expected = [row @ target / (np.linalg.norm(row) * length) for row in rows[:3]]
    np.testing.assert_allclose(found, [*expected, 1, -1, 0], rtol=EXACT)
    nowhere = influence.gradient_similarity(jnp.zeros(6), norms, 0.0)
    np.testing.assert_array_equal(nowhere, np.zeros(6))


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_trak_equals_the_dense_inverse(damping: float) -> None:
    generator, N, M, D = np.random.default_rng(0), 9, 3, 4
    training, targets = generator.normal(size=(2, N, D)), generator.normal(size=(2, M, D))
    residuals = generator.uniform(size=(2, N))
    kernels = np.zeros((M, N))
    leverages = np.zeros(N)
    for c in range(2):
        gram = sum(np.outer(row, row) for row in training[c])
        inverse = np.linalg.inv(gram + damping * np.trace(gram) / D * np.eye(D))
        for i in range(N):
            leverages[i] += training[c, i] @ inverse @ training[c, i] / 2
            for m in range(M):
                kernels[m, i] += targets[c, m] @ inverse @ training[c, i] / 2
    expected = kernels * residuals.mean(0)
    found = influence.trak(training, targets, residuals, damping=damping)
    np.testing.assert_allclose(found, expected, rtol=EXACT, atol=EXACT)
    mean = influence.trak(training, targets.mean(1, keepdims=True), residuals, damping=damping)
    np.testing.assert_allclose(mean, expected.mean(0)[None], rtol=EXACT, atol=EXACT)
    own = influence.trak_self(training, residuals, damping=damping)
    np.testing.assert_allclose(own, leverages * residuals.mean(0), rtol=EXACT)
    # one model needs no axis of checkpoints
    one = influence.trak(training[0], targets[0], residuals[0], damping=damping)
    same = influence.trak(training[:1], targets[:1], residuals[:1], damping=damping)
    np.testing.assert_array_equal(one, same)


def test_trak_without_gradients_and_with_bad_damping() -> None:
    zeros, residuals = jnp.zeros((3, 2)), jnp.ones(3)
    np.testing.assert_array_equal(influence.trak_self(zeros, residuals, damping=0.1), np.zeros(3))
    with pytest.raises(ValueError, match=r"damping is -1; pass 0 or a positive number"):
        influence.trak_self(zeros, residuals, damping=-1)
