"""Untrained: what ranks without any training, against the same computed from the texts alone."""

from pathlib import Path

import numpy as np
import pytest

from sie_jax.data import preparing
from sie_jax.stages.features import Features
from sie_jax.stages.untrained import untrained

pytestmark = pytest.mark.slow


def test_the_baselines_of_a_split_without_checkpoint_and_score_of_today(finished: Path) -> None:
    prepared = preparing.load(finished)
    pairs = prepared.split("validation")
    bm25 = np.linspace(-1, 1, pairs.num_rows)[:, None]
    found = untrained(
        prepared, Features(("bm25_title",), {"validation": bm25}, None), "validation", seed=3
    )
    assert list(found) == ["random", "token_overlap", "bm25"]
    np.testing.assert_array_equal(found["bm25"].scores, bm25[:, 0])
    for row, score in zip(pairs.to_pylist(), found["token_overlap"].scores, strict=True):
        query, title = (set(row[name].casefold().split()) for name in ("query", "title"))
        if all(word.isalnum() for word in query | title):
            assert score == pytest.approx(len(query & title) / len(query))


def test_the_cosine_and_the_score_of_today_are_among_them_where_there_are_such(
    finished: Path,
) -> None:
    prepared = preparing.load(finished)
    rows = prepared.split("test").num_rows
    values = np.stack([np.zeros(rows), np.arange(rows)], 1)
    known = Features(("bm25_title", "cosine"), {"test": values}, None)
    today = np.full(prepared.pairs.num_rows, 2.0)
    pairs = prepared.pairs.append_column("current", [today])
    found = untrained(prepared._replace(pairs=pairs), known, "test", seed=0)
    assert list(found) == ["random", "token_overlap", "bm25", "checkpoint", "current"]
    np.testing.assert_array_equal(found["checkpoint"].scores, np.arange(rows))
    assert set(found["current"].scores) == {2.0}
