"""Near-duplicates by their words, and similar items by TF-IDF."""

import numpy as np
import pyarrow as pa

from sie_jax.evaluation import likeness


def titles(*texts: str) -> pa.ChunkedArray:
    return pa.chunked_array([list(texts)])


def test_queries_are_counted_by_their_normal_form() -> None:
    pairs = pa.table({"query": ["Red  shoes", "lamp", "red shoes", "LAMP"]})
    assert likeness.query_index(pairs).tolist() == [0, 1, 0, 1]


def test_near_duplicates_have_the_same_words_and_different_labels() -> None:
    given = titles(
        "Red Shoes, size 42",
        "size 42: red shoe",  # the same words, another label
        "red shoes size 43",
        "red shoes size 42",  # of another query
        "lamp",
        "Lamps!",  # the same label
        "!!!",
        "???",  # no words
    )
    query = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    labels = np.array([1, 0, 0, 0, 1, 1, 0, 1])
    found = likeness.near_duplicates(given, query, labels)
    assert found.tolist() == [0, 0, -1, -1, -1, -1, -1, -1]


def test_votes_of_similar_items() -> None:
    shoes = ("red canvas shoes", "red canvas shoes wide", "lamp", "red canvas shoes kids")
    given = titles(*shoes, "red canvas", *["desk"] * 20)  # with these, shared words count
    query = np.array([0, 0, 0, 0, 1, *range(2, 22)])
    labels = np.array([0, 1, 1, 2, 2, *[0] * 20])
    wanted = np.array([True, True, True, False, True, *[False] * 20])
    found = likeness.votes(given, query, labels, wanted, classes=3)[:5]
    # row 0 is like 1 and 3; the lamp is like none; row 3 is not asked for; row 4 is alone
    assert found.tolist() == [[0, 1, 1], [1, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_the_nearest_alone_vote() -> None:
    number = likeness.NEAREST + 4
    query, labels = np.zeros(number, int), np.arange(number) % 2
    found = likeness.votes(
        titles(*["red shoe"] * number), query, labels, np.ones(number, bool), classes=2
    )
    assert found.sum(1).tolist() == [likeness.NEAREST] * number
    assert found[0].tolist() == [4, 5]  # rows 1 to 9, the first given


def test_many_queries_are_taken_in_pieces(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    words = np.array(["red", "blue", "shoe", "lamp", "wide"])
    given = titles(*(" ".join(rng.choice(words, 3)) for _ in range(60)))
    query, labels = rng.integers(12, size=60), rng.integers(2, size=60)
    wanted = np.ones(60, bool)
    whole = likeness.votes(given, query, labels, wanted, classes=2)
    monkeypatch.setattr(likeness, "CHUNK_ROWS", 7)
    monkeypatch.setattr(likeness, "_ROWS", 2)
    np.testing.assert_array_equal(likeness.votes(given, query, labels, wanted, classes=2), whole)
    assert whole.sum() > 60
