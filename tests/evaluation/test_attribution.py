import numpy as np
import pytest

from sie_jax.evaluation.attribution import linear_datamodeling_score


def test_equals_spearman_written_out() -> None:
    generator, S, M, N = np.random.default_rng(0), 9, 3, 6
    scores, outputs = generator.normal(size=(M, N)), generator.normal(size=(S, M))
    subsets = generator.uniform(size=(S, N)) < 0.5
    expected = []
    for m in range(M):
        sums = [sum(scores[m, i] for i in range(N) if subsets[s, i]) for s in range(S)]
        gaps = np.argsort(np.argsort(sums)) - np.argsort(np.argsort(outputs[:, m]))
        # without ties, ρ = 1 − 6 Σ d² / (S (S² − 1))
        expected.append(1 - 6 * (gaps**2).sum() / (S * (S**2 - 1)))
    found = linear_datamodeling_score(scores, outputs, subsets)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_true_linear_model_has_score_one_and_its_negative_minus_one() -> None:
    subsets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
    scores = np.array([[1.0, 2.0, 4.0]])
    outputs = subsets @ scores.T
    np.testing.assert_allclose(linear_datamodeling_score(scores, np.exp(outputs), subsets), [1])
    np.testing.assert_allclose(linear_datamodeling_score(-scores, outputs, subsets), [-1])


def test_ties_share_their_rank_and_constants_have_no_score() -> None:
    subsets = np.array([[1, 0], [0, 1], [1, 1]], bool)
    # sums 1, 1, 2 have the ranks 1.5, 1.5, 3; outputs the ranks 1, 2, 3: ρ = 1.5 / √(1.5 · 2)
    scores, outputs = np.array([[1.0, 1.0]]), np.array([[0.0], [1.0], [2.0]])
    found = linear_datamodeling_score(scores, outputs, subsets)
    np.testing.assert_allclose(found, [1.5 / np.sqrt(1.5 * 2)])
    assert np.isnan(linear_datamodeling_score(scores, np.ones((3, 1)), subsets)).all()


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"pass \[M, N\], \[S, M\] and \[S, N\]"):
        linear_datamodeling_score(np.ones((1, 2)), np.ones((3, 2)), np.ones((3, 2), bool))
