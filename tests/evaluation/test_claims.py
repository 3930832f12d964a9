"""Both intervals against scipy's t tests, the two-way analysis of variance, and chance itself."""

import math

import numpy as np
import pytest
from scipy import stats

from sie_jax.evaluation import claims

NOTHING = {"value": None, "low": None, "high": None}


def bounds(found):
    return found["low"], found["high"]


def drawn(seed=0, *, seeds=3, queries=12, of_seeds=0.1, of_queries=0.1, of_both=0.2):
    """Differences of identical procedures, as the model of claims.py has them."""
    generator = np.random.default_rng(seed)
    return (
        of_seeds * generator.normal(size=(seeds, 1))
        + of_queries * generator.normal(size=(1, queries))
        + of_both * generator.normal(size=(seeds, queries))
    )


def mean_squares(differences):
    """Those of seeds, queries and their interaction, by the sums of a two-way table."""
    size, queries = differences.shape
    mean = differences.mean()
    of_seeds = queries * sum((row.mean() - mean) ** 2 for row in differences) / (size - 1)
    of_queries = size * sum((row.mean() - mean) ** 2 for row in differences.T) / (queries - 1)
    total = ((differences - mean) ** 2).sum()
    rest = total - (size - 1) * of_seeds - (queries - 1) * of_queries
    return of_seeds, of_queries, rest / ((size - 1) * (queries - 1))


def test_fixed_rankers_have_the_t_interval_over_queries():
    values = np.append(np.random.default_rng(0).normal(size=9), np.nan)
    found = claims.fixed(values)
    reference = stats.ttest_1samp(values[:9], 0)
    assert found["value"] == pytest.approx(values[:9].mean())
    assert bounds(found) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    wide = claims.fixed(values, level=0.5)
    assert bounds(wide) == pytest.approx(tuple(reference.confidence_interval(0.5)))


@pytest.mark.parametrize("seeds", [3, 5])
def test_procedures_have_the_interval_over_queries_and_seeds(seeds):
    differences = drawn(seeds=seeds, of_queries=0.3)
    size, queries = differences.shape
    of_seeds, of_queries, of_both = mean_squares(differences)
    over_queries = (of_queries - of_both) / (size * queries)
    over_seeds = of_seeds / (size * queries)
    assert over_queries > 0
    total = over_queries + over_seeds
    freedom = total**2 / (over_queries**2 / (queries - 1) + over_seeds**2 / (size - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total)
    mean = differences.mean()
    found = claims.procedure(np.append(differences, np.full((size, 1), np.nan), 1))
    assert found["value"] == pytest.approx(mean)
    assert bounds(found) == pytest.approx((mean - half, mean + half))


def test_with_two_seeds_the_quantiles_are_weighed_by_their_parts():
    differences = drawn(seeds=2, of_queries=0.3)
    of_seeds, of_queries, of_both = mean_squares(differences)
    over_queries, over_seeds = (of_queries - of_both) / 24, of_seeds / 24
    total = over_queries + over_seeds
    critical = (over_queries * stats.t.ppf(0.975, 11) + over_seeds * stats.t.ppf(0.975, 1)) / total
    half = critical * math.sqrt(total)
    found = claims.procedure(differences)
    assert bounds(found) == pytest.approx((found["value"] - half, found["value"] + half))


@pytest.mark.parametrize("seeds", [2, 4])
def test_queries_that_add_nothing_leave_the_t_interval_over_seeds(seeds):
    # seeds differ query by query, and the queries' means by less than that explains
    differences = drawn(seeds=seeds)
    differences -= differences.mean(0) - differences.mean()
    reference = stats.ttest_1samp(differences.mean(1), 0).confidence_interval(0.95)
    assert bounds(claims.procedure(differences)) == pytest.approx(tuple(reference))


@pytest.mark.parametrize("seeds", [2, 4])
def test_seeds_that_are_all_alike_leave_the_t_interval_over_queries(seeds):
    one = np.random.default_rng(0).normal(size=8)
    found = claims.procedure(np.tile(one, (seeds, 1)))
    # what is 0 in exact numbers is 1e-17 here
    assert bounds(found) == pytest.approx(bounds(claims.fixed(one)), rel=1e-9)


def test_unequal_numbers_of_seeds_are_those_of_welchs_test():
    # every query says the same, so nothing but seeds is left
    run, reference = np.random.default_rng(0).normal(size=7)[:, None], np.ones((1, 5))
    sizes, rows = claims.contrasts(run[:3] * reference, run[3:] * reference)
    assert sizes == (3, 4)
    found = claims.of_rows(rows.mean(1), claims.covariance_of_means(rows), sizes=sizes, queries=5)
    welch = stats.ttest_ind(run[:3, 0], run[3:, 0], equal_var=False).confidence_interval(0.95)
    assert bounds(found) == pytest.approx(tuple(welch), rel=1e-9)


def test_seeds_are_paired_and_one_entry_is_fixed():
    generator = np.random.default_rng(0)
    several, one = generator.normal(size=(3, 4)), generator.normal(size=(1, 4))
    for run, reference in ((several, several[::-1]), (several, one), (one, several)):
        sizes, rows = claims.contrasts(run, reference)
        assert sizes == (3,)
        np.testing.assert_array_equal(rows, run - reference)
    assert claims.contrasts(one, one)[0] == (1,)


def test_one_seed_claims_nothing():
    differences = drawn(seeds=1)
    assert claims.procedure(differences) == NOTHING | {"value": differences.mean()}


def test_too_few_queries_claim_nothing():
    assert claims.fixed(np.full(3, np.nan)) == NOTHING
    assert claims.fixed(np.array([0.5, np.nan])) == NOTHING | {"value": 0.5}
    assert claims.procedure(np.zeros((3, 0))) == NOTHING
    assert claims.procedure(np.array([[0.5], [1.5]])) == NOTHING | {"value": 1.0}


def test_no_difference_anywhere_is_exactly_zero():
    assert claims.procedure(np.zeros((3, 5))) == {"value": 0, "low": 0, "high": 0}


def called(of_seeds, of_queries, *, seeds=3, worlds=1500):
    """The share of worlds of no mean difference in which one is claimed."""
    found = [
        claims.procedure(
            drawn(n, seeds=seeds, queries=30, of_seeds=of_seeds, of_queries=of_queries)
        )
        for n in range(worlds)
    ]
    return np.mean([one["low"] > 0 or one["high"] < 0 for one in found])


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("of_seeds", [0.0, 0.05, 0.5])
def test_identical_procedures_differ_as_rarely_as_the_level_says(seeds, of_seeds):
    # The standard deviation of the share of 1,500 worlds is 0.6 %; the interval itself is between
    # 4 and 6.5 % here, since its variance is a sum of estimates.
    assert called(of_seeds, 0.0, seeds=seeds) == pytest.approx(0.05, abs=0.025)


def test_procedures_that_differ_query_by_query_but_not_on_average():
    assert called(0.05, 0.2) == pytest.approx(0.05, abs=0.025)


def test_the_p_value_is_that_of_the_t_test():
    values = np.random.default_rng(0).normal(0.5, size=9)
    found = claims.p_value(lambda level: claims.fixed(values, level=level))
    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=1e-8)


def test_the_interval_at_the_level_of_the_p_value_ends_at_zero():
    for seed in range(3):
        rows = drawn(seed) + 0.1
        p = claims.p_value(lambda level, rows=rows: claims.procedure(rows, level=level))
        low, high = bounds(claims.procedure(rows, level=1 - p))
        assert min(abs(low), abs(high)) < 1e-7


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(np.zeros((2, 3)), 1.0), (np.ones((1, 3)), 1.0), (np.ones((2, 3)), 1e-12)],
)
def test_the_p_value_where_nothing_varies_or_nothing_is_known(rows, expected):
    found = claims.p_value(lambda level: claims.procedure(rows, level=level))
    assert found == pytest.approx(expected)
