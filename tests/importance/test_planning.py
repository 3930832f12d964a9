"""Plans keep to their budget, and spend it."""

import functools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from sie_jax.importance import planning
from sie_jax.importance.planning import Costs
from sie_jax.importance.section import ImportanceConfig

COSTS = Costs(training=9, scoring=5)
MOST = 7


def made(candidates: int = MOST, folds: int = 5, budget: float = 4) -> planning.Plan:
    return planning.plan(candidates, rows=[100] * folds, costs=COSTS, budget=budget)


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(
    candidates=st.integers(1, 20),
    rows=st.lists(st.integers(1, 500), min_size=4, max_size=9),
    epochs=st.integers(1, 20),
    warmup_epochs=st.integers(1, 3),
    budget=st.floats(0.5, 40),
)
# what is enough is 2.3 but for rounding
@hypothesis.example(candidates=10, rows=[1, 1, 1, 1], epochs=1, warmup_epochs=1, budget=1.0)
def test_no_plan_costs_more_than_its_budget(
    candidates: int, rows: list[int], epochs: int, warmup_epochs: int, budget: float
) -> None:
    costs = Costs(training=3 * epochs, scoring=3 * warmup_epochs + 2)
    plan_with = functools.partial(planning.plan, candidates, rows=rows, costs=costs)
    try:
        plan = plan_with(budget=budget)
    except ValueError as error:
        enough = float(str(error).split("raise it to ")[1].split(",")[0])
        assert enough > budget
        plan = plan_with(budget=enough)
        budget = enough
    deciding = plan.rounds[-1].folds
    assert len(deciding) == 2 or (candidates == 1 and len(deciding) > 2)
    passes = 0.0
    for each in plan.rounds:
        last = each is plan.rounds[-1]
        assert set(each.folds) <= set(deciding) if last else not set(each.folds) & set(deciding)
        assert planning.LEAST_SHARE <= each.share <= 1
        for fold in each.folds:
            left_out = {fold} if last else {fold, *deciding}
            trained = sum(count for i, count in enumerate(rows) if i not in left_out)
            assert trained == sum(rows[i] for i in plan.trained_on(fold)) > 0
            # scores are shared by all candidates
            passes += each.share * trained * (3 * warmup_epochs + 2)
            for _ in range(each.candidates + 1):
                passes += each.share * epochs * trained * 3 + rows[fold]
    cost = passes / (3 * epochs * sum(rows))
    # sums of some hundred float64 terms
    assert cost == pytest.approx(plan.cost, rel=1e-12)
    assert cost <= budget * (1 + 1e-12)
    # nothing is left over, unless all train in full
    assert cost == pytest.approx(budget) or all(each.share == 1 for each in plan.rounds)


def test_the_rounds_halve_and_the_last_is_served_first() -> None:
    plan = made()
    assert [each.candidates for each in plan.rounds] == [7, 3, 1]
    assert [each.folds for each in plan.rounds] == [(0,), (0,), (3, 4)]
    assert plan.trained_on(0) == (1, 2)
    assert plan.trained_on(3) == (0, 1, 2, 4)
    # the runs and the scores, 5/9 of one, each on this share of all rows
    full = [(8 + 5 / 9) * 0.4, (4 + 5 / 9) * 0.4, 2 * (2 + 5 / 9) * 0.8]
    predicting = 16 * 0.2 / 9
    # the first round has its least share, and the second, of fewer candidates, costs as much
    least = planning.LEAST_SHARE * full[0]
    costs = [one * each.share for one, each in zip(full, plan.rounds, strict=True)]
    assert costs == pytest.approx([least, least, 4 - predicting - 2 * least])
    # what the last round does not need goes to the others in equal parts
    more = made(budget=6)
    costs = [one * each.share for one, each in zip(full, more.rounds, strict=True)]
    left = 6 - predicting - full[2]
    assert more.rounds[2].share == 1
    assert costs == pytest.approx([left / 2, left / 2, full[2]])
    # and what the second does not need goes to the first
    left = 9 - predicting - full[2] - full[1]
    assert left > full[1]
    shares = [each.share for each in made(budget=9).rounds]
    assert shares == pytest.approx([left / full[0], 1, 1])


def test_a_budget_for_everything_and_one_candidate() -> None:
    everything = made(budget=20)
    assert [(each.folds, each.share) for each in everything.rounds] == [
        ((0,), 1),
        ((0,), 1),
        ((3, 4), 1),
    ]
    assert everything.cost < 20
    only = made(candidates=1, budget=20)
    assert [(each.folds, each.share) for each in only.rounds] == [((0, 1, 2, 3, 4), 1)]
    assert only.trained_on(2) == (0, 1, 3, 4)
    # in full a fold costs 92/45 and 2/45 for predicting: 7 pay for three, and 2 for a part of two
    assert [(each.folds, each.share) for each in made(1, budget=7).rounds] == [((2, 3, 4), 1)]
    (part,) = made(1, budget=2).rounds
    assert part.folds == (3, 4)
    assert part.share == pytest.approx((1 - 2 / 45) / (92 / 45))


@pytest.mark.parametrize(
    ("candidates", "rows", "message"),
    [
        (0, [9, 9, 9], "there are no candidates"),
        (2, [9, 9, 9], "needs at least 4 folds"),
        (1, [9], "needs at least 2 folds"),
        (2, [9, 0, 9, 9], "none of them empty"),
        (
            7,
            [9, 9, 9, 9],
            "a budget of 0.5 full trainings is too small to choose among 7 candidates",
        ),
    ],
)
def test_what_cannot_be_planned(candidates: int, rows: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planning.plan(candidates, rows=rows, costs=COSTS, budget=0.5)


@pytest.mark.parametrize("budget", [2.0, 4.0, 5.0, 9.0])
def test_a_budget_takes_as_many_candidates_as_get_their_share(budget: float) -> None:
    options: dict[str, Any] = {"rows": [100] * 5, "costs": Costs(24, 5), "budget": budget}
    plan = planning.affordable(MOST, **options)
    taken = plan.candidates
    assert plan.cost <= budget * (1 + 1e-12)
    assert 1 <= taken <= MOST
    assert min(each.share for each in plan.rounds) >= planning.FAIR_SHARE
    assert plan.rounds[-1].share >= planning.DECIDING_SHARE or taken == 1
    if taken < MOST:
        more = functools.partial(planning.plan, taken + 1, **options)
        try:
            last = more(least_share=planning.FAIR_SHARE).rounds[-1].share
        except ValueError:  # too small even for a fair share
            last = 0.0
        assert last < planning.DECIDING_SHARE


@pytest.mark.parametrize(("epochs", "candidates"), [(3, 6), (8, 7)])
def test_what_the_default_budget_tries(epochs: int, candidates: int) -> None:
    """Scores cost as much for short runs as for long ones, and so more of the budget."""
    section = ImportanceConfig()
    plan = planning.affordable(
        MOST,
        rows=[100] * section.choosing_folds,
        costs=Costs(3 * epochs, 5),
        budget=section.choosing_budget,
    )
    assert plan.candidates == candidates
    assert [each.folds for each in plan.rounds[:-1]] == [(0,)] * (len(plan.rounds) - 1)
    assert plan.rounds[-1].folds == (3, 4)
    assert plan.rounds[-1].share >= planning.DECIDING_SHARE


def test_a_budget_that_is_not_enough_for_one_candidate_is_refused() -> None:
    with pytest.raises(ValueError, match="raise it to"):
        planning.affordable(MOST, rows=[100] * 4, costs=Costs(9, 5), budget=0.2)
