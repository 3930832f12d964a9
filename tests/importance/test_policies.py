"""One contract over every policy, as it is and modified, then what sets each apart."""

import copy
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.importance import POLICIES, modifiers, policies
from sie_jax.importance.policies import NamedPolicy

# sums of at most a thousand float32 numbers that add up to 1
TOLERANCE = 1e-5
CASES: list[tuple[NamedPolicy, bool]] = [
    *((POLICIES[name](), modified) for name in sorted(POLICIES) for modified in (False, True)),
    *((policies.Tempered(power=power), False) for power in (-1.5, 0.0, 3.0)),
]
Case = Callable[..., jax.Array]


@pytest.fixture(params=CASES, ids=str)
def policy(request: pytest.FixtureRequest) -> Case:
    """A policy of (scores, where, rows); if modified, by all modifiers, over groups of rows."""
    plain, modified = request.param

    def weights(
        scores: jax.Array, *, where: jax.Array | None = None, rows: jax.Array | None = None
    ) -> jax.Array:
        made = plain
        if modified:
            rows = jnp.arange(len(scores)) if rows is None else rows
            made = modifiers.Together(policy=made, groups=rows // 3 % 5, num_groups=5)
            made = modifiers.Balanced(policy=made, groups=rows // 7 % 4, num_groups=4)
            made = modifiers.Mixed(policy=made, uniform=0.3)
        return made(scores, where=where)

    return weights


@pytest.fixture
def scores() -> jax.Array:
    return jnp.exp(jax.random.normal(jax.random.key(1), (101,)))


def test_sums_to_one_and_is_finite(policy: Case, scores: jax.Array) -> None:
    for scale in (1e-30, 1.0, 1e37):
        weights = policy(scores * scale)
        assert jnp.isfinite(weights).all()
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1.0, abs=TOLERANCE)


def test_padding_is_exactly_zero_and_has_no_say(policy: Case, scores: jax.Array) -> None:
    where = jnp.arange(101) % 3 != 0
    for filler in (0.0, 1e9, jnp.nan, jnp.inf):
        weights = policy(jnp.where(where, scores, filler), where=where)
        assert (weights[~where] == 0).all()
        alone = policy(scores[where], rows=jnp.flatnonzero(where))
        np.testing.assert_allclose(weights[where], alone, rtol=TOLERANCE)


@pytest.mark.parametrize("value", [0.0, 1e-38, 1.0, 3e38])
def test_uniform_where_all_scores_are_equal(policy: Case, value: float) -> None:
    where = jnp.arange(10) < 8
    weights = policy(jnp.full(10, value), where=where)
    np.testing.assert_allclose(weights, jnp.where(where, 1 / 8, 0.0), rtol=TOLERANCE)


def test_permutation_equivariant(policy: Case, scores: jax.Array) -> None:
    order = jax.random.permutation(jax.random.key(2), len(scores))
    reordered = policy(scores[order], rows=order)
    np.testing.assert_allclose(reordered, policy(scores)[order], rtol=TOLERANCE)


def test_a_broken_score_gets_no_weight(policy: Case, scores: jax.Array) -> None:
    for broken in (jnp.nan, jnp.inf):
        weights = policy(scores.at[5].set(broken))
        assert weights[5] == 0
        others = policy(jnp.delete(scores, 5), rows=jnp.delete(jnp.arange(101), 5))
        np.testing.assert_allclose(jnp.delete(weights, 5), others, rtol=TOLERANCE)


def test_all_scores_broken_is_uniform(policy: Case) -> None:
    np.testing.assert_allclose(policy(jnp.full(4, jnp.nan)), jnp.full(4, 0.25), rtol=TOLERANCE)


def test_nothing_inside_is_all_zero(policy: Case) -> None:
    assert (policy(jnp.ones(4), where=jnp.zeros(4, bool)) == 0).all()


def test_the_same_inside_jit(policy: Case, scores: jax.Array) -> None:
    np.testing.assert_allclose(jax.jit(policy)(scores), policy(scores), rtol=TOLERANCE)


def test_bfloat16_scores_are_summed_in_float32(policy: Case) -> None:
    weights = policy(jnp.ones(1000, jnp.bfloat16))
    assert weights.dtype == jnp.float32
    assert weights.sum() == pytest.approx(1.0, abs=TOLERANCE)


def test_proportional_is_the_textbook_formula(scores: jax.Array) -> None:
    wide = np.asarray(scores, np.float64)
    np.testing.assert_allclose(policies.Proportional()(scores), wide / wide.sum(), rtol=TOLERANCE)


def test_clipped_is_the_formula_with_the_median(scores: jax.Array) -> None:
    wide = np.asarray(scores, np.float64)
    values = np.minimum(1.0, np.median(wide) / wide)
    expected = values / values.sum()
    np.testing.assert_allclose(policies.Clipped()(scores), expected, rtol=TOLERANCE)


def test_clipped_bounds_every_pull_by_the_median_one(scores: jax.Array) -> None:
    pull = policies.Clipped()(scores) * scores
    at_median = pull[jnp.argsort(scores)[50]]
    assert (pull <= at_median * (1 + TOLERANCE)).all()


def test_clipped_gives_zero_gradients_the_full_weight() -> None:
    weights = policies.Clipped()(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(weights, np.array([1, 1, 0.5]) / 2.5, rtol=TOLERANCE)


def test_inverse_is_the_formula_with_the_median(scores: jax.Array) -> None:
    wide = np.asarray(scores, np.float64)
    values = 1 / (1 + wide / np.median(wide))
    np.testing.assert_allclose(policies.Inverse()(scores), values / values.sum(), rtol=TOLERANCE)


def test_tempered_is_a_power_of_the_scores(scores: jax.Array) -> None:
    wide = np.asarray(scores, np.float64)
    for power in (-2.0, -0.5, 0.3, 2.0):
        values = wide**power
        weights = policies.Tempered(power=power)(scores)
        np.testing.assert_allclose(weights, values / values.sum(), rtol=TOLERANCE)
    root = np.sqrt(wide)
    np.testing.assert_allclose(policies.Tempered()(scores), root / root.sum(), rtol=TOLERANCE)


def test_tempered_lies_between_uniform_and_proportional(scores: jax.Array) -> None:
    for power, other in ((0.0, policies.Uniform()), (1.0, policies.Proportional())):
        weights = policies.Tempered(power=power)(scores)
        np.testing.assert_allclose(weights, other(scores), rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("power", "values"),
    [(2.0, [0, 4, 16]), (0.0, [1, 1, 1]), (-1.0, [1 / 2, 1 / 2, 1 / 4]), (-300.0, [1, 1, 0])],
)
def test_tempered_scores_of_zero(power: float, values: list[float]) -> None:
    weights = policies.Tempered(power=power)(jnp.array([0.0, 2.0, 4.0]))
    np.testing.assert_allclose(weights, np.array(values) / sum(values), rtol=TOLERANCE)


def test_ranked_is_linear_in_the_rank(scores: jax.Array) -> None:
    expected = np.empty(101)
    expected[np.argsort(np.asarray(scores))] = np.arange(1, 102) / (101 * 102 / 2)
    np.testing.assert_allclose(policies.Ranked()(scores), expected, rtol=TOLERANCE)
    np.testing.assert_allclose(policies.Ranked()(scores**5), expected, rtol=TOLERANCE)


def test_ranked_ties_share_the_mean_rank() -> None:
    weights = policies.Ranked()(jnp.array([7.0, 0.0, 3.0, 7.0, 7.0]))
    np.testing.assert_allclose(weights, np.array([4, 1, 2, 4, 4]) / 15, rtol=TOLERANCE)


def test_keep_hardest_takes_the_highest_share(scores: jax.Array) -> None:
    order = np.argsort(-np.asarray(scores))
    for fraction, count in ((0.8, 81), (0.3, 30), (1.0, 101), (1e-9, 1)):  # 80.8, 30.3
        expected = np.zeros(101)
        expected[order[:count]] = 1 / count
        weights = policies.KeepHardest(fraction=fraction)(scores)
        np.testing.assert_allclose(weights, expected, rtol=TOLERANCE)


def test_keep_takes_the_lowest_share(scores: jax.Array) -> None:
    order = np.argsort(np.asarray(scores))
    for fraction, count in ((0.8, 81), (0.5, 51), (1.0, 101), (1e-9, 1)):  # 80.8, 50.5 → 101 - 50
        expected = np.zeros(101)
        expected[order[:count]] = 1 / count
        weights = policies.Keep(fraction=fraction)(scores)
        np.testing.assert_allclose(weights, expected, rtol=TOLERANCE)


def test_banded_drops_both_ends(scores: jax.Array) -> None:
    order = np.argsort(np.asarray(scores))
    expected = np.zeros(101)
    expected[order[10:81]] = 1 / 71
    weights = policies.Banded(drop_hardest=0.2, drop_easiest=0.1)(scores)
    np.testing.assert_allclose(weights, expected, rtol=TOLERANCE)


def test_banded_keeps_what_ties_with_a_bound() -> None:
    scores = jnp.array([0.0, 1.0, 1.0, 1.0, 5.0])
    weights = policies.Banded(drop_hardest=0.4, drop_easiest=0.4)(scores)
    np.testing.assert_allclose(weights, np.array([0, 1, 1, 1, 0]) / 3, rtol=TOLERANCE)


def test_believed_is_one_less_the_chance() -> None:
    found = policies.Believed()(jnp.array([0.0, 0.25, 1.0, 3.0]))
    np.testing.assert_allclose(found, np.array([4, 3, 0, 0]) / 7, rtol=1e-6)
    np.testing.assert_allclose(policies.Believed()(jnp.ones(4)), np.full(4, 0.25), rtol=1e-6)


def test_clipped_is_uniform_where_the_median_is_zero() -> None:
    np.testing.assert_allclose(policies.Clipped()(jnp.array([0.0, 0.0, 5.0])), jnp.full(3, 1 / 3))


@pytest.mark.parametrize("name", POLICIES)
def test_policies_are_named_and_have_a_strength_that_changes_the_weights(name: str) -> None:
    kind, scores = POLICIES[name], jnp.arange(1.0, 21.0)
    assert kind.name == name
    assert kind.of_strength(None) == kind()
    if not kind.varied:
        assert kind().strength is None
        assert not dataclasses.fields(kind)
        return
    weak, strong = kind.of_strength(0.2), kind.of_strength(0.7)
    assert (weak.strength, strong.strength) == (0.2, 0.7)
    assert getattr(strong, kind.varied) == 0.7
    assert bool((weak(scores) != strong(scores)).any())


def test_equal_policies_are_one_key_and_others_are_not() -> None:
    @functools.cache
    def compiled(policy: policies.Policy) -> object:
        return object()

    made = [POLICIES[name]() for name in POLICIES]
    made += [modifiers.Mixed(policy=policy, uniform=0.1) for policy in made]
    made += [policies.Keep(fraction=0.7), modifiers.Mixed(policy=policies.Keep(), uniform=0.2)]
    again = [copy.deepcopy(policy) for policy in made]
    assert [compiled(policy) for policy in again] == [compiled(policy) for policy in made]
    assert len({compiled(policy) for policy in made}) == len(made)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made[-2].fraction = 0.9
