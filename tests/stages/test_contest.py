"""Contest and rehearse: every contestant is judged on queries that its model has not seen."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import workdirs

from sie_jax.data import lexical, preparing
from sie_jax.data.features import standardise
from sie_jax.evaluation.contest import Outcome, Standing
from sie_jax.files import read_json
from sie_jax.models import trees
from sie_jax.models.linear import LinearRanker
from sie_jax.models.trees import TreeRanker
from sie_jax.stages import contest
from sie_jax.stages.linear import lists_of

pytestmark = pytest.mark.slow


def ndcg(scores: np.ndarray, pairs: pa.Table, gains: np.ndarray) -> float:
    """The mean nDCG@10 over queries with a positive gain, query by query."""
    labels, ids = pairs["label"].to_numpy(), np.array(pairs["query_id"].to_pylist())
    values = []
    for query in np.unique(ids):
        mine = np.flatnonzero(ids == query)
        ties = [pairs["example_id"][int(row)].as_py() for row in mine]
        order = sorted(range(len(mine)), key=lambda at: (-scores[mine[at]], ties[at]))
        gained = gains[labels[mine]]
        ideal = sum(g / np.log2(r + 2) for r, g in enumerate(sorted(gained, reverse=True)[:10]))
        if ideal:
            found = sum(gained[at] / np.log2(rank + 2) for rank, at in enumerate(order[:10]))
            values.append(found / ideal)
    return float(np.mean(values))


def probabilities(table: pa.Table) -> np.ndarray:
    return np.stack([table[f"probability_{i}"].to_numpy() for i in range(4)], 1)


def blended(pairs: pa.Table, *scores: np.ndarray) -> np.ndarray:
    """Each less its mean over the query, over its deviation there, summed."""
    query = np.unique(pairs["query_id"].to_pylist(), return_inverse=True)[1]
    return sum(standardise(one[:, None], query)[:, 0].astype(float) for one in scores)


def test_without_folds_it_is_held_on_the_validation_queries(finished: Path) -> None:
    found, prepared = read_json(finished / "contest.json"), preparing.load(finished)
    pairs, gains = prepared.split("validation"), np.array(prepared.scale.gains)
    standings = found["outcome"]["standings"]
    assert found["split"] == "validation"
    assert list(standings) == [
        *("token_overlap", "bm25", "linear", "trees", "blend", "translation"),
        *("uniform", "weighted", "stack"),
    ]
    for run in ("uniform", "weighted"):
        table = pq.read_table(finished / "predictions" / f"{run}-0.validation.parquet")
        expected = ndcg(probabilities(table).astype(np.float64) @ gains, pairs, gains)
        assert standings[run]["value"] == pytest.approx(expected)
    titles = lexical.CorpusStatistics.load(finished / "corpus.json").title
    texts = (lexical.split_all(pairs[name].to_pylist()) for name in ("query", "title"))
    bm25 = lexical.bm25(lexical.match(*texts), titles)
    assert standings["bm25"]["value"] == pytest.approx(ndcg(bm25, pairs, gains))
    assert (finished / "models" / "uniform-0" / "model.safetensors").exists()
    table = pq.read_table(finished / "features.parquet")
    table = table.filter(pa.array([one == "validation" for one in table["split"].to_pylist()]))
    names = tuple(name for name in table.column_names if name not in ("example_id", "split"))
    known = np.stack([table[name].to_numpy() for name in names], 1)
    linear = LinearRanker.load(finished / "linear.json").scores(names, known)
    trees = TreeRanker.load(finished / "trees.json").scores(names, known)
    assert standings["trees"]["value"] == pytest.approx(ndcg(trees, pairs, gains))
    expected = ndcg(blended(pairs, linear, trees), pairs, gains)
    assert standings["blend"]["value"] == pytest.approx(expected)


@pytest.mark.parametrize(("queries", "split"), [(12, "validation"), (12, "train"), (20, "train")])
def test_what_is_exported_without_a_contest_is_said(queries: int, split: str) -> None:
    standing = {"linear": Standing(0.8, 0.0, 0.0)}
    said = contest._lines(Outcome("linear", "uniform", queries, standing), split)
    few = [line for line in said if "too few to choose by (20 are needed)" in line]
    assert len(few) == (queries < 20)
    for line in few:
        assert line.startswith("model/ holds linear, whatever ranked best: 12 ")
        assert ("--config.train.folds=5" in line) == (split == "validation")


def test_with_folds_it_is_held_on_the_training_queries_out_of_fold(folded: Path) -> None:
    found, prepared = read_json(folded / "contest.json"), preparing.load(folded)
    pairs, gains = prepared.split("train"), np.array(prepared.scale.gains)
    standings = found["outcome"]["standings"]
    assert found["split"] == "train"
    held = pq.read_table(folded / "out_of_fold.parquet")
    held = held.filter(pa.array(held["fold"].to_numpy() >= 0))
    expected = ndcg(probabilities(held).astype(np.float64) @ gains, pairs, gains)
    assert standings["uniform"]["value"] == pytest.approx(expected)
    known = pq.read_table(folded / "features.parquet").filter(pc.field("split") == "train")
    known = known.drop_columns(["example_id", "split"])
    columns = np.stack([column.to_numpy() for column in known.columns], 1)
    lists = lists_of(prepared, "train", columns)
    scores, fold = np.zeros(pairs.num_rows), held["fold"].to_numpy()
    for left_out in range(3):  # the same folds, so that all are judged by fits on as many queries
        seen = TreeRanker(tuple(known.column_names), trees.fit(lists.rows(fold != left_out)))
        inside = fold == left_out
        scores[inside] = seen.scores(seen.names, columns[inside])
    expected = ndcg(scores, pairs, gains)
    assert standings["trees"]["value"] == pytest.approx(expected)
    assert standings["blend"]["value"] not in (expected, standings["linear"]["value"])
    parts = [pq.read_table(path) for path in sorted((folded / "rehearsals").iterdir())]
    assert len(parts) == 3
    weighted = np.full((pairs.num_rows, 4), np.nan)
    for fold, part in enumerate(parts):
        rows = part["row"].to_numpy()
        np.testing.assert_array_equal(rows, np.flatnonzero(held["fold"].to_numpy() == fold))
        weighted[rows] = probabilities(part)
    expected = ndcg(weighted @ gains, pairs, gains)
    assert standings["weighted"]["value"] == pytest.approx(expected)
    assert standings["weighted"]["value"] != standings["uniform"]["value"]


def test_a_rehearsal_does_not_train_on_its_fold(folded: Path) -> None:
    fold = pq.read_table(folded / "out_of_fold.parquet")["fold"].to_numpy()
    for number in range(3):
        mine = [x for x in workdirs.lines(folded) if x["run"] == f"weighted-fold-{number}"]
        others = int(((fold >= 0) & (fold != number)).sum())
        assert max(line["step"] for line in mine) == -(-others // 16)
        costs = workdirs.costs(folded, f"rehearse/weighted-fold-{number}")
        assert costs[f"weighted-fold-{number}"]["examples"] == others


def test_the_stack_is_made_of_features_and_the_scores_of_runs(folded: Path) -> None:
    stack = read_json(folded / "contest.json")["stack"]
    features = [
        name
        for name in pq.read_schema(folded / "features.parquet").names
        if name not in ("example_id", "split")
    ]
    runs = [f"run:{name}" for name in ("linear", "translation", "uniform", "weighted")]
    assert stack["names"] == [*features, *runs]
