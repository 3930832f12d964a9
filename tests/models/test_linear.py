"""The linear ranker: the loss by its formula, the optimum, and what the ridge is chosen on."""

import numpy as np
import pytest
from scipy import optimize

from sie_jax.errors import UserError
from sie_jax.models import linear
from sie_jax.models.linear import LinearRanker, Lists


def planted(seed, weights, *, queries=200, items=8, noise=1.0):
    """Gains of 1 for the item that wins by w · x + Gumbel noise: a softmax model's own data."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(queries * items, len(weights)))
    query = np.repeat(np.arange(queries), items)
    utility = (features @ weights + noise * generator.gumbel(size=len(query))).reshape(-1, items)
    return Lists(features, (utility == utility.max(1, keepdims=True)).ravel() * 1.0, query)


def graded(seed, features=3):
    generator = np.random.default_rng(seed)
    query = generator.integers(0, 12, 90)
    gains = generator.choice([0, 0.01, 0.1, 1], 90)
    gains[query == 3] = 0
    return Lists(generator.normal(size=(90, features)), gains, query)


def test_the_loss_is_the_cross_entropy_of_gains_and_softmax():
    lists, weights = graded(0), np.array([0.3, -0.2, 0.5])
    terms = []
    for q in range(12):
        x, gains = lists.features[lists.query_index == q], lists.gains[lists.query_index == q]
        if gains.sum():
            scores = x @ weights
            share = np.exp(scores) / np.exp(scores).sum()
            terms.append(-(gains / gains.sum()) @ np.log(share))
    assert linear.loss(weights, lists) == pytest.approx(np.mean(terms), rel=1e-12)


def test_the_gradient_is_that_of_the_loss():
    lists, weights = graded(1), np.array([0.3, -0.2, 0.5])
    numeric = optimize.approx_fprime(
        weights, lambda w: linear.loss(w, lists) + 0.1 / 2 * w @ w, 1e-6
    )
    # forward differences of step h err by about h
    np.testing.assert_allclose(linear.gradient(weights, lists, ridge=0.1), numeric, atol=1e-5)


@pytest.mark.parametrize("ridge", [1e-4, 0.1, 10])
def test_the_fit_is_the_minimum(ridge):
    lists = graded(2)
    weights = linear.fit(lists, ridge=ridge)
    assert np.linalg.norm(linear.gradient(weights, lists, ridge=ridge)) < 1e-9
    best = optimize.minimize(
        lambda w: linear.loss(w, lists) + ridge / 2 * w @ w, np.ones(3), method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-14, "maxiter": 4000},
    )  # fmt: skip
    np.testing.assert_allclose(weights, best.x, atol=1e-5)


def test_perfectly_ordered_queries_still_have_a_minimum():
    lists = Lists(np.array([[1.0], [0.0]]), np.array([1.0, 0.0]), np.zeros(2, int))
    weights = linear.fit(lists, ridge=1e-4)
    assert np.linalg.norm(linear.gradient(weights, lists, ridge=1e-4)) < 1e-9


def test_scores_of_any_size_stay_finite():
    lists = Lists(np.array([[1e4], [0.0]]), np.array([0.0, 1.0]), np.zeros(2, int))
    assert linear.loss(np.array([1.0]), lists) == pytest.approx(1e4)
    assert np.isfinite(linear.fit(lists, ridge=1e-3)).all()


def test_the_order_of_rows_and_the_names_of_queries_make_no_difference():
    lists = graded(3)
    weights = linear.fit(lists, ridge=0.1)
    order = np.random.default_rng(0).permutation(90)
    moved = lists.rows(order)._replace(query_index=100 - lists.query_index[order])
    np.testing.assert_allclose(linear.fit(moved, ridge=0.1), weights, atol=1e-9)
    np.testing.assert_array_equal(linear.fit(lists, ridge=0.1), weights)


def test_queries_without_a_gain_change_nothing():
    lists = graded(4)
    some = lists.rows(lists.query_index != 3)
    np.testing.assert_allclose(
        linear.fit(lists, ridge=0.1), linear.fit(some, ridge=0.1), atol=1e-12
    )


def test_a_planted_weight_is_recovered():
    weights = np.array([1.0, -0.5, 0.0])
    found = linear.fit(planted(5, weights, queries=4000), ridge=1e-6)
    # the standard error of a weight is near 1 / sqrt(queries · (1 - 1/items)), 0.017; four of them
    np.testing.assert_allclose(found, weights, atol=0.07)


def test_the_ridge_is_chosen_by_the_loss_on_queries_left_out():
    lists = planted(6, np.array([1.0, -0.5, 0.0, 0.0]), queries=60)
    folds = lists.query_index % 3
    strengths = (1.0, 0.1, 0.01)
    best, losses = linear.choose(lists, folds, strengths=strengths)
    for strength in strengths:
        expected = np.mean(
            [
                linear.loss(
                    linear.fit(lists.rows(folds != fold), ridge=strength),
                    lists.rows(folds == fold),
                )
                for fold in range(3)
            ]
        )
        assert losses[strength] == pytest.approx(expected, rel=1e-12)
    assert best == min(strengths, key=losses.__getitem__)


def test_noise_alone_takes_the_strongest_ridge_and_much_signal_a_weak_one():
    assert linear.choose(planted(7, np.zeros(10), queries=30), np.repeat(range(30), 8) % 5)[0] >= 1
    strong = planted(8, np.full(2, 3.0), queries=300)
    assert linear.choose(strong, strong.query_index % 5)[0] < 0.1


def test_held_out_scores_are_of_weights_that_saw_the_other_folds_alone():
    lists = graded(11)
    folds = lists.query_index % 3
    scores = linear.held_out(lists, folds, strengths=(1.0, 0.01))
    for fold in range(3):
        others = lists.rows(folds != fold)
        ridge, _ = linear.choose(others, folds[folds != fold], strengths=(1.0, 0.01))
        weights = linear.fit(others, ridge=ridge)
        np.testing.assert_allclose(
            scores[folds == fold], lists.features[folds == fold] @ weights, rtol=1e-9
        )
    # whatever the labels of the fold itself are
    other = lists._replace(gains=np.where(folds == 0, 1 - lists.gains, lists.gains))
    found = linear.held_out(other, folds, strengths=(1.0, 0.01))
    np.testing.assert_array_equal(found[folds == 0], scores[folds == 0])
    assert not np.array_equal(found[folds == 1], scores[folds == 1])


def test_folds_that_teach_nothing_score_nothing_and_choose_nothing():
    lists = graded(12)
    folds = lists.query_index % 2
    silent = lists._replace(gains=np.where(folds == 1, 0.0, lists.gains))
    assert not linear.held_out(silent, folds)[folds == 0].any()
    assert linear.choose(silent, folds, strengths=(3.0, 1.0))[0] == 3.0


def test_nothing_to_learn_and_no_ridge_are_refused():
    lists = graded(9)
    with pytest.raises(ValueError, match="no query has a positive gain"):
        linear.fit(lists._replace(gains=np.zeros(90)), ridge=1.0)
    with pytest.raises(ValueError, match="ridge is 0"):
        linear.fit(lists, ridge=0.0)


def test_a_ranker_survives_its_file(tmp_path):
    lists = graded(10)
    weights = tuple(linear.fit(lists, ridge=0.1).tolist())
    ranker = LinearRanker(("a", "b", "c"), weights, 0.1)
    ranker.save(tmp_path / "linear.json")
    loaded = LinearRanker.load(tmp_path / "linear.json")
    assert loaded == ranker
    scores = ranker.scores(("a", "b", "c"), lists.features)
    np.testing.assert_allclose(scores, lists.features @ np.array(weights), rtol=1e-12)
    np.testing.assert_array_equal(loaded.scores(("a", "b", "c"), lists.features[7:9]), scores[7:9])
    with pytest.raises(ValueError, match="takes the features"):
        ranker.scores(("b", "a", "c"), lists.features)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"names": ["a"]}'])
def test_a_file_that_holds_no_ranker_is_named(tmp_path, text):
    path = tmp_path / "linear.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"linear\.json: the linear ranker cannot be read"):
        LinearRanker.load(path)
