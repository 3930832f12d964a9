import numpy as np
import pytest

from sie_jax.evaluation.retrieval import NOTHING, Wanted
from sie_jax.retrieval import fusion

FIRST = np.array([[4, 7, 1], [2, NOTHING, NOTHING]])
SECOND = np.array([[7, 9, 4], [3, 2, 5]])


def test_ranks_are_added_up() -> None:
    places, sums = fusion.fused([FIRST, SECOND], depth=4)
    assert places.tolist() == [[7, 4, 9, 1], [2, 3, 5, NOTHING]]
    assert sums[0].tolist() == pytest.approx(
        [1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62, 1 / 63], abs=1e-12
    )


def test_a_list_without_weight_has_no_say() -> None:
    places, _ = fusion.fused([FIRST, SECOND], [1.0, 0.0], depth=3)
    assert np.array_equal(places, FIRST)


def test_weights_are_those_that_find_most() -> None:
    rng = np.random.default_rng(0)
    good, bad = (np.stack([rng.permutation(50)[:20] for _ in range(40)]) for _ in range(2))
    wanted = Wanted(np.repeat(np.arange(40), 3), good[:, :3].ravel())
    weights, mean = fusion.learned([bad, good], wanted, metric="recall@3", depth=10)
    assert (weights, mean) == ([0.0, 1.0], 1.0)
    weights, _ = fusion.learned([good, bad], wanted, metric="recall@3", depth=10)
    assert weights == [1.0, 0.0]
