"""The contest on constructed values: who replaces the incumbent, and who does not."""

import numpy as np
import pytest

from sie_jax.evaluation import contest

BASELINES, ENCODERS = ("bm25", "current"), ("uniform", "weighted")
QUERIES = 40


def noise(seed: int, scale: float = 0.1) -> np.ndarray:
    """Values whose mean is 0."""
    drawn = np.random.default_rng(seed).normal(0, scale, QUERIES)
    return drawn - drawn.mean()


def decide(**ndcg: np.ndarray) -> contest.Outcome:
    return contest.decide(ndcg, baselines=BASELINES, encoders=ENCODERS)


def test_a_standing_is_the_mean_difference_and_its_standard_error():
    linear, uniform = 0.5 + noise(1), 0.6 + noise(2)
    outcome = decide(linear=linear, uniform=uniform)
    found = outcome.standings["uniform"]
    difference = uniform - linear
    assert found.value == pytest.approx(0.6)
    assert found.difference == pytest.approx(0.1)
    expected = np.sqrt(((difference - 0.1) ** 2).sum() / (QUERIES - 1) / QUERIES)
    assert found.standard_error == pytest.approx(expected)
    assert outcome.standings["linear"] == pytest.approx((0.5, 0.0, 0.0))
    assert (outcome.ranker, outcome.encoder, outcome.queries) == ("uniform", "uniform", QUERIES)


@pytest.mark.parametrize(("above", "winner"), [(0.9, "linear"), (1.1, "stack")])
def test_only_more_than_one_standard_error_replaces_the_incumbent(above: float, winner: str):
    difference = noise(3)
    error = difference.std(ddof=1) / np.sqrt(QUERIES)
    linear = 0.5 + noise(4)
    assert decide(linear=linear, stack=linear + difference + above * error).ranker == winner


def test_of_several_that_are_above_the_best_wins_and_the_first_among_equals():
    linear = 0.5 + noise(5)
    better = {"uniform": linear + 0.1, "weighted": linear + 0.2, "stack": linear + 0.2}
    outcome = decide(linear=linear, **better)
    assert (outcome.ranker, outcome.encoder) == ("weighted", "weighted")
    # an encoder that does not win is still the folder's
    outcome = decide(linear=linear, uniform=linear - 0.2, weighted=linear - 0.1)
    assert (outcome.ranker, outcome.encoder) == ("linear", "weighted")


def test_a_baseline_that_nothing_beats_is_the_ranker_if_it_is_ahead_by_a_margin():
    linear, difference = 0.5 + noise(6), noise(10)
    error = difference.std(ddof=1) / np.sqrt(QUERIES)
    for above, winner in ((0.0, "linear"), (0.9, "linear"), (1.1, "bm25")):
        assert decide(bm25=linear + difference + above * error, linear=linear).ranker == winner
    outcome = decide(bm25=linear + 0.1, current=linear + 0.3, linear=linear, uniform=linear + 0.2)
    assert outcome.ranker == "current"
    # of equals the one that costs nothing
    assert decide(linear=linear, uniform=linear + 0.2, bm25=linear + 0.2).ranker == "bm25"
    assert decide(linear=linear, uniform=linear + 0.21, bm25=linear + 0.2).ranker == "uniform"


def test_too_few_queries_replace_nothing_and_none_give_no_standings():
    few = np.full(contest.FEWEST - 1, 0.5)
    assert decide(bm25=few + 0.3, linear=few, uniform=few + 0.2).ranker == "linear"
    enough = np.full(contest.FEWEST, 0.5)
    assert decide(bm25=enough, linear=enough, uniform=enough + 0.2).ranker == "uniform"
    single = decide(linear=np.array([0.5]), uniform=np.array([0.9]))
    assert single.ranker == "linear"
    assert single.standings["linear"] == pytest.approx((0.5, 0.0, 0.0))
    assert single.standings["uniform"] == (0.9, pytest.approx(0.4), None)  # no error is known
    nothing = np.full(5, np.nan)
    assert decide(linear=nothing, uniform=nothing) == ("linear", "uniform", 0, {})


def test_a_query_without_a_value_is_left_out_of_all():
    linear, uniform = 0.5 + noise(7), 0.6 + noise(8)
    uniform[:3] = np.nan
    outcome = decide(linear=linear, uniform=uniform)
    assert outcome.queries == QUERIES - 3
    assert outcome.standings["linear"].value == pytest.approx(linear[3:].mean())


def test_without_the_incumbent_there_is_no_contest():
    with pytest.raises(ValueError, match="linear is not among the contestants"):
        decide(uniform=noise(9))


def test_the_same_first_item():
    query = np.array([0, 0, 0, 1, 1, 2, 2])
    one = np.array([3.0, 1.0, 2.0, 0.0, 1.0, 5.0, 5.0])
    other = np.array([3.0, 2.0, 1.0, 2.0, 1.0, 5.0, 4.0])
    # the first query agrees, the second does not, and the tie of the third goes to the lower place
    assert contest.same_first(one, other, query, np.arange(7)) == pytest.approx(2 / 3)
    assert contest.same_first(one, other, query, np.arange(7)[::-1]) == pytest.approx(1 / 3)
