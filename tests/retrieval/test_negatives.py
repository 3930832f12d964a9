import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sie_jax.errors import UserError
from sie_jax.evaluation.retrieval import NOTHING
from sie_jax.retrieval import negatives
from sie_jax.retrieval.negatives import DENOISED, KINDS, RAW, WEIGHTED, NegativesConfig

LISTS = np.array([[5, 3, 8, 1, 7, 2], [4, 0, 6, NOTHING, NOTHING, NOTHING]])
JUDGED = np.array([[True, False, False, False, False, False], [False] * 6])
DOUBT = np.array([[0.0, 0.9, 0.1, 0.8, 0.2, 0.7], [0.3, 0.6, 0.1, 1, 1, 1]])


def drawn(kind: str, each: int = 2, seed: int = 0) -> negatives.Negatives:
    generator = np.random.default_rng(seed)
    return negatives.mined(LISTS, JUDGED, DOUBT, kind=kind, each=each, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_judged_is_not_mined_and_nothing_twice(kind: str) -> None:
    for seed in range(20):
        found = drawn(kind, seed=seed)
        pairs = set(zip(found.row.tolist(), found.item.tolist(), strict=True))
        assert len(pairs) == 4
        assert (0, 5) not in pairs
        assert NOTHING not in found.item


def test_denoising_leaves_the_likely_wanted_half_out() -> None:
    for seed in range(20):
        found = drawn(DENOISED, seed=seed)
        assert set(found.item[found.row == 0].tolist()) <= {8, 7}
        assert not found.doubt.any()
    assert {3, 1, 2} & {item for seed in range(20) for item in drawn(RAW, seed=seed).item.tolist()}


def test_only_weighting_keeps_the_doubt() -> None:
    found = drawn(WEIGHTED, each=9)
    own = {(row, item): doubt for row, item, doubt in zip(*found, strict=True)}
    assert own[0, 3] == 0.9
    assert own[1, 6] == 0.1
    assert len(own) == 8  # all that there are
    assert not drawn(RAW, each=9).doubt.any()


def test_the_chance_is_that_of_a_logistic_regression() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=400)
    wanted = generator.uniform(size=400) < 1 / (1 + np.exp(1 - 2 * scores))
    a, b = negatives.chance(scores, wanted)
    reference = LogisticRegression(C=1 / (1e-3 * 400), tol=1e-8).fit(scores[:, None], wanted)
    assert np.allclose([a, b], [reference.intercept_[0], reference.coef_[0, 0]], atol=1e-3)
    a, b = negatives.chance(np.array([0.0, 1.0]), np.array([False, True]))  # separated
    assert np.isfinite([a, b]).all()


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UserError, match=r"negatives\.kinds is 'clean'"):
        NegativesConfig(kinds=("clean",)).check()
    with pytest.raises(UserError, match=r"negatives\.each is 0"):
        NegativesConfig(each=0).check()
