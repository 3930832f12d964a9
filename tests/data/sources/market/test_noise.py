"""Each kind of wrong labels: its rate, where it strikes, and the nesting of its rates."""

import numpy as np
import pytest

from sie_jax.data.sources.market import noise
from sie_jax.errors import UserError

QUERIES, EACH = 600, 20
ROWS = QUERIES * EACH


def judged() -> noise.Judged:
    rng = np.random.default_rng(5)
    truth = rng.choice(4, size=ROWS, p=[0.27, 0.26, 0.27, 0.2])
    found = np.clip(0.2 * truth + 0.4 * rng.random(ROWS), 0, 1)
    query = np.repeat(np.arange(QUERIES), EACH)
    return noise.Judged(truth, query, (10 * found).astype(int), query % 3 > 0)


def flipped(kind: str, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Truth and label of the rows that may change; no other may have changed."""
    rows = judged()
    label = noise.relabel(np.random.default_rng(0), rows, kind, rate)
    assert np.array_equal(label[~rows.where], rows.truth[~rows.where])
    return rows.truth[rows.where], label[rows.where]


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.18])
@pytest.mark.parametrize("kind", noise.KINDS)
def test_the_rate_is_the_one_asked_for(kind: str, rate: float) -> None:
    truth, label = flipped(kind, rate)
    variance = rate * (1 - rate) / len(truth)
    if kind == "annotator":  # whole queries err: Var of the mean of their shares of errors
        share, errs = rate / noise.CARELESS, noise.CARELESS
        variance = (share * errs * (1 - errs) / EACH + errs**2 * share * (1 - share)) / (
            len(truth) / EACH
        )
    assert abs((truth != label).mean() - rate) <= 4 * np.sqrt(variance)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_a_higher_rate_keeps_the_errors_of_a_lower_one(kind: str) -> None:
    truth, little = flipped(kind, 0.05)
    _, more = flipped(kind, 0.15)
    wrong = little != truth
    assert wrong.any()
    assert np.array_equal(little[wrong], more[wrong])


def test_each_kind_changes_labels_in_its_own_way() -> None:
    truth, label = flipped("adjacent", 0.3)
    assert (abs(truth - label) <= 1).all()
    truth, label = flipped("missing_positive", 0.15)
    assert set(zip(truth[truth != label], label[truth != label], strict=True)) == {(3, 0)}
    truth, label = flipped("annotator", 0.2)
    shares = (truth != label).reshape(-1, EACH).mean(1)
    assert set(np.flatnonzero((shares > 0) & (shares < 0.3))) == set()
    assert 0.1 < (shares > 0).mean() < 0.4
    truth, label = flipped("uniform", 0.3)
    wrong = truth != label
    share = np.bincount((label - truth)[wrong] % 4, minlength=4)[1:] / wrong.sum()
    assert abs(share - 1 / 3).max() <= 4 * np.sqrt(2 / 9 / wrong.sum())


def test_confusion_strikes_in_proportion_to_the_doubt_of_the_weak_model() -> None:
    rows = judged()
    truth, label = flipped("confusion", 0.2)
    wrong = truth != label
    seen = rows.seen[rows.where]
    counts = np.ones((seen.max() + 1, 4))
    np.add.at(counts, (seen, truth), 1)
    doubt = 1 - counts[seen, truth] / counts[seen].sum(axis=1)
    # Rows flip with probability c · doubt, so that the mean doubt of the flipped ones is this.
    expected = (doubt**2).mean() / doubt.mean()
    error = doubt[wrong].std() / np.sqrt(wrong.sum())
    assert abs(doubt[wrong].mean() - expected) <= 4 * error
    assert expected > doubt.mean() + 8 * error


@pytest.mark.parametrize(("kind", "rate"), [("annotator", 0.9), ("missing_positive", 0.5)])
def test_a_rate_that_a_kind_cannot_reach_is_refused(kind: str, rate: float) -> None:
    with pytest.raises(UserError, match=f"'{kind}' reaches"):
        flipped(kind, rate)
