"""What sets the modifiers apart; test_policies has the contract that all policies share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.importance import POLICIES, policies
from sie_jax.importance.modifiers import Balanced, Mixed, Together

# sums of some hundred float32 numbers that add up to 1
TOLERANCE = 1e-5
SCORES = jnp.exp(jax.random.normal(jax.random.key(3), (120,)))
# 60, 40 and 20 rows; no row is in group 2 of 4
GROUPS = np.repeat([0, 1, 3], [60, 40, 20])


def test_together_weighs_a_group_by_the_mean_of_its_finite_scores() -> None:
    scores = jnp.array([1.0, 3.0, jnp.nan, 6.0, 6.0, 9.0])
    where = jnp.array([True, True, True, True, True, False])
    groups = np.array([0, 0, 0, 1, 1, 1])
    policy = Together(policy=policies.Proportional(), groups=groups, num_groups=2)
    found = policy(scores, where=where)
    np.testing.assert_allclose(found, np.array([2, 2, 0, 6, 6, 0]) / 16, rtol=TOLERANCE)


def test_together_drops_groups_whole() -> None:
    policy = Together(policy=policies.Keep(fraction=0.5), groups=GROUPS, num_groups=4)
    kept = np.asarray(policy(SCORES)) > 0
    shares = [kept[group == GROUPS].mean() for group in (0, 1, 3)]
    assert set(shares) == {0.0, 1.0}


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_balanced_gives_every_group_its_share_of_the_rows(name: str) -> None:
    balanced = Balanced(policy=POLICIES[name](), groups=GROUPS, num_groups=4)
    for made in (balanced, Mixed(policy=balanced, uniform=0.2)):
        totals = np.bincount(GROUPS, np.asarray(made(SCORES)))
        np.testing.assert_allclose(totals, [60 / 120, 40 / 120, 0, 20 / 120], rtol=TOLERANCE)


def test_balanced_keeps_the_ratios_within_a_group() -> None:
    balanced = Balanced(policy=policies.Proportional(), groups=GROUPS, num_groups=4)(SCORES)
    wide = np.asarray(SCORES, np.float64)
    for group, share in ((0, 1 / 2), (1, 1 / 3), (3, 1 / 6)):
        mine = group == GROUPS
        expected = share * wide[mine] / wide[mine].sum()
        np.testing.assert_allclose(balanced[mine], expected, rtol=TOLERANCE)


def test_balanced_leaves_uniform_weights_alone() -> None:
    balanced = Balanced(policy=policies.Uniform(), groups=GROUPS, num_groups=4)(SCORES)
    np.testing.assert_allclose(balanced, np.full(120, 1 / 120), rtol=TOLERANCE)


def test_balanced_counts_the_rows_that_are_there() -> None:
    scores = jnp.array([1.0, 3.0, 5.0, jnp.nan, 2.0, 9.0])
    where = jnp.array([True, True, True, True, True, False])
    groups = np.array([0, 0, 1, 1, 1, 0])
    policy = Balanced(policy=policies.Proportional(), groups=groups, num_groups=2)
    balanced = policy(scores, where=where)
    expected = [1 / 4 / 2, 3 / 4 / 2, 5 / 7 / 2, 0, 2 / 7 / 2, 0]  # two rows of each group
    np.testing.assert_allclose(balanced, expected, rtol=TOLERANCE)


def test_balanced_is_uniform_in_a_group_that_a_policy_drops() -> None:
    scores = jnp.array([1.0, 2.0, 8.0, 9.0])
    groups = np.array([0, 0, 1, 1])
    balanced = Balanced(policy=policies.Keep(fraction=0.25), groups=groups, num_groups=2)(scores)
    np.testing.assert_allclose(balanced, [1 / 2, 0, 1 / 4, 1 / 4], rtol=TOLERANCE)


@pytest.mark.parametrize("uniform", [0.0, 0.1, 1.0])
def test_mixed_is_the_formula_and_bounds_from_below(uniform: float) -> None:
    keep = policies.Keep(fraction=0.5)
    mixed = Mixed(policy=keep, uniform=uniform)(SCORES)
    expected = (1 - uniform) * np.asarray(keep(SCORES), np.float64) + uniform / 120
    np.testing.assert_allclose(mixed, expected, rtol=TOLERANCE)
    assert float(mixed.min()) == pytest.approx(uniform / 120, rel=TOLERANCE)
