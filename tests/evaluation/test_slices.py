"""Slices hold every query once, and their differences are those of the queries in them."""

import numpy as np
import pytest
from scipy import stats

from sie_jax.evaluation import slices


def test_every_query_is_in_one_slice_of_each_grouping():
    queries = ["usb hub", "red shoes size 42", "one two three four five", "hub"]
    found = slices.groupings(
        queries, training_queries=["Red SHOE 42 sizes", "usb hubs"], categories=["a", "a", "b", ""]
    )
    masks = {
        grouping: {name: mask.tolist() for name, mask in of.items()}
        for grouping, of in found.items()
    }
    yes, no = True, False
    assert masks == {
        "words in the query": {
            "1 or 2": [yes, no, no, yes],
            "3 or 4": [no, yes, no, no],
            "5 or more": [no, no, yes, no],
        },
        "words in training": {"all seen": [yes, yes, no, yes], "some unseen": [no, no, yes, no]},
        "numbers": {"with a number": [no, yes, no, no], "without a number": [yes, no, yes, yes]},
        "category": {"a": [yes, yes, no, no], "(none)": [no, no, no, yes], "b": [no, no, yes, no]},
    }


def test_a_grouping_of_one_slice_says_nothing():
    found = slices.groupings(["usb hub", "desk"], training_queries=[], categories=["a", "a"])
    assert found == {}
    assert slices.groupings([], training_queries=[], categories=[]) == {}


def test_rare_categories_are_counted_together():
    categories = [f"c{n:02}" for n in range(20) for _ in range(2)]
    of = slices.groupings(["x"] * 40, training_queries=["x"], categories=categories)["category"]
    assert list(of) == [*(f"c{n:02}" for n in range(12)), "8 other categories"]
    assert of["8 other categories"].sum() == 16
    assert (sum(mask.astype(int) for mask in of.values()) == 1).all()


def test_the_most_common_value_of_each_group():
    values, places = ["b", "a", "a", "b", "", "", "c"], np.array([0, 0, 1, 0, 1, 2, 3])
    assert slices.most_common(values, places, 5) == ["b", "a", "", "c", ""]
    assert slices.most_common(["b", "a"], np.array([0, 0]), 1) == ["a"]


def test_a_difference_has_the_paired_t_interval_of_its_queries():
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(size=(2, 40))
    ours[3] = np.nan
    mask = np.arange(40) < 20
    (row, small) = slices.compare(ours, theirs, {"g": {"first": mask, "few": np.arange(40) > 34}})
    kept = mask & ~np.isnan(ours)
    wanted = stats.ttest_rel(ours[kept], theirs[kept]).confidence_interval()
    assert row["queries"] == 19
    assert row["ours"] == pytest.approx(ours[kept].mean())
    assert row["theirs"] == pytest.approx(theirs[kept].mean())
    assert (row["difference"]["low"], row["difference"]["high"]) == pytest.approx(tuple(wanted))
    assert small["queries"] == 5
    assert small["difference"] == {
        "value": pytest.approx((ours - theirs)[35:].mean()),
        "low": None,
        "high": None,
    }


def test_a_slice_without_a_measured_query_is_left_out():
    nothing = np.full(3, np.nan)
    assert slices.compare(nothing, nothing, {"g": {"all": np.ones(3, bool)}}) == []


def test_holm_multiplies_by_the_tests_that_are_left():
    # sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, and never falling
    np.testing.assert_allclose(slices.holm([0.03, 0.01, 0.5, 0.02]), [0.06, 0.04, 0.5, 0.06])
    assert slices.holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert slices.holm([]).size == 0


def test_marks_are_made_over_all_slices_together():
    rng = np.random.default_rng(1)
    base = rng.normal(size=30)
    # the t test alone gives 0.02 for this one
    spread = base / base.std(ddof=1) - base.mean() / base.std(ddof=1)
    level = stats.t.isf(0.01, 29) / 30**0.5
    alone = slices.compare(spread + level, np.zeros(30), {"g": {"all": np.ones(30, bool)}})
    assert [row["marked"] for row in alone] == [True]
    masks = {f"{n}": np.ones(30, bool) for n in range(3)}
    assert not any(
        row["marked"] for row in slices.compare(spread + level, np.zeros(30), {"g": masks})
    )
    assert all(row["marked"] for row in slices.compare(spread + 3, np.zeros(30), {"g": masks}))


def test_equal_rankers_are_never_marked():
    same = np.linspace(0, 1, 20)
    (row,) = slices.compare(same, same, {"g": {"all": np.ones(20, bool)}})
    assert row["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert row["marked"] is False
