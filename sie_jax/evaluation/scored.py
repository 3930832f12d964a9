"""A labelled table whose columns hold scores, and what else could rank its pairs for free."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from sie_jax.data import cleaning, lexical
from sie_jax.data.schema import CURRENT, NUMERIC, LabelScale, check_labels
from sie_jax.data.sources import table as own_table
from sie_jax.errors import UserError
from sie_jax.evaluation import baselines
from sie_jax.evaluation.intervals import Judgments

MOST_CHARACTERS = 10**6  # of a text: nothing is tokenised here, so length is no fault


class Scored(NamedTuple):
    """The pairs that are fit to measure on, and what was left out.

    pairs: in the table's order, with the columns of `cleaning.clean`. read: rows of the table.
    rejected: how many of them were left out, by reason.
    """

    pairs: pa.Table
    scale: LabelScale
    read: int
    rejected: dict[str, int]

    @property
    def judgments(self) -> Judgments:
        """The labels of the pairs."""
        return Judgments(
            self.pairs["label"].to_numpy(),
            self.pairs["query_id"].to_pylist(),
            self.pairs["example_id"].to_pylist(),
            self.scale.names,
            self.scale.gains,
        )

    def missing(self, column: str) -> int:
        """How many pairs have no score in a column."""
        return int(np.isnan(self._numbers(column)).sum())

    def scores(self, column: str) -> Float64[np.ndarray, "N"]:
        """A column of scores; a pair without one comes after all others (`baselines.current`)."""
        return baselines.current(self._numbers(column))

    def _numbers(self, column: str) -> np.ndarray:
        numbers: np.ndarray = self.pairs[NUMERIC + column].to_numpy()
        return numbers.astype(np.float64)


def read(
    path: str,
    *,
    columns: Mapping[str, str],
    scores: Sequence[str] = (),
    attributes: Sequence[str] = (),
    labels: Sequence[str] = (),
    gains: Sequence[float] = (),
    flags: Mapping[str, Sequence[str]] | None = None,
) -> Scored:
    """Reads a labelled table; rows are rejected for the reasons for which training rejects them.

    Args:
      path, columns, attributes, labels: as for `data.sources.table.read`.
      scores: columns of numbers, the higher the better.
      gains: one for each label, lowest grade first; where there are none, k/(K − 1).
      flags: the columns of scores that each flag names, for the message about a missing one;
        without a flag it is what a model ranks by.

    Raises:
      UserError: as `data.sources.table.read`; a score is the label itself; no pair is left.
    """
    if labels:
        check_labels("--labels", labels)
    for name in scores:
        if name == columns["label"]:
            raise UserError(f"{name} is the column of the label: name a column of scores")
    source = own_table.read(
        path,
        columns=columns,
        attributes=attributes,
        features=list(dict.fromkeys(scores)),
        labels=labels,
        gains=gains or None,
        fix="give what the model ranks by",
        flags=flags,
    )
    try:
        cleaned = cleaning.clean(
            source.table,
            source.scale,
            max_query_characters=MOST_CHARACTERS,
            max_title_characters=MOST_CHARACTERS,
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    reasons = Counter(source.unreadable["reason"].to_pylist())
    reasons.update(cleaned.rejected["reason"].to_pylist())
    if not cleaned.kept.num_rows:
        counts = ", ".join(f"{times} {reason}" for reason, times in reasons.most_common())
        raise UserError(f"{path}: no row is left to measure on ({counts}): correct the table")
    read_rows = source.table.num_rows + source.unreadable.num_rows
    return Scored(cleaned.kept, source.scale, read_rows, dict(reasons.most_common()))


def free(pairs: pa.Table, *, seed: int = 0) -> dict[str, Float64[np.ndarray, "N"]]:
    """The scores of the baselines that need no training, by name.

    They are `random`, `token_overlap`, `bm25` over the titles of the table's own items, and
    `current` where the table has today's score.

    seed: of the random one.
    """
    ids, queries, titles = (pairs[name].to_pylist() for name in ("example_id", "query", "title"))
    items = pairs.group_by("item_id").aggregate([("title", "min")])
    statistics = lexical.count(items["title_min"].to_pylist())
    found = {
        # classes are drawn too, of which ranking makes no use: any label will do
        "random": baselines.random(
            ids, training_labels=np.zeros(1, np.int64), num_classes=2, seed=seed
        ).scores,
        "token_overlap": baselines.overlap(queries, titles),
        "bm25": baselines.bm25(queries, titles, statistics),
    }
    if CURRENT in pairs.column_names:
        found[CURRENT] = baselines.current(pairs[CURRENT].to_numpy())
    return found
