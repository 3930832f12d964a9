"""Audit: the training pairs by the warm-up's model, or all pairs by the models of folds."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from sie_jax.evaluation import audit


def test_it_ranks_the_training_pairs(finished: Path) -> None:
    table = pq.read_table(finished / "importance.parquet")
    rows = audit.read(finished / "audit.csv", most=table.num_rows + 1)
    assert [int(row["rank"]) for row in rows] == list(range(1, table.num_rows + 1))
    losses = dict(zip(table["example_id"].to_pylist(), table["loss"].to_pylist(), strict=True))
    assert {row["example_id"] for row in rows} == set(losses)
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    # the loss is −log of the label's probability; float32 holds neither beyond its 24 bits
    np.testing.assert_allclose(
        scores, [-np.expm1(-losses[row["example_id"]]) for row in rows], rtol=1e-5, atol=1e-6
    )
    assert {row["label"] for row in rows} | {row["prediction"] for row in rows} <= set("ICSE")


def test_the_same_rows_are_there_as_json(finished: Path) -> None:
    lines = (finished / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    rows = audit.read(finished / "audit.csv", most=len(lines) + 1)
    assert [json.loads(line)["example_id"] for line in lines] == [row["example_id"] for row in rows]


def test_that_of_a_run_with_folds_has_every_pair(folded: Path) -> None:
    held = pq.read_table(folded / "out_of_fold.parquet")
    rows = audit.read(folded / "audit.csv", most=held.num_rows + 1)
    assert len(rows) == held.num_rows
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    columns = np.stack([held[f"probability_{i}"].to_numpy() for i in range(4)], 1)
    given = columns[np.arange(len(columns)), held["label"].to_numpy()]
    label_probability = dict(zip(held["example_id"].to_pylist(), given.tolist(), strict=True))
    for row in rows:  # the same float32 values: nothing rounds on the way
        assert float(row["label_probability"]) == label_probability[row["example_id"]]
