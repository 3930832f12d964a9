"""The score of a pair by what ranker.json says: columns of each row, then a sum per query."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sie_jax.data import sentences
from sie_jax.data.features import LEXICAL, Pairs, raw, standardise
from sie_jax.data.lexical import CorpusStatistics, FieldStatistics
from sie_jax.data.schema import ATTRIBUTE
from sie_jax.data.sentences import SentenceEncoder
from sie_jax.errors import UserError
from sie_jax.evaluation import baselines
from sie_jax.models.ranker import FILE, LINEAR, STACK, Ranker

_NOTHING = FieldStatistics(0, 0.0, {})
# of the baselines, the one column that is their score
_BASELINES = {"bm25": "bm25_title", "checkpoint": "cosine"}


class Ranking(NamedTuple):
    """A ranker that is more than the folder's encoder, with what its columns are made of."""

    ranker: Ranker
    statistics: CorpusStatistics
    sentences: SentenceEncoder | None

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features, in their order."""
        if self.ranker.linear is not None:
            return self.ranker.linear.names
        return (*LEXICAL, *(("cosine",) if self.sentences else ()))

    @property
    def further(self) -> tuple[str, ...]:
        """The cells of a row that features are made of beside its texts: attributes, numbers."""
        if self.ranker.column:
            return (self.ranker.column,)
        return tuple(name for name in self.features if name not in (*LEXICAL, "cosine"))

    @property
    def reads_text(self) -> bool:
        """Whether an item's further text changes the score."""
        ranker = self.ranker.stack or self.ranker.linear
        if ranker is None:
            return False
        weights = dict(zip(ranker.names, ranker.weights, strict=True))
        return any(weights[name] for name in ("bm25_text", "overlap_text", "text_length"))


def load(folder: Path, ranker: Ranker) -> Ranking:
    """Reads what ranker.json names; UserError where a part of it is missing or does not fit."""
    statistics = CorpusStatistics(_NOTHING, _NOTHING)
    if ranker.corpus:
        statistics = CorpusStatistics.load(folder / ranker.corpus)
    encoder = sentences.load(folder / ranker.checkpoint) if ranker.checkpoint else None
    if (ranker.kind in (LINEAR, STACK)) != (ranker.linear is not None) or (
        (ranker.kind == STACK) != (ranker.stack is not None)
    ):
        raise UserError(
            f"{folder / FILE} says {ranker.kind} without its weights: copy the model's folder again"
        )
    return Ranking(ranker, statistics, encoder)


def columns(ranking: Ranking, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """What the score is made of, as it is before it is compared within the query: `[N]` each.

    rows: repaired texts `query`, `title` and `text`, and the cells `further`.

    Raises UserError where a cell with a number holds something else.
    """
    ranker = ranking.ranker
    queries, titles, texts = (
        [row.get(name) or "" for row in rows] for name in ("query", "title", "text")
    )
    if ranker.kind == "current":
        return {ranker.column: _numbers(rows, ranker.column)}
    if ranker.kind == "token_overlap":
        return {ranker.kind: baselines.overlap(queries, titles)}
    numeric = {}
    if ranking.sentences is not None:
        numeric["cosine"] = sentences.cosine(ranking.sentences, queries, titles)
    for name in ranking.further:
        if not name.startswith(ATTRIBUTE):
            numeric[name] = _numbers(rows, name)
    attributes = {
        name.removeprefix(ATTRIBUTE): [row.get(name) or "" for row in rows]
        for name in ranking.further
        if name.startswith(ATTRIBUTE)
    }
    pairs = Pairs(queries, titles, texts, [""] * len(rows), attributes, numeric)
    return dict(zip(pairs.names, raw(pairs, ranking.statistics).T, strict=True))


def scores(
    ranking: Ranking, column: Callable[[str], np.ndarray], query_index: np.ndarray
) -> np.ndarray:
    """The score of each pair, float64 `[N]`, from all pairs of its query.

    column: gives a column of `columns`, or the expected gains of an encoder of the stack. One is in
    memory at a time.
    """
    ranker = ranking.ranker
    if ranker.kind == "current":
        return baselines.current(column(ranker.column))
    if ranker.kind == "token_overlap":
        return column(ranker.kind)
    if ranker.kind in _BASELINES:
        return _standardised(column(_BASELINES[ranker.kind]), query_index)
    assert ranker.linear is not None
    total = np.zeros(len(query_index))
    linear = np.zeros(len(query_index))
    weights = (
        {}
        if ranker.stack is None
        else dict(zip(ranker.stack.names, ranker.stack.weights, strict=True))
    )
    for name, weight in zip(ranker.linear.names, ranker.linear.weights, strict=True):
        values = _standardised(column(name), query_index)
        linear += weight * values
        if weights:
            total += weights[name] * values
    if not weights:
        return linear
    total += weights[LINEAR] * linear
    for name in ranker.encoders:
        total += weights[name] * _standardised(column(name), query_index)
    return total


def _standardised(values: np.ndarray, query_index: np.ndarray) -> np.ndarray:
    return standardise(values[:, None], query_index)[:, 0].astype(np.float64)


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """The numbers of a cell; NaN where it is empty."""
    found = np.full(len(rows), np.nan)
    for at, row in enumerate(rows):
        cell = row.get(name)
        if cell in (None, ""):
            continue
        try:
            found[at] = float(cell)
        except (TypeError, ValueError):
            raise UserError(
                f"column {name}, example {row.get('example_id')}: {cell!r} is not a number, and "
                "the model ranks by it: give numbers, or leave the cell empty"
            ) from None
    return found
