"""Words, corpus statistics and BM25, against bm25s."""

import json

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.data import lexical
from sie_jax.errors import UserError

CORPUS = [
    "Red running shoes for men",
    "Blue shoe, blue laces, blue box",
    "USB-C charger 20W with cable and cable ties",
    "Batteries AA (24 pack)",
    "Running shorts",
]
QUERIES = ["red shoes", "blue blue shoe", "cable", "aa battery 24", "unknown words"]


def matches(queries, documents):
    return lexical.match(lexical.split_all(queries), lexical.split_all(documents))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red_Shoes", ["red", "shoe"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("ｆｕｌｌ ﬁt", ["full", "fit"]),
        ("赤い靴 2個", ["赤", "い", "靴", "2", "個"]),
        ("5.5 inch", ["5", "5", "inch"]),
        ("  ,;- ", []),
    ],
)
def test_words(text, expected):
    assert lexical.words(text) == expected


@pytest.mark.parametrize(
    ("plural", "stem"),
    [
        ("batteries", "battery"),
        ("boxes", "box"),
        ("watches", "watch"),
        ("dresses", "dress"),
        ("shoes", "shoe"),
        ("cases", "case"),
        ("bus", "bus"),
        ("glass", "glass"),
        ("virus", "virus"),
        ("basis", "basis"),
        ("s", "s"),
    ],
)
def test_a_plural_ending_is_removed_and_nothing_else(plural, stem):
    assert lexical.singular(plural) == stem


def test_bm25_is_that_of_bm25s():
    tokens = [lexical.words(text) for text in CORPUS]
    index = bm25s.BM25(method="lucene", k1=1.3, b=0.6)
    index.index(tokens, show_progress=False)
    statistics = lexical.count(CORPUS)
    for query in QUERIES[:-1]:
        ours = lexical.bm25(matches([query] * len(CORPUS), CORPUS), statistics, k1=1.3, b=0.6)
        # bm25s keeps float32
        np.testing.assert_allclose(ours, index.get_scores(lexical.words(query)), rtol=1e-6)


def test_bm25_of_pairs_in_any_order_of_documents_outside_the_corpus_and_of_empty_texts():
    statistics = lexical.count(CORPUS)
    queries = ["red shoe", "", "red shoe", "cable", "new"]
    documents = ["a red hat", "red", "", "cables cable", "something new"]
    scores = lexical.bm25(matches(queries, documents), statistics)
    assert scores[1] == scores[2] == 0
    idf = np.log(1 + (5 - 1 + 0.5) / (1 + 0.5))
    norm = 1.5 * (0.25 + 0.75 * 3 / statistics.mean_length)
    assert scores[0] == pytest.approx(idf / (1 + norm), rel=1e-12)
    # a word that no document of the corpus has counts as the rarest
    norm = 1.5 * (0.25 + 0.75 * 2 / statistics.mean_length)
    assert scores[4] == pytest.approx(np.log(1 + 5.5 / 0.5) / (1 + norm), rel=1e-12)
    order = np.random.default_rng(0).permutation(5)
    again = lexical.bm25(
        matches([queries[i] for i in order], [documents[i] for i in order]), statistics
    )
    np.testing.assert_array_equal(again, scores[order])


def test_bm25_of_a_catalogue_without_words_is_zero():
    statistics = lexical.count(["", None])
    assert statistics == lexical.FieldStatistics(0, 0.0, {})
    np.testing.assert_array_equal(lexical.bm25(matches(["a", ""], ["b", ""]), statistics), [0, 0])


def test_matches_count_what_is_asked_and_found():
    found = matches(["b a b", "", "c"], ["a a b", "x", "y z"])
    assert [found.vocabulary[word] for word in found.word] == ["b", "a", "c"]
    assert found.pair.tolist() == [0, 0, 2]
    assert found.asked.tolist() == [2, 1, 1]
    assert found.found.tolist() == [1, 2, 0]
    assert found.lengths.tolist() == [3, 1, 2]
    assert found.overlap().tolist() == [1, 0, 0]


def test_statistics_count_documents_with_words():
    statistics = lexical.count(["red shoes", "shoe shoe", "", None, "-"])
    assert statistics == lexical.FieldStatistics(2, 2.0, {"red": 1, "shoe": 2})


def test_statistics_survive_the_file(tmp_path):
    path = tmp_path / "model" / "corpus.parquet"
    corpus = lexical.CorpusStatistics(lexical.count(CORPUS), lexical.count(["only text", "", "a"]))
    corpus.save(path)
    assert lexical.CorpusStatistics.load(path) == corpus
    assert [file.name for file in path.parent.iterdir()] == ["corpus.parquet"]


@pytest.mark.parametrize("content", [None, b"", b"PAR1 nonsense PAR1"])
def test_statistics_that_cannot_be_read_are_named(tmp_path, content):
    path = tmp_path / "corpus.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"corpus\.parquet: the corpus statistics cannot be read"):
        lexical.CorpusStatistics.load(path)


@pytest.mark.parametrize(
    ("title", "facts"),
    [
        ([1, None], {}),
        ([1, 3], {}),
        ([1, -1], {}),
        (["1", "2"], {}),
        ([1, 2], {"documents": "2"}),
        ([1, 2], {"documents": 10**400}),
        ([1, 2], {"mean_length": None}),
        ([1, 2], {"mean_length": float("nan")}),
        ([1, 2], {"mean_length": -1.0}),
        ([1, 2], []),
        ([1, 2], None),
    ],
)
def test_statistics_with_other_cells_are_named(tmp_path, title, facts):
    path = tmp_path / "corpus.parquet"
    table = pa.table({"word": ["red", "shoe"], "title": title, "text": [0, 0]})
    of_title = {"documents": 2, "mean_length": 2.0} | facts if isinstance(facts, dict) else facts
    fields = {"title": of_title, "text": {"documents": 0, "mean_length": 0.0}}
    pq.write_table(table.replace_schema_metadata({"fields": json.dumps(fields)}), path)
    with pytest.raises(UserError, match=r"corpus\.parquet: the corpus statistics cannot be read"):
        lexical.CorpusStatistics.load(path)


@pytest.mark.parametrize("fields", ["[" * 100_000, "[]", "{}", "1"])
def test_statistics_without_counts_are_named(tmp_path, fields):
    path = tmp_path / "corpus.parquet"
    table = pa.table({"word": ["red"], "title": [1], "text": [0]})
    pq.write_table(table.replace_schema_metadata({"fields": fields}), path)
    with pytest.raises(UserError, match=r"corpus\.parquet: the corpus statistics cannot be read"):
        lexical.CorpusStatistics.load(path)
