"""Trajectory scores equal loops over each example's visits, written from the papers."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from sie_jax.importance import trajectory
from sie_jax.importance.trajectory import area_under_margin, cartography, forgetting_events

SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "forgetting_events": lambda margins, probabilities: forgetting_events(margins),
    "area_under_margin": lambda margins, probabilities: area_under_margin(margins),
    "confidence": lambda margins, probabilities: cartography(probabilities, margins).confidence,
    "variability": lambda margins, probabilities: cartography(probabilities, margins).variability,
    "correctness": lambda margins, probabilities: cartography(probabilities, margins).correctness,
}
"""Each score as a function of (margins, probabilities)."""


def _visits(history: np.ndarray, example: int) -> list[float]:
    return [float(row[example]) for row in history if not math.isnan(row[example])]


def _forgetting_events(margins: list[float], probabilities: list[float], epochs: int) -> float:
    correct = [margin > 0 for margin in margins]
    if not any(correct):
        return epochs
    return sum(now and not then for now, then in pairwise(correct))


def _by_hand(name: str, margins: list[float], probabilities: list[float], epochs: int) -> float:
    number = len(margins)
    mean = math.fsum(probabilities) / number
    return {
        "forgetting_events": _forgetting_events(margins, probabilities, epochs),
        "area_under_margin": math.fsum(margins) / number,
        "confidence": mean,
        "variability": math.sqrt(math.fsum((p - mean) ** 2 for p in probabilities) / number),
        "correctness": sum(margin > 0 for margin in margins) / number,
    }[name]


def _history(epochs: int, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Margins and p_y of 40 examples of two classes, p_y = σ(margin), some visits left out."""
    rng = np.random.default_rng(epochs)
    margins = rng.normal(0.3, 1.5, size=(epochs, 40)).astype(dtype)
    margins[rng.random(margins.shape) < 0.1] = 0  # ties
    margins[rng.random(margins.shape) < 0.3] = np.nan
    margins[rng.integers(epochs), np.isnan(margins).all(axis=0)] = -1
    return margins, 1 / (1 + np.exp(-margins))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("epochs", [1, 2, 7])
@pytest.mark.parametrize("name", SCORES)
def test_equals_a_loop_over_the_visits(name: str, epochs: int, dtype: type) -> None:
    margins, probabilities = _history(epochs, dtype)
    scores = SCORES[name](margins, probabilities)
    expected = [
        _by_hand(name, _visits(margins, example), _visits(probabilities, example), epochs)
        for example in range(40)
    ]
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    # sums of at most seven float64: the inputs' own dtype adds no error
    np.testing.assert_allclose(scores, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", SCORES)
def test_reordered_examples_get_the_same_scores_reordered(name: str) -> None:
    margins, probabilities = _history(5)
    order = np.random.default_rng(0).permutation(40)
    scores = SCORES[name](margins, probabilities)
    np.testing.assert_array_equal(
        SCORES[name](margins[:, order], probabilities[:, order]), scores[order]
    )


@pytest.mark.parametrize("name", SCORES)
def test_an_epoch_without_a_visit_changes_nothing_but_what_never_learned_gets(name: str) -> None:
    margins, probabilities = _history(5)
    learned = np.nanmax(margins, axis=0) > 0
    gap = np.full((1, 40), np.nan)
    longer = [np.concatenate([part[:2], gap, part[2:]]) for part in (margins, probabilities)]
    expected, scores = SCORES[name](margins, probabilities), SCORES[name](*longer)
    assert not learned.all()
    # a row of NaN can change the order in which NumPy sums
    np.testing.assert_allclose(scores[learned], expected[learned], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", SCORES)
def test_signs(name: str) -> None:
    # learned at once, learned and lost again and again, never learned
    margins = np.array([[2.0, 1.0, -2.0], [3.0, -1.0, -2.1], [3.0, 1.0, -2.0], [3.0, -1.0, -2.1]])
    easy, ambiguous, hard = SCORES[name](margins, 1 / (1 + np.exp(-margins)))
    if name == "forgetting_events":
        assert easy < ambiguous < hard
    elif name == "variability":
        assert ambiguous > max(easy, hard)
    else:
        assert easy > ambiguous > hard


@pytest.mark.parametrize("epochs", [1, 2, 3, 8])
def test_what_was_never_learned_ranks_above_every_number_of_events(epochs: int) -> None:
    most = np.where(np.arange(epochs) % 2 == 0, 1.0, -1.0)  # forgotten as often as can be
    never = np.full(epochs, -1.0)
    events = forgetting_events(np.stack([most, never], axis=1))
    np.testing.assert_array_equal(events, [epochs // 2, epochs])


@pytest.mark.parametrize("name", SCORES)
def test_an_example_never_visited_is_an_error_with_their_number(name: str) -> None:
    margins, probabilities = _history(3)
    margins[:, [4, 9]] = probabilities[:, [4, 9]] = np.nan
    with pytest.raises(ValueError, match="2 of 40 examples were never visited, the first is 4"):
        SCORES[name](margins, probabilities)


@pytest.mark.parametrize("name", SCORES)
def test_no_epochs_and_one_dimension_are_errors(name: str) -> None:
    with pytest.raises(ValueError, match="2 of 2 examples were never visited"):
        SCORES[name](np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"is \(3,\): give \[epochs, examples\]"):
        SCORES[name](np.zeros(3), np.zeros(3))


def test_two_histories_must_be_of_the_same_visits() -> None:
    margins, probabilities = _history(3)
    with pytest.raises(ValueError, match=r"probabilities \(3, 39\) for margins \(3, 40\)"):
        trajectory.cartography(probabilities[:, :39], margins)
    other = np.where(np.isnan(margins), 0.5, probabilities)
    with pytest.raises(ValueError, match=f"at different visits, {np.isnan(margins).sum()} in all"):
        trajectory.cartography(other, margins)
