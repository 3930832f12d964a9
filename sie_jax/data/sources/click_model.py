"""Clicks with position bias taken out: the position-based model, relevance and grades."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from sie_jax.errors import UserError

# An iteration costs only a few passes over the cells.
TOLERANCE = 1e-8
MAX_ITERATIONS = 10_000


class Cells(NamedTuple):
    """A click log summed up: one entry for each pair and position at which the pair was shown.

    pair `[C]` int64: 0..P-1. position `[C]` int64: 0..K-1, the place in the list of the log's
    positions, first position first. No (pair, position) occurs twice.
    impressions `[C]` float64: rows, > 0. clicks `[C]` float64: rows that were clicked.
    value `[C]` float64: what the rows are worth; equal to `clicks` where only clicks count.
    """

    pair: Int64[np.ndarray, "C"]
    position: Int64[np.ndarray, "C"]
    impressions: Float64[np.ndarray, "C"]
    clicks: Float64[np.ndarray, "C"]
    value: Float64[np.ndarray, "C"]


class PositionModel(NamedTuple):
    """What `fit` gives.

    propensities `[K]`: θ_k, how much more often position k is examined than the first (θ_1 = 1).
    attractiveness `[P]`: γ_p, how often pair p is clicked where it stands first; 0 without clicks.
    log_likelihoods `[iterations]`: after each iteration; never falls.
    converged: False where the iterations ended at MAX_ITERATIONS.
    """

    propensities: Float64[np.ndarray, "K"]
    attractiveness: Float64[np.ndarray, "P"]
    log_likelihoods: Float64[np.ndarray, "iterations"]
    converged: bool


class Relevance(NamedTuple):
    """What `relevance` gives, each `[P]`.

    estimate: the relevance. impressions, examinations: what it rests on; examinations are the
      expected ones, Σ_k n_pk θ_k.
    """

    estimate: Float64[np.ndarray, "P"]
    impressions: Float64[np.ndarray, "P"]
    examinations: Float64[np.ndarray, "P"]


def components(cells: Cells) -> Int64[np.ndarray, "K"]:
    """Which positions can be compared: equal numbers for those that clicks connect.

    A click on a pair at position k is a step from j to k where the pair was shown at position j
    too. Two positions can be compared where such steps lead from each to the other, possibly over
    further positions. Otherwise the ratio of their propensities has no finite best value, or every
    value fits equally well, because the attractiveness of pairs makes up for it (Ford, American
    Mathematical Monthly 64, 1957; assumption 1 of Hunter, 2004). A position without a click belongs
    to those at which its pairs were clicked: its propensity is 0.

    Returns:
      `[K]` int64: the lowest position that each can be compared with.
    """
    size = _size(cells.position)
    steps = np.eye(size, dtype=bool)  # [j, k]
    for position in range(size):
        clicked = np.zeros(_size(cells.pair), bool)
        clicked[cells.pair[(cells.position == position) & (cells.clicks > 0)]] = True
        steps[cells.position[clicked[cells.pair]], position] = True
    longer = steps @ steps
    while not np.array_equal(steps, longer):
        steps, longer = longer, longer @ longer
    has_clicks = np.bincount(cells.position, cells.clicks) > 0
    # Steps only lead away from a position without clicks; they lead to others if it is not alone.
    together = steps & (steps.T | ~has_clicks[:, None])
    alone = together.sum(1) == 1
    together[np.diag_indices(size)] = has_clicks | alone
    return together.argmax(1)


def fit(
    cells: Cells, *, tolerance: float = TOLERANCE, max_iterations: int = MAX_ITERATIONS
) -> PositionModel:
    """The propensities of the position-based model, estimated from the log that they biased.

        P(click | pair p at position k) = θ_k γ_p,    θ_1 = 1

    Source: Richardson, Dominowska and Ragno, "Predicting clicks", WWW 2007; Chuklin, Markov and de
    Rijke, "Click Models for Web Search", 2015, section 3.3.

    θ explains how each pair's clicks are distributed over its positions. With n_pk impressions,
    c_pk clicks and C_p = Σ_k c_pk it maximises

        Σ_pk c_pk log( n_pk θ_k / Σ_j n_pj θ_j )

    which compares a pair only with itself at other positions, so that a ranker which puts relevant
    items first is not taken for position bias. The derivative,
    c_pk - C_p n_pk θ_k / Σ_j n_pj θ_j summed over pairs, has expectation 0 at the true θ for any γ
    and any number of impressions, so the estimate gets better with more pairs, even if each is
    shown only twice (Wooldridge, Journal of Econometrics 90, 1999: Poisson regression with fixed
    effects). Expectation maximisation of the joint likelihood of θ and γ, the common way to fit
    this model, does not have that property: with few impressions per pair it finds the positions
    more alike than they are (benchmarks/clicks.py shows by how much).

    The maximum is found by turns, each in closed form and none lowering the likelihood (it is the
    MM algorithm of Hunter, "MM algorithms for generalized Bradley-Terry models", Annals of
    Statistics 32, 2004):

        γ_p = C_p / Σ_k n_pk θ_k        θ_k = Σ_p c_pk / Σ_p n_pk γ_p

    It begins at θ_k = 1, and stops when no θ_k / θ_1 moves by more than `tolerance`, or after
    `max_iterations`. A position without a click gets 0. There is no prior: `relevance` smooths.

    Args:
      cells: the log; every pair in 0..P-1 and position in 0..K-1 occurs.

    Raises:
      UserError: the log has no click at all or none at its first position, or its positions cannot
        be compared (see `components`).
    """
    clicks_at = np.bincount(cells.position, cells.clicks)
    clicks_of = _per_pair(cells, cells.clicks)
    if not clicks_at.sum():
        raise UserError("clicks: the log has no clicks: check the column that holds them")
    groups = len(np.unique(components(cells)))
    if groups > 1:
        raise UserError(
            f"clicks: position bias cannot be told from relevance: the log's {len(clicks_at)} "
            f"positions fall into {groups} groups that no clicks connect: give a log in which the "
            "same query-item pairs were shown and clicked at several positions (more days, or some "
            "exploration), or leave out the deepest with maximum_position"
        )
    if not clicks_at[0]:
        raise UserError(
            "clicks: the first position of the log has no click, but the others are measured "
            "against it: check the column that holds the position"
        )
    propensities = np.ones(len(clicks_at))
    log_likelihoods: list[float] = []
    converged = False
    while not converged and len(log_likelihoods) < max_iterations:
        before = propensities
        attractiveness = _attractiveness(cells, before, clicks_of)
        shown = np.bincount(cells.position, cells.impressions * attractiveness[cells.pair])
        propensities = clicks_at / shown
        propensities = propensities / propensities[0]
        log_likelihoods.append(_log_likelihood(cells, propensities, clicks_at, clicks_of))
        converged = bool(np.abs(propensities - before).max() <= tolerance)
    attractiveness = _attractiveness(cells, propensities, clicks_of)
    return PositionModel(propensities, attractiveness, np.array(log_likelihoods), converged)


def relevance(
    cells: Cells, propensities: Float64[np.ndarray, "K"], *, smoothing: float
) -> Relevance:
    """What each pair is worth every time it is looked at.

        r_p = (Σ_k v_pk + s m_p) / (Σ_k n_pk θ_k + s)
        m_p = Σ_k n_pk a_k / Σ_k n_pk        a_k = Σ_p v_pk / Σ_p n_pk θ_k

    with n_pk the pair's rows at position k and v_pk their value.

    At s = 0 this is value over expected examinations: inverse propensity weighting with a bounded
    variance. v_pk / (n_pk θ_k) is the inverse-propensity estimate from position k alone; r_p is the
    mean of these over positions, weighted by expected examinations, and its expectation is the
    pair's true value, as theirs is. The plain estimate, Σ_k (v_pk / θ_k) / Σ_k n_pk, is the same
    mean weighted by impressions, where one lucky click at the bottom of a page counts 1 / θ_k.
    (Known as clicks over expected clicks: Zhang and Jones, "Comparing click logs and editorial
    labels for training query rewriting", WWW 2007 workshop on query log analysis.)

    `smoothing`, s, adds that many examinations that went as expected of a pair shown where this one
    was shown (the mean under a gamma prior of shape s m_p and rate s). a_k is what the pairs at
    position k are worth once position bias is taken out; it falls with k as far as the ranker was
    right. So a pair that few people looked at keeps the ranker's judgment, and others lose it.

    Args:
      propensities: θ_k >= 0, not all 0. All 1: no correction, smoothed click rates.
      smoothing: > 0.
    """
    impressions = _per_pair(cells, cells.impressions)
    examinations = _examinations(cells, propensities)
    value = _per_pair(cells, cells.value)
    examined_at = np.bincount(cells.position, cells.impressions) * propensities
    value_at = np.bincount(cells.position, cells.value)
    # Nothing is known of a position that nobody looks at: it gets the average of all.
    average = np.where(
        examined_at > 0,
        value_at / np.where(examined_at > 0, examined_at, 1.0),
        value_at.sum() / examined_at.sum(),
    )
    expected = _per_pair(cells, cells.impressions * average[cells.position]) / impressions
    estimate = (value + smoothing * expected) / (examinations + smoothing)
    return Relevance(estimate, impressions, examinations)


def grade(estimate: Float64[np.ndarray, "P"], *, grades: int) -> Int64[np.ndarray, "P"]:
    """Grades 0..grades-1 of equal size: grade g is the (g+1)-th of `grades` equal parts of all
    pairs, the least relevant first. Equal estimates get equal grades.

    The parts are of the whole log, not of each query, so that a query without a good item has no
    high grade. (Parts of each query's best value were tried; they agreed no better with true
    grades.)
    """
    bounds = np.quantile(estimate, np.arange(1, grades) / grades)
    return np.searchsorted(bounds, estimate, side="right")


def _size(places: Int64[np.ndarray, "C"]) -> int:
    return int(places.max()) + 1


def _per_pair(cells: Cells, values: Float64[np.ndarray, "C"]) -> Float64[np.ndarray, "P"]:
    return np.bincount(cells.pair, values)


def _examinations(cells: Cells, propensities: Float64[np.ndarray, "K"]) -> Float64[np.ndarray, "P"]:
    return _per_pair(cells, cells.impressions * propensities[cells.position])


def _attractiveness(
    cells: Cells, propensities: Float64[np.ndarray, "K"], clicks_of: Float64[np.ndarray, "P"]
) -> Float64[np.ndarray, "P"]:
    # A clicked pair was shown at a position with a click, so its examinations are above 0.
    examinations = np.where(clicks_of > 0, _examinations(cells, propensities), 1.0)
    return clicks_of / examinations


def _log_likelihood(
    cells: Cells,
    propensities: Float64[np.ndarray, "K"],
    clicks_at: Float64[np.ndarray, "K"],
    clicks_of: Float64[np.ndarray, "P"],
) -> float:
    """As in `fit`, less Σ_pk c_pk log n_pk, which does not depend on θ."""
    # 0 log 0 = 0: positions and pairs without clicks add nothing.
    at, of = clicks_at > 0, clicks_of > 0
    examinations = _examinations(cells, propensities)
    return float(
        clicks_at[at] @ np.log(propensities[at]) - clicks_of[of] @ np.log(examinations[of])
    )
