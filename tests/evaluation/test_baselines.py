"""The baselines: what they draw, what they count, and that row order changes nothing."""

import math

import numpy as np
import pytest

from sie_jax.data import lexical
from sie_jax.evaluation import baselines


def draw(ids, *, labels=(0, 1, 1, 3), seed=0):
    return baselines.random(ids, training_labels=np.array(labels), num_classes=4, seed=seed)


def test_random_follows_the_example_id_and_the_seed():
    ids = [f"e{n}" for n in range(50)]
    classes, scores = draw(ids)
    reordered = draw(ids[::-1])
    np.testing.assert_array_equal(reordered.classes, classes[::-1])
    np.testing.assert_array_equal(reordered.scores, scores[::-1])
    other = draw(ids, seed=1)
    assert not np.array_equal(other.scores, scores)
    assert not np.array_equal(other.classes, classes)


def test_random_is_uniform_and_follows_the_training_frequencies():
    n = 20_000
    classes, scores = draw([str(i) for i in range(n)])
    # Four standard errors each: a mean of uniforms has 1 / sqrt(12 n), a share sqrt(p (1 - p) / n).
    assert scores.mean() == pytest.approx(1 / 2, abs=4 / math.sqrt(12 * n))
    assert scores.min() >= 0
    assert scores.max() < 1
    for k, p in enumerate((1 / 4, 1 / 2, 0, 1 / 4)):
        assert np.mean(classes == k) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))
    # Classes and scores are drawn apart: their correlation has standard error 1 / sqrt(n).
    assert np.corrcoef(classes, scores)[0, 1] == pytest.approx(0, abs=4 / math.sqrt(n))


def test_random_of_no_pairs_is_empty():
    classes, scores = draw([])
    assert len(classes) == len(scores) == 0


TRAINING = {
    "training_queries": ["a b", "a b", "a b", "a", "a"],
    "training_titles": ["x", "y", "z", "a", "a c"],
    "training_labels": np.array([1, 0, 1, 2, 2]),
    "num_classes": 3,
}


def test_token_overlap_is_the_share_of_distinct_words_found():
    classes, scores = baselines.token_overlap(
        ["Red red SHOES", "Straße 7", "größe", "!!", "a b c d e f g h i j"],
        ["shoes, blue", "STRASSE no. 7", "große", "anything", "c a b"],
        **TRAINING,
    )
    np.testing.assert_array_equal(scores, [1 / 2, 1, 0, 0, 3 / 10])
    # Tenths 5, 9, 0, 0, 3; training filled tenth 0 (labels 1, 0, 1) and tenth 9 (labels 2, 2).
    np.testing.assert_array_equal(classes, [2, 2, 1, 1, 1])


def test_token_overlap_prefers_the_lower_grade_and_the_lower_tenth():
    classes, _ = baselines.token_overlap(
        ["a b c d e"],
        ["a b"],  # tenth 4
        training_queries=["a b c d e", "a b c d e", "a b c d e", "a b c d e f g h i j"],
        training_titles=["a", "a", "a b c", ""],  # tenths 2, 2, 6, 0
        training_labels=np.array([1, 0, 2, 2]),
        num_classes=3,
    )
    np.testing.assert_array_equal(classes, [0])


def test_baselines_need_training_pairs():
    with pytest.raises(ValueError, match="random needs one training label"):
        draw(["1"], labels=np.zeros(0, int))
    empty = {"training_queries": [], "training_titles": [], "training_labels": np.zeros(0, int)}
    with pytest.raises(ValueError, match="token_overlap needs one training pair"):
        baselines.token_overlap(["a"], ["b"], **empty, num_classes=2)


def test_bm25_ranks_by_the_statistics_of_the_catalogue():
    catalogue = ["red shoe", "red hat", "red bag", "blue shoe"]
    statistics = lexical.count(catalogue)
    scores = baselines.bm25(["red shoes"] * 3, ["a shoe", "a red", "hats"], statistics)
    # "shoe" is in two titles and "red" in three, so it weighs more
    assert scores[0] > scores[1] > scores[2] == 0


def test_the_current_score_ranks_as_it_is_and_missing_ones_last():
    assert baselines.current(np.array([3, 5])).tolist() == [3, 5]
    for lowest in (-2.0, 0.0, 1e-300, 1e17, -1e300):
        scores = baselines.current(np.array([2e17, np.nan, lowest, np.inf]))
        assert scores[[0, 2]].tolist() == [2e17, lowest]
        assert scores[1] == scores[3] < lowest
    one, other = baselines.current(np.array([np.nan, np.nan]))
    assert one == other
    assert np.isfinite(one)
