import numpy as np
import pytest

from sie_jax.evaluation import Predictions
from sie_jax.evaluation.intervals import Judgments
from sie_jax.evaluation.rivals import rivals

# queries b and a, whose pairs are not adjacent; c has no positive gain
JUDGED = Judgments(
    np.array([1, 0, 0, 1, 0]), ["b", "a", "b", "a", "c"], list("54321"), ("no", "yes"), (0.0, 1.0)
)
RUNS = {
    "stack": [
        Predictions(None, np.zeros(5)),
        Predictions(None, np.array([0.9, 0.1, 0.2, 0.3, 1.0])),  # right on both
    ],
    "bm25": [Predictions(None, np.array([0.1, 0.7, 0.2, 0.3, 1.0]))],  # wrong on both
}
VERDICT = {"ranker": "stack", "best_baseline": "bm25"}
SECOND = 1 / np.log2(3)  # nDCG with the one relevant item at rank 2


def test_both_rankers_on_every_query():
    found = rivals(JUDGED, RUNS, VERDICT, seed=1)
    assert found.query_ids.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(found.ours, [1, 1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found.theirs, [SECOND, SECOND, np.nan], rtol=1e-6)
    assert found.apart(10) == ([0, 1], [])
    assert found.counts() == {"won": 2, "lost": 0, "equal": 0}  # c is left out
    assert found.apart(1) == ([0], [])
    ours, theirs = found.ranked(1)
    assert (ours.tolist(), theirs.tolist()) == ([0, 2], [2, 0])


def test_lost_queries_and_ties():
    found = rivals(JUDGED, RUNS, VERDICT)  # all scores equal: example ids break the ties
    assert found.ranked(1)[0].tolist() == [2, 0]
    assert found.ours.tolist()[1] == pytest.approx(SECOND)
    turned = rivals(
        JUDGED, RUNS | {"stack": RUNS["stack"][1:]}, {"ranker": "bm25", "best_baseline": "stack"}
    )
    assert turned.apart(10) == ([], [0, 1])
    assert turned.counts() == {"won": 0, "lost": 2, "equal": 0}


def test_a_baseline_that_is_exported_has_no_rival():
    assert rivals(JUDGED, RUNS, {"ranker": "bm25", "best_baseline": "bm25"}) is None
