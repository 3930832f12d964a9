"""Changes of queries, and what a ranker that is known makes of them."""

import numpy as np
import pytest
from scipy import stats

from sie_jax.evaluation import changes


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_typo_swaps_two_neighbouring_letters_of_one_long_word(rng):
    for _ in range(50):
        made = changes.typo("red  running shoes 4242", rng)
        words = made.split()
        assert words[0] == "red"
        assert words[3] == "4242"
        (word, was), *more = [
            pair
            for pair in zip(words, ["red", "running", "shoes", "4242"], strict=True)
            if pair[0] != pair[1]
        ]
        assert not more
        places = [n for n, (a, b) in enumerate(zip(word, was, strict=True)) if a != b]
        assert places == [places[0], places[0] + 1]
        assert (word[places[0]], word[places[1]]) == (was[places[1]], was[places[0]])
    for query in ("red hub", "", "aaaa", "ab12cd"):
        assert changes.typo(query, rng) is None


@pytest.mark.parametrize(
    ("query", "wanted"),
    [("usb hub 3", "3 hub usb"), ("hub", None), ("a b a", None), ("", None)],
)
def test_the_word_order_is_reversed(query, wanted, rng):
    assert changes.word_order(query, rng) == wanted


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("red shoe", "red shoes"),
        ("red shoes", "red shoe"),
        ("Red SHOES", "Red SHOE"),
        ("dress", None),
        ("cactus", None),
        ("size 42", None),
        ("关联关联", None),
        ("tv", None),
        ("", None),
    ],
)
def test_the_last_word_gains_or_loses_its_s(query, wanted, rng):
    assert changes.plural(query, rng) == wanted


def test_a_sample_has_whole_queries_with_something_to_rank():
    ids = ["a", "b", "b", "c", "c", "d", "d", "e", "e"]
    labels = np.array([1, 1, 0, 0, 0, 0, 1, 1, 1])  # a has one item, c no positive gain
    everything = changes.sample(ids, labels, (0.0, 1.0), most=100, seed=0)
    assert everything.tolist() == [1, 2, 5, 6, 7, 8]
    two = changes.sample(ids, labels, (0.0, 1.0), most=2, seed=3)
    assert len(two) == 4
    assert set(two) < set(everything)
    assert {ids[row] for row in two} == {
        ids[::-1][row]
        for row in changes.sample(ids[::-1], labels[::-1], (0.0, 1.0), most=2, seed=3)
    }
    drawn = {tuple(changes.sample(ids, labels, (0.0, 1.0), most=2, seed=s)) for s in range(20)}
    assert len(drawn) == 3
    assert changes.sample([], np.empty(0, int), (0.0, 1.0), most=5, seed=0).size == 0


def rows(queries, items):
    return [
        {"query": query, "query_id": query, "title": f"{item}", "example_id": f"{query}{item}"}
        for query in queries
        for item in range(items)
    ]


def test_a_ranker_that_ignores_the_query_is_not_moved():
    found = changes.measure(
        lambda given: np.array([float(row["title"]) for row in given]),
        rows(["red shoes", "usb cables"], 4),
        np.array([0, 0, 1, 1] * 2),
        (0.0, 1.0),
        seed=0,
    )
    assert list(found) == ["typo", "word order", "plural"]
    for one in found.values():
        assert (one["queries"], one["unscored"]) == (2, 0)
        assert one["ndcg@10"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert (one["first_changed"], one["kendall_tau"]) == (0.0, 1.0)
    assert found["word order"]["example"] == ["red shoes", "shoes red"]


def test_orders_are_compared_as_scipy_does():
    given, items, rng = rows(["red shoes", "usb cables", "hubs"], 6), 6, np.random.default_rng(4)
    labels = np.tile([0, 1, 0, 0, 1, 0], 3)
    scores = {row["query"]: rng.normal(size=items) for row in given}
    other = {name: rng.normal(size=items) for name in ("shoes red", "cables usb")}

    def score(rows):
        known = scores | other | {"hub": np.zeros(items), "red shoe": np.zeros(items)}
        return np.array(
            [known.get(row["query"], np.zeros(items))[int(row["title"])] for row in rows]
        )

    def ndcg(values, gains):
        discount = 1 / np.log2(np.arange(items) + 2)
        return gains[np.argsort(-values)] @ discount / (np.sort(gains)[::-1] @ discount)

    found = changes.measure(score, given, labels, (0.0, 1.0), seed=0)["word order"]
    pairs = [
        (scores["red shoes"], other["shoes red"]),
        (scores["usb cables"], other["cables usb"]),
    ]
    assert found["queries"] == 2  # hubs is one word
    assert found["kendall_tau"] == pytest.approx(
        np.mean([stats.kendalltau(a, b).statistic for a, b in pairs])
    )
    assert found["first_changed"] == np.mean([a.argmax() != b.argmax() for a, b in pairs])
    gains = labels[:items].astype(float)
    assert found["ndcg@10"]["value"] == pytest.approx(
        np.mean([ndcg(b, gains) - ndcg(a, gains) for a, b in pairs]), abs=1e-6
    )


def test_queries_without_a_score_are_counted():
    def score(rows):
        return np.array([np.nan if row["query"] == "shoes red" else 1.0 for row in rows])

    given = rows(["red shoes", "usb cables"], 2)
    found = changes.measure(score, given, np.array([0, 1, 0, 1]), (0.0, 1.0), seed=0)
    assert (found["word order"]["queries"], found["word order"]["unscored"]) == (1, 1)
    assert found["word order"]["example"] == ["usb cables", "cables usb"]
    assert (found["plural"]["queries"], found["plural"]["unscored"]) == (2, 0)


def test_without_queries_everything_is_undefined():
    found = changes.measure(lambda rows: np.empty(0), [], np.empty(0, int), (0.0, 1.0), seed=0)
    for one in found.values():
        assert one == {
            "queries": 0,
            "unscored": 0,
            "ndcg@10": {"value": None, "low": None, "high": None},
            "first_changed": None,
            "kendall_tau": None,
            "example": None,
        }
