"""Wrong labels with the truth kept: which rows are relabelled, and how."""

from typing import NamedTuple

import numpy as np

from sie_jax.data.schema import ESCI_SCALE
from sie_jax.data.sources.market.needs import EXACT, IRRELEVANT
from sie_jax.errors import UserError

KINDS = ("uniform", "adjacent", "confusion", "annotator", "missing_positive")
CARELESS = 0.8  # how often a careless annotator errs
_CLASSES = len(ESCI_SCALE.names)


class Judged(NamedTuple):
    """The rows that may be relabelled.

    truth [N]: the rule's grade. query [N]: the row's query. seen [N] int >= 0: all that a weak
    model sees of the row, as the number of a cell. where [N] bool: rows that may change.
    """

    truth: np.ndarray
    query: np.ndarray
    seen: np.ndarray
    where: np.ndarray


def relabel(rng: np.random.Generator, judged: Judged, kind: str, rate: float) -> np.ndarray:
    """The truth [N] with an expected share `rate` of the rows `where` changed, as `kind` says.

        uniform           each row with probability `rate`, to each other grade alike
        adjacent          each row with probability `rate`, to a neighbour on the scale
        confusion         as a weak model would err that sees a row's cell alone: p is its
                          distribution of a row's grade; the row flips with probability
                          min(1, c · (1 − p[truth])), with one c for all rows, to a grade drawn
                          from p without the truth. The model counts true grades by the cell,
                          each count plus one.
        annotator         a query is judged by a careless annotator with probability
                          rate / CARELESS; each of its rows flips with probability CARELESS, to
                          each other grade alike, and no other row does
        missing_positive  E becomes I with probability rate / (share of E); nothing else changes

    No draw depends on `rate`, and the chance of a flip grows with it: what a low rate flips, a
    higher rate flips too, to the same grade.

    Raises:
      UserError: the rate is above what its kind can reach.
    """
    truth, where = judged.truth, judged.where
    rows = len(truth)
    other = (truth + rng.integers(1, _CLASSES, size=rows)) % _CLASSES
    chance = np.full(rows, rate)
    if kind == "adjacent":
        step = np.where(rng.random(rows) < 0.5, 1, -1)
        step = np.where(truth == 0, 1, np.where(truth == _CLASSES - 1, -1, step))
        other = truth + step
    elif kind == "confusion":
        weak = _weak_model(judged)
        each = np.arange(rows)
        chance = _chance(1 - weak[each, truth], rate, where)
        # The first of independent exponential waits with rates p is drawn in proportion to p.
        waits = rng.exponential(size=(rows, _CLASSES)) / weak
        waits[each, truth] = np.inf
        other = waits.argmin(axis=1)
    elif kind == "annotator":
        if rate > CARELESS:
            raise UserError(
                f"noise is {rate}; noise_kind 'annotator' reaches {CARELESS}: give that or less"
            )
        careless = rng.random(judged.query.max() + 1) < rate / CARELESS
        chance = CARELESS * careless[judged.query]
    elif kind == "missing_positive":
        share = float((truth[where] == EXACT).mean())
        if rate > share:
            raise UserError(
                f"noise is {rate}; noise_kind 'missing_positive' reaches {share:.3f} here, "
                "the share of exact rows: give less"
            )
        other = np.full(rows, IRRELEVANT)
        chance = (truth == EXACT) * (rate / max(share, 1 / rows))
    flip = (rng.random(rows) < chance) & where
    return np.where(flip, other, truth)


def _weak_model(judged: Judged) -> np.ndarray:
    """Probabilities of the grades [N, 4] by the cell, all > 0, from counts."""
    counts = np.ones((judged.seen.max() + 1, _CLASSES))
    np.add.at(counts, (judged.seen[judged.where], judged.truth[judged.where]), 1)
    return (counts / counts.sum(axis=1, keepdims=True))[judged.seen]


def _chance(doubt: np.ndarray, rate: float, where: np.ndarray) -> np.ndarray:
    """min(1, c · doubt) [N], c the factor that makes its mean over `where` the rate; doubt > 0."""
    inside = np.sort(doubt[where])[::-1]
    # Σ min(1, c d) is linear between the values of c at which one more row reaches 1.
    corners = 1 / inside
    rest = np.append(np.cumsum(inside[::-1])[::-1][1:], 0.0)
    sums = np.arange(1, len(inside) + 1) + corners * rest
    factor = np.interp(rate * len(inside), [0.0, *sums], [0.0, *corners])
    return np.minimum(1.0, factor * doubt)
