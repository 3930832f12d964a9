"""What sets the two modifiers apart; the contract they share with policies is in test_weighting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.importance import POLICIES, modifiers, weighting

# sums of some hundred float32 numbers that add up to 1
TOLERANCE = 1e-5
SCORES = jnp.exp(jax.random.normal(jax.random.key(3), (120,)))
# 60, 40 and 20 rows; no row is in group 2 of 4
GROUPS = np.repeat([0, 1, 3], [60, 40, 20])


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_balanced_gives_every_group_its_share_of_the_rows(name: str) -> None:
    weights = POLICIES[name](SCORES)
    balanced = np.asarray(modifiers.balanced(weights, GROUPS, num_groups=4, scores=SCORES))
    mixed = np.asarray(modifiers.mixed(balanced, uniform=0.2, scores=SCORES))
    for made in (balanced, mixed):
        totals = np.bincount(GROUPS, made)
        np.testing.assert_allclose(totals, [60 / 120, 40 / 120, 0, 20 / 120], rtol=TOLERANCE)


def test_balanced_keeps_the_ratios_within_a_group() -> None:
    weights = weighting.proportional(SCORES)
    balanced = modifiers.balanced(weights, GROUPS, num_groups=4, scores=SCORES)
    wide = np.asarray(SCORES, np.float64)
    for group, share in ((0, 1 / 2), (1, 1 / 3), (3, 1 / 6)):
        mine = group == GROUPS
        expected = share * wide[mine] / wide[mine].sum()
        np.testing.assert_allclose(balanced[mine], expected, rtol=TOLERANCE)


def test_balanced_leaves_uniform_weights_alone() -> None:
    balanced = modifiers.balanced(weighting.uniform(SCORES), GROUPS, num_groups=4, scores=SCORES)
    np.testing.assert_allclose(balanced, np.full(120, 1 / 120), rtol=TOLERANCE)


def test_balanced_counts_the_rows_that_are_there() -> None:
    scores = jnp.array([1.0, 3.0, 5.0, jnp.nan, 2.0, 9.0])
    where = jnp.array([True, True, True, True, True, False])
    weights = weighting.proportional(scores, where=where)
    balanced = modifiers.balanced(
        weights, jnp.array([0, 0, 1, 1, 1, 0]), num_groups=2, scores=scores, where=where
    )
    expected = [1 / 4 / 2, 3 / 4 / 2, 5 / 7 / 2, 0, 2 / 7 / 2, 0]  # two rows of each group
    np.testing.assert_allclose(balanced, expected, rtol=TOLERANCE)


def test_balanced_is_uniform_in_a_group_that_a_policy_drops() -> None:
    scores = jnp.array([1.0, 2.0, 8.0, 9.0])
    weights = weighting.keep(scores, fraction=0.25)
    balanced = modifiers.balanced(weights, jnp.array([0, 0, 1, 1]), num_groups=2, scores=scores)
    np.testing.assert_allclose(balanced, [1 / 2, 0, 1 / 4, 1 / 4], rtol=TOLERANCE)


@pytest.mark.parametrize("uniform", [0.0, 0.1, 1.0])
def test_mixed_is_the_formula_and_bounds_from_below(uniform: float) -> None:
    weights = weighting.keep(SCORES, fraction=0.5)
    mixed = modifiers.mixed(weights, uniform=uniform, scores=SCORES)
    expected = (1 - uniform) * np.asarray(weights, np.float64) + uniform / 120
    np.testing.assert_allclose(mixed, expected, rtol=TOLERANCE)
    assert float(mixed.min()) == pytest.approx(uniform / 120, rel=TOLERANCE)
