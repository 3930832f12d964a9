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


def directions(vectors, rows):
    """What lies between each vector and the mean, scaled to norm 1, one by one."""
    middle = [sum(vectors[row][at] for row in rows) / len(rows) for at in range(len(vectors[0]))]
    found = {}
    for row in rows:
        apart = [x - m for x, m in zip(vectors[row], middle, strict=True)]
        norm = math.sqrt(sum(x * x for x in apart))
        found[row] = [x / norm if norm > 1e-3 else 0.0 for x in apart]
    return found


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_of_vectors_it_is_the_formula_whatever_the_chunks(monkeypatch, chunk):
    monkeypatch.setattr(feedback, "CHUNK", chunk)
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    place = np.array([3, 1, 4, 2, 0, 3])
    vectors = values[place].astype(np.float64).tolist()
    expected = []
    for i, query in enumerate(QUERIES):
        rows = [row for row, other in enumerate(QUERIES) if other == query]
        x, others = directions(vectors, rows), [row for row in rows if row != i]
        weights = [math.exp(FIRST[j]) for j in others]
        likeness = [sum(a * b for a, b in zip(x[i], x[j], strict=True)) for j in others]
        total = sum(w * one for w, one in zip(weights, likeness, strict=True))
        expected.append(total / sum(weights))
    found = feedback.feedback_of_vectors(feedback.Vectors(values, place), FIRST, QUERIES)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_vectors_in_the_middle_have_no_direction_and_an_only_one_no_other():
    values = np.eye(3, dtype=np.float32)
    same = feedback.Vectors(values, np.array([0, 0, 0, 1]))
    found = feedback.feedback_of_vectors(same, np.zeros(4), np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(found, [0, 0, 0, np.nan])
    none = feedback.Vectors(values[:0], np.empty(0, int))
    assert feedback.feedback_of_vectors(none, np.zeros(0), np.zeros(0, int)).shape == (0,)
