"""Feedback against its formula, pair by pair, and where there is nothing to compare with."""

import math

import numpy as np
import pytest

from sie_jax.data import feedback, lexical

TITLES = ["red shoe", "red boot, red", "blue hat", "", "green tea tea", "red shoe"]
STATISTICS = lexical.count([*TITLES, "shoe", "lamp"])
QUERIES = np.array([0, 0, 1, 0, 1, 0])
FIRST = np.array([0.5, -1.0, 2.0, 0.1, 0.0, 0.3])


def vector(title):
    distinct = set(lexical.words(title))
    idf = {word: float(STATISTICS.idf([word])[0]) for word in distinct}
    norm = math.sqrt(sum(value**2 for value in idf.values()))
    return {word: value / norm for word, value in idf.items()}


def by_formula(titles, first, queries):
    vectors = [vector(title) for title in titles]
    found = []
    for i, query in enumerate(queries):
        others = [j for j, other in enumerate(queries) if other == query and j != i]
        weights = [math.exp(first[j]) for j in others]
        likeness = [sum(vectors[i][w] * vectors[j].get(w, 0) for w in vectors[i]) for j in others]
        total = sum(w * x for w, x in zip(weights, likeness, strict=True))
        found.append(total / sum(weights) if others else math.nan)
    return found


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_it_is_the_formula_whatever_the_chunks(monkeypatch, chunk):
    monkeypatch.setattr(feedback, "CHUNK", chunk)
    found = feedback.feedback(TITLES, FIRST, QUERIES, STATISTICS)
    # sums of a few numbers of size 1 and below
    np.testing.assert_allclose(found, by_formula(TITLES, FIRST, QUERIES), atol=1e-14)
    assert found[3] == 0, "a title without words"


def test_large_scores_do_not_overflow():
    plain = feedback.feedback(TITLES, FIRST, QUERIES, STATISTICS)
    moved = feedback.feedback(TITLES, FIRST + 1e4, QUERIES, STATISTICS)
    np.testing.assert_allclose(moved, plain, rtol=1e-9)  # 1e4 costs four of sixteen digits


def test_an_only_item_has_no_other_to_be_like():
    found = feedback.feedback(["red", "blue", "red"], np.zeros(3), np.array([0, 1, 0]), STATISTICS)
    np.testing.assert_array_equal(found, [1, np.nan, 1])
    assert feedback.feedback([], np.zeros(0), np.zeros(0, int), STATISTICS).shape == (0,)
