"""What an audit says of its labels: the first rows' expected errors, and the sentences."""

import numpy as np
import pytest

from sie_jax.evaluation import audit_summary, label_errors
from sie_jax.evaluation.label_errors import Errors

NAMES = ("bad", "good")
LABELS = np.array([0] * 60 + [1] * 39)


def errors(sure: float, above: float = 0.3) -> Errors:
    """Estimates by which each label is wrong with 0.5: 0.4 by the one, 0.6 by the other."""
    one = {"value": 50.0, "low": 40.0, "high": 60.0}
    return Errors(
        wrong=one,
        anchors=one,
        confident_joint=one,
        matrix=np.array([[30.0, 30.0], [20.0, 19.0]]),
        probability=np.full(99, 0.5),
        between=np.stack([np.full(99, 0.4), np.full(99, 0.6)]),
        above_majority={"value": above, "low": above, "high": above},
        sure=sure,
    )


def test_conflicts_come_first_and_the_others_follow_in_their_order() -> None:
    found = audit_summary.first(np.array([1.0]), np.arange(99), errors(0.9), top=50)
    assert [one["rows"] for one in found] == [1, 2, 5, 10, 50]
    expected = {rows: (1 + np.array([0.5, 0.4, 0.6]) * (rows - 1)) / rows for rows in (1, 5, 50)}
    for one in found:
        if one["rows"] in expected:
            wrong = [one["wrong"][key] for key in ("value", "low", "high")]
            assert wrong == pytest.approx(expected[one["rows"]])
    assert audit_summary.first(np.array([1.0]), np.arange(99), None, top=None) == []


@pytest.mark.parametrize("sure", [label_errors.SURE, label_errors.SURE - 0.01])
def test_an_unsure_model_gives_an_upper_end_alone(sure: float) -> None:
    found = audit_summary.summary(NAMES, LABELS, errors(sure), audit_summary.UNSEEN)
    found |= {
        "pairs": 99,
        "first": audit_summary.first(np.zeros(0), np.arange(99), errors(sure), None),
    }
    said = audit_summary.sentences(found)
    if sure < label_errors.SURE:
        assert found["wrong"] == {"value": None, "low": 0.0, "high": 60.0}
        assert said[0] == "at most 60 of 99 labels are wrong"
        assert not any("expected" in one for one in said)
        assert found["first"][0]["wrong"] == {"value": None, "low": 0.0, "high": 0.6}
    else:
        assert said[0] == "about 50 of 99 labels are wrong, between 40 and 60"
        assert said[1].startswith("expected to be wrong: 50 % of the first 1, ")
    assert found["noise_matrix"]["good"] == {"bad": 20.0, "good": 19.0}


def test_a_model_no_better_than_the_most_frequent_label_is_named() -> None:
    (note,) = audit_summary.summary(NAMES, LABELS, errors(0.9, above=0.0), "")["notes"]
    assert "no better than a random one" in note


@pytest.mark.parametrize(
    ("knows", "queries", "said"),
    [
        (audit_summary.LEARNED, 99, "the model learned from these labels"),
        (audit_summary.UNSEEN, 29, "fewer than 30 queries"),
    ],
)
def test_nothing_is_estimated_of_learned_labels_or_few_queries(
    knows: str, queries: int, said: str
) -> None:
    probabilities = np.full((99, 2), 0.5)
    query = np.arange(99) % queries
    found = audit_summary.estimated(probabilities, LABELS, query, knows, resamples=10, seed=0)
    assert found is None
    assert said in audit_summary.summary(NAMES, LABELS, found, knows)["notes"][0]
