"""Choices find what there is to be found, and nothing where there is nothing."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.evaluation import intervals
from sie_jax.importance import POLICIES, SCORES, choosing, planning
from sie_jax.importance.choosing import CANDIDATES, UNIFORM, Candidate
from sie_jax.importance.planning import Costs
from sie_jax.importance.policies import Clipped, Keep, Uniform

COSTS = Costs(training=9, scoring=5)
QUERIES, SPREAD = 40, 0.1


def interval(differences: np.ndarray) -> dict[str, float | None]:
    return intervals.of_mean(differences, resamples=300, seed=0)


def made(candidates: int = len(CANDIDATES), folds: int = 5, budget: float = 4) -> planning.Plan:
    return planning.plan(candidates, rows=[100] * folds, costs=COSTS, budget=budget)


def on_two_folds_each() -> planning.Plan:
    """A plan of three rounds, each on all rows."""
    rounds = (((0, 1), 7), ((0, 1), 3), ((2, 3), 1))
    return made(folds=4)._replace(
        rounds=tuple(planning.Round(*each, 1.0) for each in rounds), budget=20
    )


# ------------------------------------------------------------------------------------ candidates


@pytest.mark.parametrize("candidate", [UNIFORM, *CANDIDATES], ids=lambda one: one.name)
def test_a_candidate_is_a_score_and_a_policy_with_its_strength(candidate: Candidate) -> None:
    assert candidate.score in SCORES
    scores = jnp.arange(1.0, 21.0)
    weights = candidate.policy(scores)
    assert bool((weights == weights[0]).all()) == (candidate == UNIFORM)


def test_names_tell_candidates_apart() -> None:
    assert Candidate("el2n", Keep(fraction=0.8)).name == "el2n keep 0.8"
    assert Candidate("grad_norm", Clipped()).name == "grad_norm clipped"
    assert Candidate("loss", Uniform()).name == UNIFORM.name == "uniform"
    assert len({one.name for one in (UNIFORM, *CANDIDATES)}) == 1 + len(CANDIDATES)


@pytest.mark.parametrize("name", POLICIES)
def test_a_candidate_is_read_back_from_json(name: str) -> None:
    kind = POLICIES[name]
    candidate = Candidate("loss", kind.of_strength(0.3 if kind.varied else None))
    stored = json.loads(json.dumps(candidate.as_json()))
    assert list(stored) == ["name", "score", "policy", "strength"]
    assert Candidate.from_json(stored) == candidate


# ---------------------------------------------------------------------------------------- choose


def measured(gains: dict[str, float], seed: int = 0):
    """A measure of noise for every query and run, plus each candidate's gain by name."""

    def measure(candidate: Candidate, fold: int, share: float) -> np.ndarray:
        place = (UNIFORM, *CANDIDATES).index(candidate)
        noise = np.random.default_rng([seed, place, fold, int(share * 1e6)])
        difficulty = np.random.default_rng([seed, fold]).random(QUERIES)
        return difficulty + gains.get(candidate.name, 0) + SPREAD * noise.normal(size=QUERIES)

    return measure


def test_the_choice_equals_one_made_by_hand() -> None:
    gains = {"el2n keep 0.8": 0.5, "loss inverse": 0.4, "margin keep 0.6": 0.3}
    plan = on_two_folds_each()
    measure, calls = measured(gains), []

    def counted(*key):
        calls.append(key)
        return measure(*key)

    choice = choosing.choose(CANDIDATES, counted, plan, interval=interval)
    first = [(one, fold, 1.0) for fold in (0, 1) for one in (UNIFORM, *CANDIDATES)]
    # the second round would measure the same again, so it calls for nothing
    last = [(one, fold, 1.0) for fold in (2, 3) for one in (UNIFORM, CANDIDATES[1])]
    assert calls == first + last
    differences = np.concatenate(
        [measure(CANDIDATES[1], fold, 1.0) - measure(UNIFORM, fold, 1.0) for fold in (2, 3)]
    )
    assert choice.chosen == choice.contender == CANDIDATES[1]
    assert choice.interval == interval(differences)
    assert [row["outcome"] for row in choice.comparison] == [
        *("reference", "dropped", "kept", "kept", "kept", "dropped", "dropped", "dropped"),
        *("reference", "kept", "dropped", "dropped"),
        *("dropped", "chosen"),
    ]
    row = choice.comparison[-1]
    assert (row["round"], row["share"], row["candidate"]) == (3, 1.0, "el2n keep 0.8")
    assert row["queries"] == 2 * QUERIES
    assert row["difference"] == pytest.approx(differences.mean())
    own = np.concatenate([measure(CANDIDATES[1], fold, 1.0) for fold in (2, 3)])
    assert row["mean"] == pytest.approx(own.mean())
    assert [part["fold"] for part in row["folds"]] == [2, 3]
    assert row["folds"][1]["difference"] == pytest.approx(differences[QUERIES:].mean())
    again = sum(4 * plan.run_cost(fold, 1.0) + plan.scoring_cost(fold, 1.0) for fold in (0, 1))
    assert choice.cost["spent"] == pytest.approx(choice.cost["planned"] - again)
    assert choosing.choose(CANDIDATES, measure, plan, interval=interval) == choice


def test_all_of_a_tight_budget_is_spent_and_everything_is_json() -> None:
    choice = choosing.choose(CANDIDATES, measured({}), made(), interval=interval)
    assert choice.cost == pytest.approx({"budget": 4, "planned": 4, "spent": 4})
    text = choice.as_json()
    assert json.loads(json.dumps(text, allow_nan=False)) == text
    assert text["chosen"] == {
        "name": "uniform", "score": "grad_norm", "policy": "uniform", "strength": None
    }  # fmt: skip
    assert text["contender"]["name"] == choice.comparison[-1]["candidate"]


def test_ties_stand_in_the_order_given_and_leave_uniform_in_place() -> None:
    choice = choosing.choose(
        CANDIDATES, lambda candidate, fold, share: np.full(9, 0.5), made(), interval=interval
    )
    assert choice.contender == CANDIDATES[0]
    assert choice.interval == {"value": 0, "low": 0, "high": 0}
    assert choice.chosen == UNIFORM


def test_queries_without_a_value_and_runs_that_diverge() -> None:
    measure, best = measured({CANDIDATES[2].name: 9.0, CANDIDATES[4].name: 1.0}), CANDIDATES[2]

    def with_gaps(candidate: Candidate, fold: int, share: float) -> np.ndarray:
        values = measure(candidate, fold, share)
        values[:5] = np.nan
        return values * np.nan if candidate == best and fold == 1 else values

    choice = choosing.choose(CANDIDATES, with_gaps, on_two_folds_each(), interval=interval)
    rows = {(row["round"], row["candidate"]): row for row in choice.comparison}
    lost = rows[1, best.name]
    assert (lost["queries"], lost["mean"], lost["outcome"]) == (0, None, "undefined")
    assert lost["folds"][0]["difference"] == pytest.approx(9, abs=0.2)  # 5 · SPREAD sqrt(2/35)
    assert rows[1, "uniform"]["queries"] == 2 * (QUERIES - 5)
    assert choice.chosen == CANDIDATES[4]

    def lost_all(candidate: Candidate, fold: int, share: float) -> np.ndarray:
        return np.full(9, 0.5 if candidate == UNIFORM else np.nan)

    nothing = choosing.choose(CANDIDATES, lost_all, made(), interval=interval)
    assert (nothing.chosen, nothing.contender) == (UNIFORM, None)
    assert nothing.interval == {"value": None, "low": None, "high": None}
    assert nothing.cost["spent"] < nothing.cost["planned"]
    assert {row["round"] for row in nothing.comparison} == {1}


def test_one_query_decides_nothing() -> None:
    def measure(candidate: Candidate, fold: int, share: float) -> np.ndarray:
        return np.array([0.0 if candidate == UNIFORM else 1.0, np.nan])

    plan = made()
    last = plan.rounds[-1]._replace(folds=(4,))
    choice = choosing.choose(
        CANDIDATES, measure, plan._replace(rounds=(*plan.rounds[:-1], last)), interval=interval
    )
    assert choice.interval == {"value": 1, "low": None, "high": None}
    assert choice.chosen == UNIFORM


def test_outlying_sellers_are_left_out_without_a_trial() -> None:
    choice = choosing.without_trial(0.2, budget=5.0)
    assert choice.chosen.name == "doubtful_groups believed"
    assert Candidate.from_json(choice.as_json()["chosen"]) == choosing.GROUPS
    assert (choice.comparison, choice.cost["spent"], choice.outlying) == ([], 0.0, 0.2)
    json.dumps(choice.as_json(), allow_nan=False)


def test_what_cannot_be_compared() -> None:
    choose = functools.partial(choosing.choose, interval=interval)
    with pytest.raises(ValueError, match="there are 2 candidates, the plan is for 7"):
        choose(CANDIDATES[:2], measured({}), made())
    for other in (CANDIDATES[0], Candidate("loss", Uniform())):
        with pytest.raises(ValueError, match="two have one name: name each once"):
            choose([CANDIDATES[0], other], measured({}), made(2))

    def measure(shown: np.ndarray):
        return lambda candidate, *_: np.zeros(2) if candidate == UNIFORM else shown

    with pytest.raises(ValueError, match=r"grad_norm clipped, fold 0: values have shape \(3,\)"):
        choose(CANDIDATES, measure(np.zeros(3)), made())
    with pytest.raises(ValueError, match="grad_norm clipped, fold 0: other queries are NaN"):
        choose(CANDIDATES, measure(np.array([0, np.nan])), made())


# ----------------------------------------------------------------------------- what it is good for


def rate(gains: dict[str, float], worlds: int, picked) -> float:
    plan = made()
    return float(
        np.mean(
            [
                picked(choosing.choose(CANDIDATES, measured(gains, i), plan, interval=interval))
                for i in range(worlds)
            ]
        )
    )


def test_where_nothing_helps_uniform_is_left_as_rarely_as_the_level_says() -> None:
    # The lower end of a 95 % bootstrap interval of 80 differences is above 0 in
    # P(t_79 > sqrt(79/80) · 1.96) = 2.8 % of the worlds; of 400 worlds that share has standard
    # deviation sqrt(0.028 · 0.972 / 400) = 0.8 %, three of which make 5.3 %.
    worlds = 400
    left = rate({}, worlds, lambda choice: choice.chosen != UNIFORM)
    assert left <= 0.053

    # The same rule on the queries by which the best of the seven was picked. Seven differences from
    # one uniform run share half of their variance: the largest is beyond the bound in 12 % of the
    # worlds (seven normals of correlation 1/2), with standard deviation 1.6 %.
    def cursed(seed: int) -> bool:
        measure = measured({}, seed)
        differences = [measure(one, 0, 1.0) - measure(UNIFORM, 0, 1.0) for one in CANDIDATES]
        low = interval(max(differences, key=np.mean))["low"]
        return low is not None and low > 0

    assert np.mean([cursed(seed) for seed in range(worlds)]) >= 0.07


def test_a_true_gain_is_found() -> None:
    # Of 40 differences the mean has standard deviation SPREAD · sqrt(2/40) = 0.022, so a gain of
    # 0.15 is seven of them: it is missed with a probability below 1e-5 in any round.
    gain = {CANDIDATES[3].name: 0.15}
    assert rate(gain, 30, lambda choice: choice.chosen == CANDIDATES[3]) == 1
    # and a loss is never taken
    losses = {candidate.name: -0.15 for candidate in CANDIDATES}
    assert rate(losses, 30, lambda choice: choice.chosen == UNIFORM) == 1


def test_the_oracle_is_picked_where_two_labels_in_five_are_wrong() -> None:
    """Least squares on noisy labels, judged by noisy labels: one candidate knows the wrong ones.

    The others draw 60 % of the labels by chance. An opinion that is right on a share a of the true
    labels agrees with 0.6 a + 0.4 (1 - a) of the noisy ones, so that a fifth of every gain is seen.
    Without the wrong labels a rises by about 0.2 (100 weights, 600 labels in the first round, some
    10,000 in the last), of which 0.04 is seen. Two opinions differ on at most 0.4 of the 4,000
    held-out items or more, so the mean difference has a standard deviation of sqrt(0.4 / 4000) =
    0.01 or less: a quarter of that.
    """
    generator = np.random.default_rng(0)
    features = generator.normal(size=(5, 400, 10, 100))
    truth = np.sign(features @ generator.normal(size=100))
    wrong = generator.random(truth.shape) < 0.4
    labels = np.where(wrong, -truth, truth)
    rows = [100] * 5
    plan = planning.plan(7, rows=rows, costs=COSTS, budget=4, least_share=600 / 8000)

    def measure(candidate: Candidate, fold: int, share: float) -> np.ndarray:
        rows = list(plan.trained_on(fold))
        count = int(share * truth[rows].size)
        x, y, bad = (a[rows].reshape(-1, *a.shape[3:])[:count] for a in (features, labels, wrong))
        if candidate == CANDIDATES[5]:
            weights = 1.0 * ~bad
        elif candidate == UNIFORM:
            weights = np.ones(count)
        else:
            seed = CANDIDATES.index(candidate)
            weights = 1.0 * (np.random.default_rng(seed).random(count) < 0.6)
        gram = x.T @ (weights[:, None] * x) + 10 * np.eye(100)
        found = np.linalg.solve(gram, x.T @ (weights * y))
        return (np.sign(features[fold] @ found) == labels[fold]).mean(1)

    choice = choosing.choose(CANDIDATES, measure, plan, interval=interval)
    assert choice.chosen == CANDIDATES[5]
