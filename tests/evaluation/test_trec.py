"""What trec_eval's own C code reads from the files, against the metrics of `ranking`."""

from fractions import Fraction
from urllib.parse import unquote

import numpy as np
import pytest
import pytrec_eval

from sie_jax.evaluation import ranking, trec

MEASURES = {
    "ndcg@10": "ndcg_cut_10",
    "ndcg": "ndcg",
    "mrr": "recip_rank",
    "recall@10": "recall_10",
}
GAINS = [(0.0, 0.01, 0.1, 1.0), (0.0, 1 / 3, 2 / 3, 1.0), (0.0, 0.0, 1.0, 2.5)]
HIGHEST = [0, 0, 0, 1]
# Rax computes in float32: a sum of 40 terms is good to about 40 · 2^-24. trec_eval computes in
# float64 from the same order of the same items.
CLOSE = 3e-6


def random_pairs(seed, *, num_queries=60, longest=40):
    """Pairs of all queries shuffled together; six distinct scores, so many ties."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest, size=num_queries)
    query_index = generator.permutation(np.repeat(np.arange(num_queries), lengths))
    labels = generator.choice(4, p=(0.5, 0.3, 0.1, 0.1), size=len(query_index))
    labels[query_index % 7 == 3] = 0  # no gain
    scores = generator.integers(6, size=len(query_index)) / 5 - 0.4
    ids = generator.permutation(len(query_index)).astype(str)
    return query_index, ids, labels, scores


def ours(query_index, ids, labels, scores, gains):
    """Of each metric, the queries that are not left out."""
    values = ranking.per_query(
        scores, labels, gains, query_index, num_queries=query_index.max() + 1, example_ids=ids
    )
    return {
        metric: {str(query): value for query, value in enumerate(each) if not np.isnan(value)}
        for metric, each in values.items()
    }


def theirs(qrels, run, *, relevance_level=1):
    """trec_eval's values for every query that is in both files."""
    with qrels.open() as judgments, run.open() as ranked:
        evaluator = pytrec_eval.RelevanceEvaluator(
            pytrec_eval.parse_qrel(judgments),
            {"ndcg_cut.10", "ndcg", "recip_rank", "recall.10"},
            relevance_level=relevance_level,
        )
        found = evaluator.evaluate(pytrec_eval.parse_run(ranked))
    return {
        metric: {query: values[measure] for query, values in found.items()}
        for metric, measure in MEASURES.items()
    }


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for query, value in expected.items():
        assert actual[query] == pytest.approx(value, abs=CLOSE), query


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gains", GAINS)
def test_trec_eval_gives_our_metrics_of_the_same_queries(tmp_path, seed, gains):
    query_index, ids, labels, scores = random_pairs(seed)
    levels = trec.relevance_levels(gains)
    trec.write_qrels(tmp_path / "gains", query_index, ids, labels, levels)
    trec.write_qrels(tmp_path / "highest", query_index, ids, labels, HIGHEST)
    trec.write_run(tmp_path / "run", query_index, ids, scores, tag="run")

    expected = ours(query_index, ids, labels, scores, gains)
    by_gain = theirs(tmp_path / "gains", tmp_path / "run")
    by_grade = theirs(tmp_path / "highest", tmp_path / "run")
    by_level = theirs(tmp_path / "gains", tmp_path / "run", relevance_level=levels[-1])
    for metric in ("ndcg@10", "ndcg"):
        assert_same(by_gain[metric], expected[metric])
    for metric in ("mrr", "recall@10"):
        assert_same(by_grade[metric], expected[metric])
        some = {query: by_level[metric][query] for query in expected[metric]}
        assert_same(some, expected[metric])
    assert len(expected["mrr"]) < len(expected["ndcg"]) < query_index.max() + 1


def test_scores_as_they_are_would_break_ties_the_other_way(tmp_path):
    # Else the test above could not tell whether ties are written well.
    query_index, ids, labels, scores = random_pairs(0)
    levels = trec.relevance_levels(GAINS[0])
    trec.write_qrels(tmp_path / "gains", query_index, ids, labels, levels)
    with (tmp_path / "run").open("w") as file:
        for query, example, score in zip(query_index, ids, scores, strict=True):
            file.write(f"{query} Q0 {example} 1 {score} run\n")
    found = theirs(tmp_path / "gains", tmp_path / "run")["ndcg"]
    expected = ours(query_index, ids, labels, scores, GAINS[0])["ndcg"]
    assert sum(abs(found[query] - expected[query]) > 0.01 for query in expected) > 10


@pytest.mark.parametrize("gainless", [True, False])
def test_a_document_missing_from_the_run_is_one_ranked_last(tmp_path, gainless):
    """All metrics where it has no gain, and those at ten where ten others stand above it."""
    query_index, ids, labels, scores = random_pairs(5)
    missing = np.random.default_rng(6).random(len(ids)) < 0.3
    if gainless:
        missing &= labels == 0
    left = np.bincount(query_index, ~missing)
    compared = left > 0 if gainless else left >= 10
    trec.write_qrels(tmp_path / "gains", query_index, ids, labels, [0, 1, 10, 100])
    trec.write_qrels(tmp_path / "highest", query_index, ids, labels, HIGHEST)
    trec.write_run(
        tmp_path / "run", query_index[~missing], ids[~missing], scores[~missing], tag="run"
    )
    expected = ours(query_index, ids, labels, np.where(missing, -9.0, scores), GAINS[0])
    for metric in ranking.METRICS if gainless else ("ndcg@10", "recall@10"):
        qrels = "gains" if metric.startswith("ndcg") else "highest"
        found = theirs(tmp_path / qrels, tmp_path / "run")[metric]
        queries = [query for query in expected[metric] if compared[int(query)]]
        assert len(queries) > 10
        assert_same({q: found[q] for q in queries}, {q: expected[metric][q] for q in queries})


def read_run(path):
    lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    assert all(len(line) == 6 and line[1] == "Q0" for line in lines)
    return lines


def test_scores_strictly_decrease_as_float32_and_are_lowered_no_further_than_that(tmp_path):
    one, half = np.float32(1), np.float32(0.5)
    below = np.nextafter(one, half)
    # 1 + 1e-12 is 1 as a float32; 1 − 2^-24 is the float32 below 1, and so taken when it comes
    scores = np.array([0.5, 1.0, 1 + 1e-12, 1 - 2.0**-24, 0.0, 0.0, -0.5, 1e-46])
    trec.write_run(tmp_path / "run", ["q"] * 8, [str(i) for i in range(8)], scores, tag="run")
    lines = read_run(tmp_path / "run")
    assert [line[2] for line in lines] == ["2", "1", "3", "0", "7", "4", "5", "6"]
    assert [int(line[3]) for line in lines] == list(range(1, 9))
    tiny = np.float32(2.0**-149)  # the smallest float32 above 0
    expected = [one, below, np.nextafter(below, half), half, 0.0, -tiny, -2 * tiny, -half]
    written = np.array([line[4] for line in lines], np.float64).astype(np.float32)
    np.testing.assert_array_equal(written, np.array(expected, np.float32))


def test_the_digits_written_tell_neighbours_apart(tmp_path):
    # From 1000 to 1024, float32 lie 6e-5 apart: eight digits would not do.
    trec.write_run(
        tmp_path / "run", ["q"] * 50, [str(i) for i in range(50)], np.full(50, 1020.0), tag="run"
    )
    written = np.array([line[4] for line in read_run(tmp_path / "run")], np.float32)
    np.testing.assert_array_equal(written, 1020 - np.arange(50) * 2.0**-14)


@pytest.mark.parametrize("score", [np.nan, np.inf, -1e39])
def test_a_score_that_is_no_float32_is_refused_and_nothing_written(tmp_path, score):
    with pytest.raises(ValueError, match=r"run 'a' has a score that is NaN or beyond ±1e38"):
        trec.write_run(tmp_path / "run", ["q", "q"], ["1", "2"], np.array([0.0, score]), tag="a")
    assert list(tmp_path.iterdir()) == []


def test_no_pairs_make_an_empty_file(tmp_path):
    trec.write_run(tmp_path / "run", [], [], np.zeros(0), tag="run")
    trec.write_qrels(tmp_path / "qrels", [], [], np.zeros(0, int), [0, 1])
    assert (tmp_path / "run").read_bytes() == (tmp_path / "qrels").read_bytes() == b""


STRANGE = ["a b", "a%20b", "a\tb", "a\u00a0b", "#a", "", "%", "%25", "größe", "a/b,c:d", "\n"]


def test_ids_of_any_kind_stay_one_field_and_different(tmp_path):
    fields = [trec.escape(one) for one in STRANGE]
    assert [unquote(field) for field in fields if field != "%"] == [one for one in STRANGE if one]
    assert len(set(fields)) == len(STRANGE)
    assert fields[STRANGE.index("a/b,c:d")] == "a/b,c:d"

    # Every id is a query, whose one relevant document, under the same id, is ranked second.
    queries, ids = np.repeat(STRANGE, 2).tolist(), [x for one in STRANGE for x in (one, "other")]
    labels, scores = np.tile([1, 0], len(STRANGE)), np.tile([0.25, 0.75], len(STRANGE))
    trec.write_qrels(tmp_path / "qrels", queries, ids, labels, [0, 1])
    trec.write_run(tmp_path / "run", queries, ids, scores, tag="my run")
    assert not any(line.startswith("#") for line in (tmp_path / "run").read_text().splitlines())
    found = theirs(tmp_path / "qrels", tmp_path / "run")["mrr"]
    assert found == dict.fromkeys(fields, 0.5)


def test_relevance_is_the_gains_times_the_smallest_whole_number():
    assert trec.relevance_levels((0.0, 0.01, 0.1, 1.0)) == [0, 1, 10, 100]
    assert trec.relevance_levels([grade / 3 for grade in range(4)]) == [0, 1, 2, 3]
    assert trec.relevance_levels(np.array([0.0, 0.5, 2 / 3])) == [0, 3, 4]
    assert trec.relevance_levels((0, 3, 1024)) == [0, 3, 1024]
    for classes in range(2, 30):
        gains = [grade / (classes - 1) for grade in range(classes)]
        levels = trec.relevance_levels(gains)
        assert [Fraction(level, levels[-1]) for level in levels] == [
            Fraction(grade, classes - 1) for grade in range(classes)
        ]


@pytest.mark.parametrize("gains", [(0.0, 2**-0.5, 1.0), (0.0, 0.0001, 1.0), (0.0, 1.0, 1025.0)])
def test_gains_that_no_small_whole_numbers_stand_for_are_refused(gains):
    with pytest.raises(ValueError, match="no multiples of one fraction"):
        trec.relevance_levels(gains)
