import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import importance
from sie_jax.importance import ESTIMATORS, NEEDS, registry


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_says_what_it_needs_and_turns_to_hardness(name, array) -> None:
    estimator = ESTIMATORS[name]
    high, most = estimator.high, estimator.most
    assert estimator.needs in NEEDS
    assert high in ("hard", "easy", "helpful", "useful")
    assert high == "hard" or not name.endswith("_self"), "self-influence is high for the hard"
    least, greatest = (0.0, 3.0) if high == "hard" else (-1.0, 2.0 if most is None else most)
    values = np.random.default_rng(0).permutation(np.linspace(least, greatest, 9, dtype=np.float32))
    hardness = importance.hardness(name, array(values))
    assert isinstance(hardness, type(array(values)))
    assert hardness.dtype == np.float32
    # the steps between the values are far beyond rounding, so that the order is whole
    sign = 1 if high == "hard" else -1
    np.testing.assert_array_equal(np.argsort(hardness), np.argsort(sign * values))
    assert hardness.min() == 0, "which the easiest, or the most useful, example has"


@pytest.mark.parametrize("needs", NEEDS)
def test_needing_names_the_estimators_of_a_need(needs: str) -> None:
    found = importance.needing(ESTIMATORS, needs)
    assert found
    assert {ESTIMATORS[name].needs for name in found} == {needs}
    others = [one for one in NEEDS if one != needs]
    assert sorted([*found, *importance.needing(ESTIMATORS, *others)]) == sorted(ESTIMATORS)


def test_the_scores_of_one_batch_need_no_more_than_one_pass() -> None:
    assert {ESTIMATORS[name].needs for name in importance.SCORES} == {"outputs", "gradients"}


def test_estimators_of_one_need_are_computed_from_the_same() -> None:
    assert registry.computed("outputs") == importance.OUTPUT_SCORES
    for needs in ("outputs", "history", "reference"):
        assert list(registry.computed(needs)) == importance.needing(ESTIMATORS, needs)
    assert not registry.computed("checkpoints"), "only a pass can"


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("loss", "0"),
        ("grand", "3 C"),
        ("gradient_similarity", "3"),
        ("ekfac", "9"),
        ("reducible_loss", "folds"),
    ],
)
def test_a_cost_is_text_for_a_reader(name: str, cost: str) -> None:
    assert ESTIMATORS[name].cost == cost


def test_a_cost_has_both_parts() -> None:
    both = dataclasses.replace(ESTIMATORS["grand"], once=2)
    assert both.cost == "2 + 3 C"
