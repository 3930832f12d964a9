"""Hard negatives: items that are found for a query, of which nobody said that it wants them."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sie_jax import sections
from sie_jax.evaluation.retrieval import NOTHING

RAW, DENOISED, WEIGHTED = KINDS = ("raw", "denoised", "weighted")
LONGER = "longer"
"""The control: as many further epochs on the judged pairs alone."""


@dataclasses.dataclass(slots=True, kw_only=True)
class NegativesConfig:
    """Which items that were found and not judged the towers are trained on further, as unwanted."""

    # raw, denoised, weighted: what is done about wanted ones among them; empty: none are mined.
    # Towers are trained further by each, and on the judged pairs alone (longer)
    kinds: tuple[str, ...] = ()
    each: int = 4  # how many are mined for each training query
    depth: int = 50  # they are drawn of so many first items
    rounds: int = 1  # how often they are mined anew, by the towers of the round before
    epochs: int = 1  # passes of training in each round

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        for kind in self.kinds:
            sections.one_of("negatives.kinds", kind, KINDS)
        for name in ("each", "depth", "rounds", "epochs"):
            sections.at_least(f"negatives.{name}", getattr(self, name), 1)


class Negatives(NamedTuple):
    """M mined items: the query, the item, and the chance `doubt` that it is wanted after all."""

    row: Int[np.ndarray, "M"]
    item: Int[np.ndarray, "M"]
    doubt: Float[np.ndarray, "M"]


def mined(
    lists: Int[np.ndarray, "Q n"],
    judged: Bool[np.ndarray, "Q n"],
    doubt: Float[np.ndarray, "Q n"],
    *,
    kind: str,
    each: int,
    generator: np.random.Generator,
) -> Negatives:
    """Of every query's list `each` items that nobody judged, drawn evenly.

    `denoised` draws of the half that is the least likely to be wanted: what a query does not have
    is what it was found for, so that those at the top of a list are often wanted, and nobody said
    so. `raw` and `weighted` draw of all; `weighted` trusts each as far as it is not in doubt.

    Source: Qu et al. 2021, "RocketQA", section 3.2 (denoised hard negatives).
    """
    rows, items, doubts = [], [], []
    for row in range(len(lists)):
        free = np.flatnonzero((lists[row] != NOTHING) & ~judged[row])
        if kind == DENOISED:
            order = np.argsort(doubt[row, free], kind="stable")
            free = np.sort(free[order[: max(each, len(free) // 2)]])
        drawn = np.sort(generator.permutation(free)[:each])
        rows.append(np.full(len(drawn), row))
        items.append(lists[row, drawn])
        doubts.append(doubt[row, drawn] if kind == WEIGHTED else np.zeros(len(drawn)))
    return Negatives(*(np.concatenate(one) for one in (rows, items, doubts)))


def chance(scores: Float[np.ndarray, "M"], wanted: Bool[np.ndarray, "M"]) -> tuple[float, float]:
    """a, b of the chance 1/(1 + exp(−(a + b·score))) that an item is wanted, by most likelihood.

    Newton's method from the base rate, b = 0; a small ridge on b keeps it finite where the scores
    separate the wanted ones.

    Source: Platt 1999, "Probabilistic outputs for support vector machines".
    """
    rate = np.clip(wanted.mean(), 1e-3, 1 - 1e-3)
    found = np.array([np.log(rate / (1 - rate)), 0.0])
    data = np.stack([np.ones(len(scores)), scores], 1)
    ridge = np.diag([0.0, 1e-3 * len(scores)])
    for _ in range(20):
        share = 1 / (1 + np.exp(-data @ found))
        slope = data.T @ (share - wanted) + ridge @ found
        curvature = (data * (share * (1 - share))[:, None]).T @ data + ridge
        found = found - np.linalg.solve(curvature + 1e-9 * np.eye(2), slope)
    return float(found[0]), float(found[1])
