import numpy as np
import pytest
from report.examples import choice, estimate, metrics, rows_of, words

from sie_jax.importance import choosing as choosing_candidates
from sie_jax.importance import planning
from sie_jax.report.sections import choosing


def test_what_was_chosen_and_all_it_was_compared_with():
    assert choosing.part(metrics()) is None
    part = choosing.part(metrics(choosing=choice(estimate(0.02))))
    rows = rows_of(part)
    assert rows[0] == [
        *("candidate", "round", "trained", "queries"),
        *("nDCG@10", "difference", "outcome"),
    ]
    assert rows[1:7] == [
        ["uniform", "1", "7.6%", "1,040", "0.5000", "–", "reference"],
        ["grad_norm clipped", "1", "7.6%", "1,040", "0.4900", "−0.0100", "dropped"],
        ["loss inverse", "1", "7.6%", "1,040", "–", "–", "undefined"],
        ["el2n keep 0.8", "1", "7.6%", "1,040", "0.5100", "+0.0100", "kept"],
        ["uniform", "2", "15.2%", "1,040", "0.6000", "–", "dropped"],
        ["el2n keep 0.8", "2", "15.2%", "1,040", "0.6200", "+0.0200", "chosen"],
    ]
    assert rows[8] == ["uniform", "1", "2", "520", "0.5000", "–"]
    assert len(rows) == 7 + 1 + 12
    text = words(part.html)
    assert "cost 1.75 full trainings" in text
    assert "the budget was 2." in text
    assert choosing.decision(choice(estimate(0.02))) in text


def test_one_fold_has_no_table_of_its_own():
    one_fold = choice(estimate(0.02))
    for row in one_fold["comparison"]:
        row["folds"] = row["folds"][:1]
    assert len(rows_of(choosing.part(metrics(choosing=one_fold)))) == 7


@pytest.mark.parametrize(
    ("interval", "chosen", "sentence"),
    [
        (
            estimate(0.02),
            "el2n keep 0.8",
            "el2n keep 0.8 is chosen, because the interval of its difference from uniform, "
            "+0.0100 to +0.0300, lies above zero.",
        ),
        (
            estimate(0.005),
            "uniform",
            "uniform is kept, because the interval of the difference between el2n keep 0.8 and "
            "uniform, −0.0050 to +0.0150, includes zero.",
        ),
        (
            estimate(-0.02),
            "uniform",
            "uniform is kept, because the interval of the difference between el2n keep 0.8 and "
            "uniform, −0.0300 to −0.0100, lies below zero.",
        ),
        (
            {"value": 0.1, "low": None, "high": None},
            "uniform",
            "uniform is kept, because there is no interval for the difference between "
            "el2n keep 0.8 and uniform.",
        ),
    ],
)
def test_the_decision_follows_the_interval(interval, chosen, sentence):
    assert choosing.decision(choice(interval, chosen)) == sentence


def test_outlying_sellers_decide_without_a_trial():
    made = choosing_candidates.without_trial(0.214, budget=5.0).as_json()
    part = choosing.part(metrics(choosing=made))
    text = words(part.html)
    assert "doubtful_groups believed is chosen without a trial: 21.4% of the labels are of" in text
    assert "<table" not in part.html


def test_the_decision_where_nothing_could_be_measured():
    nothing = choice(dict.fromkeys(("value", "low", "high")), "uniform") | {"contender": None}
    html = choosing.part(metrics(choosing=nothing)).html
    assert "uniform is kept, because no candidate could be measured." in html


@pytest.mark.parametrize("number", [1, len(choosing_candidates.CANDIDATES)])
def test_a_choice_is_shown_as_it_is(number):
    candidates = choosing_candidates.CANDIDATES[:number]
    plan = planning.plan(number, rows=[30] * 5, costs=planning.Costs(9, 5), budget=20)
    found = choosing_candidates.choose(
        candidates,
        lambda candidate, fold, share: np.linspace(0, share, 9) ** len(candidate.name),
        plan,
        interval=lambda differences: estimate(float(differences.mean())),
    )
    part = choosing.part(metrics(choosing=found.as_json()))
    rows = rows_of(part)[1:]
    shown = [row["candidate"] for row in found.comparison]
    assert [row[0] for row in rows[: len(shown)]] == shown
    # the same by fold follows, since several folds decide
    by_fold = [row[0] for row in rows[len(shown) :]]
    folds = [len(row["folds"]) for row in found.comparison]
    assert folds[-1] == (5 if number == 1 else 2)
    assert by_fold == ["candidate", *np.repeat(shown, folds)]
    assert choosing.decision(found.as_json()) in part.html
