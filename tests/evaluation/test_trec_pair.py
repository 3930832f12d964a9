"""Qrels and runs as they come, against trec_eval's own code and ir-measures."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from sie_jax.errors import UserError
from sie_jax.evaluation import trec_pair

HIGHEST = 3
# Rax computes in float32, trec_eval in float64
CLOSE = 3e-6
MEASURES = {
    "ndcg@10": "ndcg_cut_10",
    "ndcg": "ndcg",
    "mrr": "recip_rank",
    "recall@10": "recall_10",
}


def written(folder: Path) -> tuple[Path, Path]:
    """Forty queries with many ties, unjudged documents, documents that are not found, and doubles.

    Scores that differ in float64 alone are ties too. One query has no run, one no judgments, and
    some have no positive grade.
    """
    draw = np.random.default_rng(7)
    qrels, run = [], []
    for query in range(40):
        documents = [f"d{n}" for n in draw.permutation(30)]
        judged, ranked = documents[:20], documents[5:]
        grades = draw.choice([-1, 0, 1, 2, 3], size=20, p=(0.1, 0.4, 0.2, 0.2, 0.1))
        if query % 8 == 3:
            grades = np.minimum(grades, 0)
        if query != 5:
            qrels += [f"q{query} 0 {d} {g}" for d, g in zip(judged, grades, strict=True)]
        scores = draw.integers(5, size=25) / 4 + draw.integers(2, size=25) * 1e-10
        if query != 6:
            run += [
                f"q{query} Q0 {d} 1 {s!r} tag" for d, s in zip(ranked, scores.tolist(), strict=True)
            ]
        qrels += [qrels[-1], f"q{query} 0 {judged[2]} 1"] if query not in (5, 6) else []
        run += [f"q{query} Q0 {ranked[3]} 1 0.3 tag"] if query != 6 else []
    for name, lines in (("qrels", qrels), ("run", run)):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder / "qrels", folder / "run"


def last(path: Path, at: int, number: type) -> dict[str, dict[str, float]]:
    """A number of each document by query, the last where there are several."""
    found: dict[str, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        words = line.split()
        found.setdefault(words[0], {})[words[2]] = number(words[at])
    return found


def test_trec_eval_gives_the_same_on_every_query_that_is_not_left_out(tmp_path: Path) -> None:
    qrels, run = written(tmp_path)
    pair = trec_pair.measure(trec_pair.read_qrels(qrels), trec_pair.read_run(run))
    judged, ranked = last(qrels, 3, int), last(run, 4, float)
    for relevance_level, metrics in ((1, ("ndcg", "ndcg@10")), (HIGHEST, ("mrr", "recall@10"))):
        measures = {"ndcg_cut.10", "ndcg", "recip_rank", "recall.10"}
        evaluator = pytrec_eval.RelevanceEvaluator(
            judged, measures, relevance_level=relevance_level
        )
        theirs = evaluator.evaluate(ranked)
        for metric in metrics:
            values = pair.per_query[metric]
            defined = 0
            for query, value in zip(pair.query_ids, values, strict=True):
                if np.isnan(value):  # trec_eval counts a query without relevant documents as 0
                    assert theirs[query][MEASURES[metric]] == 0
                elif query == "q6":  # trec_eval leaves it out, and with -c counts it as 0
                    assert query not in theirs
                    assert value == 0
                else:
                    defined += 1
                    assert value == pytest.approx(theirs[query][MEASURES[metric]], abs=CLOSE)
            assert defined > 20


def test_ir_measures_gives_the_same_from_the_files_themselves(tmp_path: Path) -> None:
    measures = pytest.importorskip("ir_measures", reason="ir-measures is not installed")
    qrels, run = written(tmp_path)
    pair = trec_pair.measure(trec_pair.read_qrels(qrels), trec_pair.read_run(run))
    asked = {
        "ndcg@10": measures.nDCG @ 10,
        "ndcg": measures.nDCG,
        "mrr": measures.RR(rel=HIGHEST),
        "recall@10": measures.R(rel=HIGHEST) @ 10,
    }
    for metric, measure in asked.items():
        judged, ranked = measures.read_trec_qrels(str(qrels)), measures.read_trec_run(str(run))
        theirs = {one.query_id: one.value for one in measures.iter_calc([measure], judged, ranked)}
        for query, value in zip(pair.query_ids, pair.per_query[metric], strict=True):
            expected = 0.0 if np.isnan(value) else value
            assert theirs[query] == pytest.approx(expected, abs=CLOSE), (metric, query)


def test_what_is_not_plain_is_counted(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("# made\nq1 0 a 2\nq1 0 a 1\nq1 0 b -1\nq2 0 a 1\nq2 a 1\n")
    (tmp_path / "run").write_text("q1 Q0 c 1 5 t\nq1 Q0 a 2 4 t\nq1 Q0 d 3 nan t\nq3 Q0 a 1 1 t\n")
    qrels = trec_pair.read_qrels(tmp_path / "qrels")
    run = trec_pair.read_run(tmp_path / "run")
    assert (qrels.lines, run.lines) == (5, 4)
    assert qrels.left_out == {
        "earlier lines of a document that comes again: the last one counts": 1,
        "lines that are no judgment, or not written as the first one is": 1,
    }
    assert run.left_out == {"lines whose score is none, or not finite": 1}
    pair = trec_pair.measure(qrels, run)
    assert pair.query_ids == ["q1", "q2"]
    # a, of gain 1 as b is at most 0, is at the second rank behind c without a judgment
    assert pair.per_query["ndcg"] == pytest.approx([1 / np.log2(3), 0])
    assert pair.per_query["mrr"] == pytest.approx([1 / 2, 0])
    assert list(pair.facts.values()) == [1, 1, 1, 1, 2, 1]


def test_documents_whose_ids_are_not_utf8_are_kept(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_bytes(b"q 0 caf\xe9 1\nq 0 b 0\n")
    (tmp_path / "run").write_bytes(b"q Q0 b 1 2 t\nq Q0 caf\xe9 2 1 t\n")
    qrels = trec_pair.read_qrels(tmp_path / "qrels")
    assert (qrels.values, qrels.left_out) == ({"q": {"caf\udce9": 1, "b": 0}}, {})
    pair = trec_pair.measure(qrels, trec_pair.read_run(tmp_path / "run"))
    assert pair.per_query["mrr"] == pytest.approx([1 / 2])


def test_ties_go_by_descending_document_as_trec_eval_has_it(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q 0 d10 1\nq 0 d9 0\n")
    (tmp_path / "run").write_text("q Q0 d10 1 1.0 t\nq Q0 d9 2 1.00000000001 t\n")
    pair = trec_pair.measure(
        trec_pair.read_qrels(tmp_path / "qrels"), trec_pair.read_run(tmp_path / "run")
    )
    assert pair.per_query["mrr"] == pytest.approx([1 / 2])


def test_qrels_are_read_in_every_form_of_a_judgment_list(tmp_path: Path) -> None:
    forms = ["q 0 a 2\nq 0 b 0\n", "query-id\tcorpus-id\tscore\nq\ta\t2\nq\tb\t0\n",
             "2 qid:q 1:0.5 # a red shoes\n0 qid:q # b\n1 qid:q 1:2\n"]  # fmt: skip
    for text in forms:
        with gzip.open(tmp_path / "qrels.gz", "wt") as file:
            file.write(text)
        found = trec_pair.read_qrels(tmp_path / "qrels.gz")
        assert found.values == {"q": {"a": 2, "b": 0}}
        assert sum(found.left_out.values()) == found.lines - 2 == int("qid:" in text)


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "q 0 d\n", "q 0 d x\n"])
def test_a_file_without_a_judgment_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(UserError, match="qrels has no line of qrels: query_id 0 document grade"):
        trec_pair.read_qrels(tmp_path / "qrels")
    with pytest.raises(UserError, match="none' does not exist"):
        trec_pair.read_run(tmp_path / "none")
