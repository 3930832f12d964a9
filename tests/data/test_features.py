"""Features of pairs: what each counts, how they are scaled, and that they can be made again."""

import itertools

import numpy as np
import pytest

from sie_jax.data import features, feedback, lexical

TITLES = [
    "Red running shoes for men",
    "Running shoe red, 2 pack",
    "Samsung phone 128 GB",
    "Phone case",
    "",
]
TEXTS = ["comfortable", "", "16 GB memory, 5.5 inch", "fits samsung", "red running shoes"]
STATISTICS = lexical.CorpusStatistics(lexical.count(TITLES), lexical.count(TEXTS))


def pairs(query, **further):
    return features.Pairs([query] * 5, TITLES, TEXTS, ["q"] * 5, **further)


def columns(given):
    return dict(zip(given.columns, features.raw(given, STATISTICS).T, strict=True))


def test_words_and_phrases():
    found = columns(pairs("running shoes"))
    assert found["overlap_title"].tolist() == [1, 1, 0, 0, 0]
    assert found["overlap_text"].tolist() == [1, 1, 0, 0, 1]
    assert found["all_words"].tolist() == [1, 1, 0, 0, 0]
    assert found["phrase"].tolist() == [1, 1, 0, 0, 0]
    assert columns(pairs("shoes running"))["phrase"].tolist() == [0, 0, 0, 0, 0]
    assert columns(pairs("hoes"))["phrase"].tolist() == [0, 0, 0, 0, 0]


def test_first_and_last_word():
    found = columns(pairs("samsung case red"))
    assert found["first_word"].tolist() == [0, 0, 1, 0, 0]
    assert found["last_word"].tolist() == [1, 1, 0, 0, 0]


def test_bm25_and_lengths():
    found = columns(pairs("red shoes"))
    for name, documents, statistics in (
        ("title", TITLES, STATISTICS.title),
        ("text", TEXTS, STATISTICS.text),
    ):
        matches = lexical.match(lexical.split_all(["red shoes"] * 5), lexical.split_all(documents))
        np.testing.assert_array_equal(found[f"bm25_{name}"], lexical.bm25(matches, statistics))
        lengths = [len(lexical.words(document)) for document in documents]
        np.testing.assert_allclose(found[f"{name}_length"], np.log1p(lengths), rtol=1e-15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16 GB", {(16, "gb")}),
        ("16gb ram and 16-GB", {(16, "gb")}),
        ('5.5" or 5,5 inches', {(5.5, "in")}),
        ("2x 1,000 mAh", {(2, "x"), (1000, "mah")}),
        ("pack of 12", {(12, "")}),
        ("100% cotton, 12 oz.", {(100, "%"), (12, "oz")}),
        ("iphone12 wh-1000xm4", set()),
        ("no numbers", set()),
        ("٣ kg", {(3, "kg")}),
    ],
)
def test_quantities(text, expected):
    assert features.quantities(text) == expected


def test_quantities_count_with_their_units():
    assert columns(pairs("phone 128gb"))["quantities"].tolist() == [0, 0, 1, 0, 0]
    assert columns(pairs("phone 128 inch"))["quantities"].tolist() == [0, 0, 0, 0, 0]
    assert columns(pairs("phone 128 16gb"))["quantities"].tolist() == [0, 0, 1, 0, 0]
    assert columns(pairs("shoes 2 3"))["quantities"].tolist() == [0, 0.5, 0, 0, 0]
    assert np.isnan(columns(pairs("phone"))["quantities"]).all()


def test_attributes_and_numeric_columns():
    given = pairs(
        "dark blue samsung phone",
        attributes={"brand": ["Samsung", "Sony", "", "-", "Samsung Galaxy"]},
        numeric={"price": np.array([1, np.nan, 3, 4, 5])},
    )
    assert given.columns == (*features.LEXICAL, "attribute:brand", "price")
    assert given.names == (*features.LEXICAL, "feedback", "attribute:brand", "price")
    found = columns(given)
    np.testing.assert_array_equal(found["attribute:brand"], [1, 0, np.nan, np.nan, 0.5])
    np.testing.assert_array_equal(found["price"], [1, np.nan, 3, 4, 5])


def test_standardised_within_the_query():
    generator = np.random.default_rng(0)
    values = generator.normal(3, 2, (30, 2))
    query = generator.integers(0, 4, 30)
    scaled = features.standardise(values, query)
    assert scaled.dtype == np.float32
    for q in range(4):
        of_query = values[query == q]
        expected = (of_query - of_query.mean(0)) / of_query.std(0)
        np.testing.assert_allclose(scaled[query == q], expected, rtol=1e-6, atol=1e-6)


def test_constant_and_missing_values_are_zero():
    values = np.array(
        [
            # constant, constant to rounding, all missing, some missing, one known
            [0.1, 0.5, np.nan, 1.0, np.nan],
            [0.1, 0.5 + 1e-8, np.inf, np.nan, 7.0],
            [0.1, 0.5 - 1e-8, -np.inf, 3.0, np.nan],
        ]
    )
    scaled = features.standardise(values, np.zeros(3, int))
    np.testing.assert_array_equal(scaled[:, [0, 1, 2, 4]], 0)
    np.testing.assert_allclose(scaled[:, 3], [-1, 0, 1], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e308, 1e200, 1e-200, 1e-307, -1e308])
def test_numbers_whose_squares_are_no_floats(scale):
    """Also in a query beside one of usual numbers, without a warning."""
    values = np.array([1.0, 0.5, -1.0, np.nan, 3.0, 4.0])
    factors, query = np.array([scale] * 4 + [1.0] * 2), np.array([0, 0, 0, 0, 1, 1])
    with np.errstate(all="raise"):
        scaled = features.standardise((values * factors)[:, None], query)
        expected = features.standardise((values * np.sign(factors))[:, None], query)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    assert scaled[3] == 0


def test_the_same_numbers_alone_in_other_order_and_in_chunks(monkeypatch):
    queries = [text for text in ("red shoes", "samsung phone 16 gb", "case") for _ in range(5)]
    given = features.Pairs(queries, TITLES * 3, TEXTS * 3, queries)
    whole = features.standardised(given, STATISTICS).values
    order = np.random.default_rng(1).permutation(15)
    moved = features.Pairs(
        *([column[i] for i in order] for column in (queries, TITLES * 3, TEXTS * 3, queries))
    )
    # sums over the query's rows are taken in another order
    np.testing.assert_allclose(
        features.standardised(moved, STATISTICS).values, whole[order], atol=1e-6
    )
    alone = features.Pairs(queries[:5], TITLES, TEXTS, queries[:5])
    np.testing.assert_array_equal(features.standardised(alone, STATISTICS).values, whole[:5])
    monkeypatch.setattr(features, "CHUNK", 4)
    monkeypatch.setattr(feedback, "CHUNK", 4)
    np.testing.assert_array_equal(features.standardised(given, STATISTICS).values, whole)


def test_no_pairs():
    empty = features.standardised(features.Pairs([], [], [], []), STATISTICS)
    assert empty.values.shape == (0, len(features.LEXICAL) + 1)


def test_columns_of_other_lengths_are_refused():
    for name, short in itertools.product(("attributes", "numeric"), ([], [1.0])):
        with pytest.raises(ValueError, match="5 queries"):
            features.raw(pairs("a", **{name: {"x": short}}), STATISTICS)


@pytest.mark.parametrize("numeric", [{}, {"cosine": np.array([0.3, 0.1, 0.9, 0.2, 0.2])}])
def test_feedback_is_weighed_by_the_cosine_or_by_bm25(numeric):
    given = pairs("red shoes", numeric=numeric)
    found = features.standardised(given, STATISTICS)
    columns = dict(zip(found.names, found.values.T, strict=True))
    first = columns["cosine" if numeric else "bm25_title"]
    wanted = feedback.feedback(TITLES, first, np.zeros(5, int), STATISTICS.title)
    expected = features.standardise(wanted[:, None], np.zeros(5, int))[:, 0]
    np.testing.assert_array_equal(columns["feedback"], expected)


def test_a_blend_takes_each_score_on_the_scale_of_its_query() -> None:
    query = np.array([0, 0, 1, 1, 1])
    one, other = np.array([3.0, 1, 5, 6, 7]), np.array([-10.0, 30, 2, 2, 2])
    third = 1.5**0.5  # 5, 6, 7 have a deviation of sqrt(2/3)
    found = features.blended([one, 100 * other + query], query)
    # float32 is what the standardised scores are
    np.testing.assert_allclose(found, [0, 0, -third, 0, third], atol=1e-6)
