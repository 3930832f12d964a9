from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from sie_jax.errors import UserError
from sie_jax.models import recommenders
from sie_jax.models.recommenders import KINDS, Factors, ItemNeighbours, Recommender, Repeat

USERS, ITEMS = 40, 12


@pytest.fixture(scope="module")
def matrix() -> sparse.csr_matrix:
    """Users of two tastes: each meets items of one half of the catalogue."""
    rng = np.random.default_rng(0)
    dense = np.zeros((USERS, ITEMS + 1), np.float32)
    for user in range(USERS):
        half = rng.permutation(6)[:4] + 1 + 6 * (user % 2)
        dense[user, half] = rng.integers(1, 3, 4)
    return sparse.csr_matrix(dense)


@pytest.mark.parametrize("name", list(KINDS))
def test_each_scores_all_items_and_is_kept_whole(
    name: str, matrix: sparse.csr_matrix, tmp_path: Path
) -> None:
    kind = KINDS[name]
    made: Recommender = kind.fit(matrix, option=getattr(kind, "options", (0.0,))[-1], seed=0)
    histories = [np.array([1, 2]), np.array([8])]
    scores = made.scores(np.array([0, -1]), histories)
    assert scores.shape == (2, ITEMS + 1)
    assert np.isfinite(scores).all()
    recommenders.save(made, tmp_path)
    again = recommenders.load(tmp_path).scores(np.array([0, -1]), histories)
    assert np.array_equal(scores, again)
    # two fits from one seed are the same
    twice = kind.fit(matrix, option=getattr(kind, "options", (0.0,))[-1], seed=0)
    assert np.allclose(scores, twice.scores(np.array([0, -1]), histories), rtol=1e-5)


@pytest.mark.parametrize("name", ["item_neighbours", "als", "bpr"])
def test_tastes_are_told_apart(name: str, matrix: sparse.csr_matrix) -> None:
    kind = KINDS[name]
    made: Recommender = kind.fit(matrix, option=kind.options[0], seed=0)
    scores = made.scores(np.array([0]), [np.array([1, 2, 3])])
    assert scores[0, 4:7].mean() > scores[0, 7:].mean()


def test_neighbours_are_cosines_of_items(matrix: sparse.csr_matrix) -> None:
    made = ItemNeighbours.fit(matrix, option=0.5)
    met = matrix.toarray() > 0
    norms = np.sqrt(met.sum(0))

    def cosine(i: int, j: int) -> float:
        return 0.0 if i == j else float((met[:, i] & met[:, j]).sum() / (norms[i] * norms[j]))

    scores = made.scores(np.array([-1]), [np.array([2, 5])])[0]
    expected = [0.5 * cosine(2, j) + cosine(5, j) for j in range(1, ITEMS + 1)]
    assert np.allclose(scores[1:], expected, atol=1e-6)


def test_factors_fold_a_history_in_as_the_library_does(matrix: sparse.csr_matrix) -> None:
    from implicit.als import AlternatingLeastSquares

    made = Factors.fit(matrix, option=1.0, seed=0)
    theirs = AlternatingLeastSquares(
        factors=64, regularization=made.ridge, alpha=2.0, use_gpu=False, num_threads=1
    )
    theirs.item_factors = made.items
    row = np.zeros((1, ITEMS + 1), np.float32)
    row[0, [1, 2]] = 1
    options = {"recalculate_user": True, "filter_already_liked_items": False}
    ids, scores = theirs.recommend(0, sparse.csr_matrix(row), N=ITEMS + 1, **options)
    ours = made.scores(np.array([-1]), [np.array([1, 2])])[0]
    assert np.allclose(ours[ids], scores, atol=2e-3)


def test_what_was_met_often_and_late_comes_first(matrix: sparse.csr_matrix) -> None:
    scores = Repeat.fit(matrix).scores(np.array([-1]), [np.array([4, 9, 9, 2])])[0]
    assert np.argsort(-scores)[:3].tolist() == [9, 2, 4]


def test_a_damaged_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the recommender cannot be read"):
        recommenders.load(tmp_path)
