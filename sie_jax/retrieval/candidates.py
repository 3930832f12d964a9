"""The items found for some queries as lists that a ranker of features orders, and that ranker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from sie_jax.data import lexical
from sie_jax.data.features import FEEDBACK, Pairs, blended, feedback_of, raw, standardise
from sie_jax.data.lexical import CorpusStatistics
from sie_jax.evaluation.retrieval import NOTHING
from sie_jax.models import linear, trees
from sie_jax.models.linear import LinearRanker, Lists
from sie_jax.models.ranker import BLEND, LINEAR, TREES
from sie_jax.models.trees import TreeRanker

KINDS = (LINEAR, TREES, BLEND)
LINEAR_FILE, TREES_FILE = "linear.json", "trees.json"
STRENGTHS = (0.1, 0.01, 0.001, 0.0001)
"""Ridge strengths to choose among: of long lists, a fit takes far longer than of judged pairs."""


@dataclass(frozen=True)
class Items:
    """The texts of a catalogue, with the statistics of their words."""

    titles: Sequence[str]
    texts: Sequence[str]
    statistics: CorpusStatistics

    @classmethod
    def of(cls, titles: Sequence[str], texts: Sequence[str]) -> "Items":
        """The items with these texts."""
        return cls(titles, texts, CorpusStatistics(lexical.count(titles), lexical.count(texts)))


class Candidates(NamedTuple):
    """M places of lists `[Q, n]` that hold an item, described by F features.

    row, place, item `[M]`: the query, the place in its list, the item. values `[M, F]`: the
    features `names`, standardised within the list.
    """

    row: Int[np.ndarray, "M"]
    place: Int[np.ndarray, "M"]
    item: Int[np.ndarray, "M"]
    names: tuple[str, ...]
    values: Float32[np.ndarray, "M F"]

    def without(self, names: Sequence[str]) -> "Candidates":
        """The same without some of the features."""
        kept = [at for at, name in enumerate(self.names) if name not in names]
        left = tuple(self.names[at] for at in kept)
        return self._replace(names=left, values=self.values[:, kept])

    def lists(self, gains: Float[np.ndarray, "M"]) -> Lists:
        """As rankers learn from them."""
        return Lists(self.values, gains, self.row)


def described(
    queries: Sequence[str],
    lists: Int[np.ndarray, "Q n"],
    items: Items,
    columns: Mapping[str, Float[np.ndarray, "Q n"]],
) -> Candidates:
    """The features of what was found: those of the words (`data.features`), and `columns`.

    lists: NOTHING behind the last item of each. columns: further numbers of each place.
    """
    row, place = np.nonzero(lists != NOTHING)
    item = lists[row, place]
    titles = [items.titles[one] for one in item.tolist()]
    pairs = Pairs(
        [queries[one] for one in row.tolist()],
        titles,
        [items.texts[one] for one in item.tolist()],
        row.astype(str),
        numeric={name: np.asarray(values)[row, place] for name, values in columns.items()},
    )
    own = standardise(raw(pairs, items.statistics), row)
    named = dict(zip(pairs.columns, own.T, strict=True))
    named[FEEDBACK] = feedback_of(titles, named, row, items.statistics)
    values = np.stack([named[name] for name in pairs.names], 1)
    return Candidates(row, place, item, pairs.names, values)


@dataclass(frozen=True)
class ListRanker:
    """Orders what was found: `linear`, `trees`, or the sum of both, standardised (`blend`)."""

    kind: str
    linear: LinearRanker | None
    trees: TreeRanker | None

    @property
    def names(self) -> tuple[str, ...]:
        """The features that it takes."""
        one = self.linear or self.trees
        assert one is not None
        return one.names

    def scores(self, candidates: Candidates) -> Float64[np.ndarray, "M"]:
        """The score of each place; ValueError where the features are others."""
        names, values = candidates.names, candidates.values
        found = [one.scores(names, values) for one in (self.linear, self.trees) if one is not None]
        return found[0] if len(found) == 1 else blended(found, candidates.row)

    def save(self, folder: Path) -> None:
        """Leaves a file for each of its parts."""
        for name, one in ((LINEAR_FILE, self.linear), (TREES_FILE, self.trees)):
            if one is not None:
                one.save(folder / name)

    @classmethod
    def load(cls, folder: Path, kind: str) -> "ListRanker":
        """What `save` left of a ranker of this kind; UserError where it cannot be read."""
        ours = LinearRanker.load(folder / LINEAR_FILE) if kind in (LINEAR, BLEND) else None
        theirs = TreeRanker.load(folder / TREES_FILE) if kind in (TREES, BLEND) else None
        return cls(kind, ours, theirs)


def out_of_fold(
    candidates: Candidates, gains: Float[np.ndarray, "M"], folds: Int[np.ndarray, "M"]
) -> dict[str, Float64[np.ndarray, "M"]]:
    """The scores of every place by rankers of each of KINDS that were fitted without its fold.

    A fold without which no query has a positive gain is scored 0.
    """
    lists = candidates.lists(gains)
    ridge, ours = _ridge(lists, folds), np.zeros(len(gains))
    for fold in np.unique(folds):
        others = lists.rows(folds != fold)
        if (others.gains > 0).any():
            inside = folds == fold
            ours[inside] = lists.features[inside] @ linear.fit(others, ridge=ridge)
    theirs = trees.held_out(lists, folds)
    return {LINEAR: ours, TREES: theirs, BLEND: blended([ours, theirs], candidates.row)}


def fitted(
    kind: str,
    candidates: Candidates,
    gains: Float[np.ndarray, "M"],
    folds: Int[np.ndarray, "M"],
) -> ListRanker:
    """The ranker of a kind on all lists; the ridge strength is chosen on the folds.

    Raises ValueError where no query has a positive gain.
    """
    lists, ours, theirs = candidates.lists(gains), None, None
    if kind in (LINEAR, BLEND):
        ridge = _ridge(lists, folds)
        weights = linear.fit(lists, ridge=ridge)
        ours = LinearRanker(candidates.names, tuple(map(float, weights)), ridge)
    if kind in (TREES, BLEND):
        theirs = TreeRanker(candidates.names, trees.fit(lists))
    return ListRanker(kind, ours, theirs)


def _ridge(lists: Lists, folds: Int[np.ndarray, "M"]) -> float:
    return linear.choose(lists, folds, strengths=STRENGTHS)[0]


def ordered(
    lists: Int[np.ndarray, "Q n"], candidates: Candidates, scores: Float[np.ndarray, "M"]
) -> Int[np.ndarray, "Q n"]:
    """The lists by descending score; equal ones as they were, NOTHING last."""
    found = np.full(lists.shape, -np.inf)
    found[candidates.row, candidates.place] = scores
    return np.take_along_axis(lists, np.argsort(-found, 1, kind="stable"), 1)
