"""How the labels of a shop are wrong: what biases a ranking, what only adds variance, and nothing.

Everything that a shop's own noise has (`sie_jax/data/sources/market/noise.py`), and three more.
"""

import numpy as np

from sie_bench.shops import Lists, Shop
from sie_jax.data.sources.market import noise
from sie_jax.data.sources.market.needs import EXACT, IRRELEVANT

RATES = {
    "missing_positive": 0.15,
    "confusion": 0.2,
    "annotator": 0.2,
    "sellers": 0.2,
    "position": 0.2,
    "mixed": 0.2,
    "mild": 0.2,
    "uniform": 0.2,
    "none": 0.0,
}
"""The share of labels that each fault makes wrong. A fifth of the pairs is exact: 0.15 are three
quarters of them."""
BIASING = ("missing_positive", "confusion", "annotator", "sellers", "position")


def labels(shop: Shop, fault: str) -> np.ndarray:
    """The labels [N] of all rows of a shop; test rows are right. The same each time.

    sellers    the sellers (brands) are drawn in random order, and all rows of the first ones
               become E, until the share RATES[fault] is wrong
    position   a row whose grade is not I becomes I where the customer did not look at it; he
               looks at position k with `propensity`
    mixed      each of BIASING at a fifth of its rate; where several change a row, the last
    mild       each label that `sellers` or `annotator` makes wrong is so with a chance of a half
    none       the truth
    others     `market.noise.relabel`
    """
    truth = shop.judged.truth
    if fault == "none":
        return truth
    if fault == "mixed":
        found = truth
        for kind in BIASING:
            changed = _at(shop, kind, RATES[kind] / len(BIASING))
            found = np.where(changed != truth, changed, found)
        return found
    if fault == "mild":
        rng, found = np.random.default_rng([shop.seed, 7]), truth
        for kind in ("sellers", "annotator"):
            changed = _at(shop, kind, RATES[kind])
            found = np.where((changed != truth) & (rng.random(len(truth)) < 0.5), changed, found)
        return found
    return _at(shop, fault, RATES[fault])


def propensity(shop: Shop, rate: float) -> np.ndarray:
    """(1 + position)^-η [N]: the chance that a customer looks at each row.

    η is such that an expected share `rate` of the rows that may change is wrong.
    """
    relevant = (shop.judged.truth != IRRELEVANT)[shop.judged.where]
    place = 1.0 + shop.position[shop.judged.where]
    low, high = 0.0, 10.0
    for _ in range(50):
        middle = (low + high) / 2
        wrong = float((relevant * (1 - place**-middle)).mean())
        low, high = (middle, high) if wrong < rate else (low, middle)
    return (1.0 + shop.position) ** -low


def of(lists: Lists, values: np.ndarray) -> np.ndarray:
    """Values [N] of a shop's rows as the values [Q, W] of lists; 0 where there is no pair."""
    return np.where(lists.mask, values[lists.row], 0)


def _at(shop: Shop, fault: str, rate: float) -> np.ndarray:
    rng = np.random.default_rng([shop.seed, 6])  # the stream of a market's own noise
    truth, where = shop.judged.truth, shop.judged.where
    if fault == "sellers":
        rank = rng.permutation(shop.brand.max() + 1)[shop.brand]
        false = where & (truth != EXACT)
        wrong = np.cumsum(np.bincount(rank[false], minlength=shop.brand.max() + 1))
        return np.where(false & (wrong[rank] <= rate * where.sum()), EXACT, truth)
    if fault == "position":
        looked = rng.random(len(truth)) < propensity(shop, rate)
        return np.where(where & ~looked, IRRELEVANT, truth)
    return noise.relabel(rng, shop.judged, fault, rate)
