"""Scores read off a history of training: forgetting events, area under the margin, cartography.

A history holds the model's output for each example at each visit: one row for each of E epochs, one
column for each of N examples, and NaN where an example was not visited:

    margins        float `[E, N]`   z_y − max over c ≠ y of z_c, of the logits; correct where > 0
    probabilities  float `[E, N]`   p_y, in [0, 1]

Collected during training it costs nothing beyond the steps; collected by a pass after each epoch it
costs E forward-equivalents per example. A margin that is NaN because training diverged counts as a
visit that was not made. These functions take and return host arrays and compute in float64.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


def forgetting_events(margins: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """How often an example went from correct to incorrect between one visit and the next.

        events_i = Σ_t [m_i(t) > 0 and m_i(t') ≤ 0]        t' the visit that follows t

    High means HARD. A margin of 0, a tie, is incorrect. Two visits follow each other however many
    epochs are between them. An example that was correct at no visit has nothing to forget and is
    the hardest of all: Toneva et al. 2019 ("An Empirical Study of Example Forgetting during Deep
    Neural Network Learning", section 3) count it as infinite. Here it gets E, which ranks it as
    infinity would, because E visits hold E/2 events at most, and which is finite, as weights must
    be.

    Args:
      margins: as above.

    Returns:
      float64 `[N]`, whole numbers from 0 to E. Mislabelled and rare examples are high. The paper
      drops examples at 0 from training with little loss.

    Raises:
      ValueError: an example was never visited, or the history is not `[E, N]`.
    """
    wide = _history("margins", margins)
    events = np.zeros(wide.shape[1])
    correct_before = np.zeros(wide.shape[1], bool)
    learned = np.zeros(wide.shape[1], bool)
    for epoch in wide:
        visited, correct = ~np.isnan(epoch), epoch > 0
        events += visited & correct_before & ~correct
        correct_before = np.where(visited, correct, correct_before)
        learned |= correct
    return np.where(learned, events, float(len(wide)))


def area_under_margin(margins: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """AUM: the mean of the logit margin over an example's visits.

        AUM_i = (1 / n_i) Σ_t (z_y(t) − max over c ≠ y of z_c(t))        n_i its visits

    High means EASY. Negative: another class had the greater logit on average, for example because
    the label is wrong and the other examples contradict it. The unit is that of logits, and there
    is no bound, so that values are comparable within one run only (Pleiss et al. 2020, "Identifying
    Mislabeled Data using the Area Under the Margin Ranking", section 3). The paper's threshold
    samples are not part of this.

    Args:
      margins: as above.

    Returns:
      float64 `[N]`.

    Raises:
      ValueError: an example was never visited, or the history is not `[E, N]`.
    """
    return np.nanmean(_history("margins", margins), axis=0)


class Cartography(NamedTuple):
    """Where an example lies on the map of a training set; float64 `[N]` each.

    confidence: mean of p_y over the visits, in [0, 1]. High means EASY.
    variability: standard deviation of p_y over the visits (divided by their number, not by one
      less), in [0, 1/2]. High means AMBIGUOUS: sometimes learned, sometimes not. 0 for a single
      visit.
    correctness: share of the visits at which the label was predicted, in [0, 1]. High means EASY.

    Low confidence with low variability is hard to learn, and often mislabelled.
    """

    confidence: Float[np.ndarray, "N"]
    variability: Float[np.ndarray, "N"]
    correctness: Float[np.ndarray, "N"]


def cartography(
    probabilities: Float[np.ndarray, "E N"], margins: Float[np.ndarray, "E N"]
) -> Cartography:
    """Confidence, variability and correctness over an example's n_i visits.

        confidence_i = μ_i = (1 / n_i) Σ_t p_y(t)
        variability_i = √((1 / n_i) Σ_t (p_y(t) − μ_i)²)
        correctness_i = (1 / n_i) Σ_t [m_i(t) > 0]

    Swayamdipta et al. 2020 ("Dataset Cartography: Mapping and Diagnosing Datasets with Training
    Dynamics", section 2). A margin of 0, a tie, is incorrect.

    Args:
      probabilities, margins: as above, of the same visits.

    Returns:
      The three coordinates; their signs are stated there.

    Raises:
      ValueError: an example was never visited, the histories differ in shape or in their visits,
        or they are not `[E, N]`.
    """
    wide, wide_margins = _history("probabilities", probabilities), _history("margins", margins)
    if wide.shape != wide_margins.shape:
        raise ValueError(f"probabilities {wide.shape} for margins {wide_margins.shape}")
    visited = ~np.isnan(wide)
    differ = int((visited == np.isnan(wide_margins)).sum())
    if differ:
        raise ValueError(
            f"probabilities and margins are NaN at different visits, {differ} in all: take both "
            "from the same visits"
        )
    return Cartography(
        confidence=np.nanmean(wide, axis=0),
        variability=np.nanstd(wide, axis=0),
        correctness=(wide_margins > 0).sum(axis=0) / visited.sum(axis=0),
    )


def _history(name: str, values: np.ndarray) -> np.ndarray:
    """The history in float64, every example visited."""
    wide = np.asarray(values, np.float64)
    if wide.ndim != 2:
        raise ValueError(f"{name} is {wide.shape}: give [epochs, examples]")
    never = np.flatnonzero(np.isnan(wide).all(axis=0))
    if len(never):
        raise ValueError(
            f"{len(never)} of {wide.shape[1]} examples were never visited, the first is "
            f"{never[0]}: leave them out of {name}, or score after a full epoch"
        )
    return wide
