"""The score of a pair by what ranker.json says: columns of each row, then a sum per query."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from sie_jax.data import sentences
from sie_jax.data.features import (
    CHECKPOINTS,
    COSINE,
    COSINE_TEXT,
    FEEDBACK,
    LEXICAL,
    RUN,
    Pairs,
    blended,
    feedback_of,
    is_own,
    raw,
    standardise,
)
from sie_jax.data.lexical import CorpusStatistics, FieldStatistics
from sie_jax.data.readers import vectors
from sie_jax.data.schema import ATTRIBUTE, CURRENT, NUMERIC
from sie_jax.data.sentences import SentenceEncoder
from sie_jax.data.translation import Translation, item_texts
from sie_jax.errors import UserError
from sie_jax.evaluation import baselines
from sie_jax.models.linear import LinearRanker
from sie_jax.models.ranker import ENCODER, FILE, LINEAR, TRANSLATION, Ranker
from sie_jax.models.trees import TreeRanker

TRANSLATED = RUN + TRANSLATION
# the columns that a learnt model makes beside encoders: each pair has a number there
OF_MODELS = (TRANSLATED, COSINE, COSINE_TEXT)
TITLE = f"{RUN}title"  # no feature is called so
_NOTHING = FieldStatistics(0, 0.0, {})
# of the baselines, the one column that is their score
_BASELINES = {"bm25": "bm25_title", **CHECKPOINTS}


class Ranking(NamedTuple):
    """A ranker that is more than the folder's encoder, with what its columns are made of."""

    ranker: Ranker
    statistics: CorpusStatistics
    translation: Translation | None
    sentences: SentenceEncoder | None
    trees: TreeRanker | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features, in their order."""
        for ranker in (self.ranker.linear, self.trees, *self.ranker.heads.values()):
            if ranker is not None:
                return ranker.names
        cosine = CHECKPOINTS.get(self.ranker.kind)
        return LEXICAL if cosine is None else (*LEXICAL, cosine)

    @property
    def further(self) -> dict[str, str]:
        """The table's column of each cell that the score is made of beside texts.

        Attributes (`attribute:brand`) are texts; features (`numeric:price`) and today's score
        (`current`) are numbers, None where they are missing. That of image[3] is `image`.
        """
        if self.ranker.column:
            return {CURRENT: self.ranker.column}
        attributes = [name for name in self.features if name.startswith(ATTRIBUTE)]
        found = {name: name.removeprefix(ATTRIBUTE) for name in attributes}
        own = [name for name in self.features if not is_own(name)]
        return found | {NUMERIC + name: vectors.column(name) for name in own}


def load(folder: Path, ranker: Ranker) -> Ranking:
    """Reads what ranker.json names.

    Raises UserError where a part of it is missing, or it ranks by a feature that cannot be made.
    """
    trees = TreeRanker.load(folder / ranker.trees) if ranker.trees else None
    sums = [one.names for one in (ranker.linear, trees, *ranker.heads.values()) if one is not None]
    for names in sums:
        _check_columns(folder / FILE, ranker, names)
        if names != sums[0]:
            raise _unfit(folder / FILE, {*names} ^ {*sums[0]} or {*names})
    statistics = CorpusStatistics(_NOTHING, _NOTHING)
    if ranker.corpus:
        statistics = CorpusStatistics.load(folder / ranker.corpus)
    encoder = sentences.load(folder / ranker.checkpoint) if ranker.checkpoint else None
    words = Translation.load(folder / ranker.translation) if ranker.translation else None
    return Ranking(ranker, statistics, words, encoder, trees)


def _check_columns(path: Path, ranker: Ranker, names: Sequence[str]) -> None:
    """Raises UserError where a column of the sums is none that `columns` makes, or is missing."""
    made = {*LEXICAL, FEEDBACK, *((COSINE, COSINE_TEXT) if ranker.checkpoint else ())}
    wrong = {
        name
        for name in names
        if is_own(name) and name not in made and not name.startswith(ATTRIBUTE)
    }
    if ranker.stack is not None:
        wrong |= {*names, RUN + LINEAR, TRANSLATED, *ranker.encoders} ^ set(ranker.stack.names)
    if wrong:
        raise _unfit(path, wrong)


def _unfit(path: Path, wrong: Collection[str]) -> UserError:
    return UserError(
        f"{path} cannot be used (its sums do not fit together, of {', '.join(sorted(wrong))}): "
        "copy the model's folder again"
    )


def columns(ranking: Ranking, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """What the score is made of, as it is before it is compared within the query: `[N]` each.

    rows: repaired texts `query`, `title` and `text`, and the cells `further`. An item without an
    attribute is one of which it is not known.

    Raises UserError where a row lacks a cell with a number.
    """
    for name, column in ranking.further.items():
        if not name.startswith(ATTRIBUTE) and any(name not in row for row in rows):
            raise UserError(f"a row has no {name}, by which the model ranks: give it ({column})")

    ranker = ranking.ranker
    queries, titles, texts = (
        [row.get(name) or "" for row in rows] for name in ("query", "title", "text")
    )
    if ranker.kind == CURRENT:
        return {CURRENT: _numbers(rows, CURRENT)}
    if ranker.kind == "token_overlap":
        return {ranker.kind: baselines.overlap(queries, titles)}
    made = {}
    if ranking.translation is not None:
        made[TRANSLATED] = ranking.translation.scores(queries, item_texts(titles, texts))
    if ranker.kind == TRANSLATION:
        return made
    numeric: dict[str, np.ndarray] = {}
    if ranking.sentences is not None:
        further = texts if COSINE_TEXT in ranking.features else None
        numeric |= sentences.features(ranking.sentences, queries, titles, further)
    for name in ranking.further:
        if name.startswith(NUMERIC):
            numeric[name.removeprefix(NUMERIC)] = _numbers(rows, name)
    attributes = {
        column: [row.get(name) or "" for row in rows]
        for name, column in ranking.further.items()
        if name.startswith(ATTRIBUTE)
    }
    pairs = Pairs(queries, titles, texts, [""] * len(rows), attributes, numeric)
    if FEEDBACK in ranking.features:
        made[TITLE] = np.array(titles, object)
    return made | dict(zip(pairs.columns, raw(pairs, ranking.statistics).T, strict=True))


def scores(
    ranking: Ranking, column: Callable[[str], np.ndarray], query_index: np.ndarray
) -> np.ndarray:
    """The score of each pair, float64 `[N]`, from all pairs of its query.

    column: gives a column of `columns`, or the expected gains of an encoder of the stack. One is in
    memory at a time; trees need all F features at once, float32 `[N, F]`.
    """
    ranker = ranking.ranker
    if ranker.kind == CURRENT:
        return baselines.current(column(CURRENT))
    if ranker.kind == "token_overlap":
        return column(ranker.kind)
    if ranker.kind == TRANSLATION:
        return column(TRANSLATED)
    if ranker.kind in _BASELINES:
        return _standardised(column(_BASELINES[ranker.kind]), query_index)
    names, trees = ranking.features, ranking.trees
    features = np.empty((len(query_index), len(names)), np.float32) if trees else None
    linear, total = np.zeros(len(query_index)), np.zeros(len(query_index))
    of_linear, of_stack = _weights(ranker.linear), _weights(ranker.stack)
    of_heads = {encoder: _weights(head) for encoder, head in ranker.heads.items()}
    heads = {encoder: np.zeros(len(query_index)) for encoder in of_heads}
    for at, name in enumerate(names):
        if name == FEEDBACK:
            values = _feedback(ranking, column, query_index)
        else:
            values = _standardised(column(name), query_index)
        if features is not None:
            features[:, at] = values
        if of_linear:
            linear += of_linear[name] * values
        if of_stack:
            total += of_stack[name] * values
        for encoder, weights in of_heads.items():
            heads[encoder] += weights[name] * values
    if ranker.kind == ENCODER:
        (encoder,) = ranker.encoders
        return column(encoder) + heads[encoder]
    if trees is not None and features is not None:
        boosted = trees.scores(names, features)
        return blended([linear, boosted], query_index) if of_linear else boosted
    if not of_stack:
        return linear
    total += of_stack[RUN + LINEAR] * linear
    for name in (TRANSLATED, *ranker.encoders):
        values = column(name) + heads.get(name, 0.0)
        total += of_stack[name] * _standardised(values, query_index)
    return total


def _weights(ranker: LinearRanker | None) -> dict[str, float]:
    return {} if ranker is None else dict(zip(ranker.names, ranker.weights, strict=True))


def short_lists(ranker: Ranker, lengths: Int[np.ndarray, "Q"]) -> str:
    """What is to be said of queries with far fewer items than the ranker learned from; "" of none.

    These are lists of less than half `list_lengths["low"]`. A feature standardised over few items
    is nearly noise: of two items, one always has it and the other lacks it.

    lengths: how many items each query has.
    """
    if not ranker.list_lengths:
        return ""
    low, median = (ranker.list_lengths[name] for name in ("low", "median"))
    least = -(-low // 2)
    short = int((lengths < least).sum())
    if not short:
        return ""
    return (
        f"{short:,} of {len(lengths):,} queries {'has' if short == 1 else 'have'} fewer than "
        f"{least} items: this ranker compares the items of a query with each other, and learned "
        f"from lists of {low} items or more (median {median}), so the order of such short lists is "
        "unreliable"
    )


def _feedback(
    ranking: Ranking, column: Callable[[str], np.ndarray], query_index: np.ndarray
) -> np.ndarray:
    first = COSINE if COSINE in ranking.features else "bm25_title"
    columns = {first: standardise(column(first)[:, None], query_index)[:, 0]}
    found = feedback_of(column(TITLE).tolist(), columns, query_index, ranking.statistics)
    return found.astype(np.float64)


def _standardised(values: np.ndarray, query_index: np.ndarray) -> np.ndarray:
    return standardise(values[:, None], query_index)[:, 0].astype(np.float64)


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """The numbers of a cell; NaN where it is missing."""
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
