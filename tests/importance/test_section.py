"""The section makes policies and weights from its fields."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest

from sie_jax import importance
from sie_jax.errors import UserError
from sie_jax.importance import POLICIES, policies
from sie_jax.importance.choosing import CANDIDATES, UNIFORM, Candidate
from sie_jax.importance.modifiers import Mixed
from sie_jax.importance.section import ImportanceConfig

OPTIONS: dict[str, Any] = {
    "power": -0.3,
    "keep_fraction": 0.7,
    "drop_hardest": 0.2,
    "drop_easiest": 0.05,
    "mix_uniform": 0.1,
}
# the options that each policy takes from the section; the others take none
OF_POLICY: dict[str, policies.NamedPolicy] = {
    "tempered": policies.Tempered(power=-0.3),
    "keep": policies.Keep(fraction=0.7),
    "keep_hardest": policies.KeepHardest(fraction=0.7),
    "banded": policies.Banded(drop_hardest=0.2, drop_easiest=0.05),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_has_the_options_of_the_section(name: str) -> None:
    section = ImportanceConfig(**OPTIONS)
    expected = Mixed(policy=OF_POLICY.get(name, POLICIES[name]()), uniform=0.1)
    assert section.policy_named(name) == expected
    assert hash(section.policy_named(name)) == hash(ImportanceConfig(**OPTIONS).policy_named(name))


@pytest.mark.parametrize("name", POLICIES)
def test_without_options_a_policy_is_its_own_default(name: str) -> None:
    made = ImportanceConfig().policy_named(name)
    assert made == Mixed(policy=POLICIES[name](), uniform=0.0)


@pytest.mark.parametrize("name", POLICIES)
def test_only_what_makes_the_weights_of_a_policy_is_kept(name: str) -> None:
    section = ImportanceConfig(**OPTIONS, score="el2n", balance="query", warmup_epochs=3)
    kept = section.only(name)
    assert kept.policy_named(name) == section.policy_named(name)
    assert (kept.policy, kept.score, kept.balance) == (name, "el2n", "query")
    assert kept.warmup_epochs == 1
    if name == "clipped":  # it has no options: those of others are none of its settings
        made = ImportanceConfig(score="el2n", balance="query", mix_uniform=0.1)
        assert kept == made


CHOSEN = [*CANDIDATES, UNIFORM, Candidate("margin", policies.KeepHardest(fraction=0.4))]


@pytest.mark.parametrize("candidate", CHOSEN, ids=lambda one: one.name)
def test_a_candidate_stands_in_the_section(candidate: Candidate) -> None:
    section = ImportanceConfig(policy="auto", mix_uniform=0.1)
    chosen = section.with_candidate(candidate)
    assert (chosen.score, chosen.policy) == (candidate.score, candidate.policy.name)
    assert chosen.policy_named(chosen.policy) == Mixed(policy=candidate.policy, uniform=0.1)
    assert section == ImportanceConfig(policy="auto", mix_uniform=0.1), "it is not changed"


def test_a_candidate_changes_its_strength_and_no_other_option() -> None:
    section = ImportanceConfig(**OPTIONS, score="el2n")
    chosen = section.with_candidate(Candidate("oracle", policies.Banded(drop_hardest=0.3)))
    expected = dataclasses.replace(section, policy="banded", drop_hardest=0.3)
    assert chosen == expected, "oracle is not an estimator: the score stays"


@pytest.mark.parametrize(("balance", "column"), [("class", "label"), ("query", "query_id")])
def test_weights_are_the_policys_and_balanced_where_asked_for(balance: str, column: str) -> None:
    generator = np.random.default_rng(0)
    margins = generator.uniform(-1, 1, 60)
    pairs = pa.table(
        {
            "label": pa.array(generator.choice(3, 60), pa.int32()),
            "query_id": [f"q{i}" for i in generator.choice(7, 60)],
        }
    )
    section = ImportanceConfig(score="margin", mix_uniform=0.2)
    plain = section.weights(margins, pairs, "proportional")
    hardness = importance.hardness("margin", jnp.asarray(margins, jnp.float32))
    expected = 0.8 * hardness / hardness.sum() + 0.2 / 60
    np.testing.assert_allclose(plain, expected, rtol=1e-5)  # sums of 60 float32 numbers
    balanced = dataclasses.replace(section, balance=balance)
    found = balanced.weights(margins, pairs, "proportional")
    _, group, count = np.unique(pairs[column].to_numpy(), return_inverse=True, return_counts=True)
    np.testing.assert_allclose(np.bincount(group, found), count / 60, rtol=1e-5)
    assert np.abs(np.bincount(group, plain) - count / 60).max() > 1e-3


def test_a_query_has_one_weight_where_that_is_asked_for() -> None:
    pairs = pa.table(
        {"label": pa.array([0, 1, 0, 1], pa.int32()), "query_id": ["b", "a", "b", "a"]}
    )
    section = ImportanceConfig(score="loss", level="query")
    found = section.weights(np.array([1.0, 5.0, 3.0, 7.0]), pairs, "proportional")
    np.testing.assert_allclose(found, np.array([2, 6, 2, 6]) / 16, rtol=1e-6)
    assert section.only("proportional").level == "query"


def test_groups_are_those_of_the_score_that_looks_at_them() -> None:
    section = ImportanceConfig(score="doubtful_groups", policy="believed", seller="brand")
    section.check()
    assert section.groups == ("", "brand")
    section.check_groups(["brand", "colour"])
    with pytest.raises(UserError, match=r"^importance\.seller is 'brand', .* attributes colour:"):
        section.check_groups(["colour"])
    with pytest.raises(UserError, match=r"no attributes: .*--config\.data\.table\.attributes"):
        section.check_groups([])
    with pytest.raises(UserError, match=r"policy clipped .* weighs all alike: .*policy=believed$"):
        ImportanceConfig(score="doubtful_groups").check()
    with pytest.raises(UserError, match=r"policy inverse of importance\.compare .*: leave it out$"):
        dataclasses.replace(section, compare=("keep", "inverse")).check()
    beside = ImportanceConfig(estimators=("doubtful_groups",), seller="brand")
    beside.check()
    assert beside.groups == ("", "brand"), "a further score looks at them too"
    with pytest.raises(UserError, match=r"^importance\.annotator is 'who', .* grad_norm does not"):
        ImportanceConfig(annotator="who").check()
    assert ImportanceConfig().groups == ("", "")
