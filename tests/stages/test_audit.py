"""Audit: the training pairs by the warm-up's model, or all pairs by the models of folds."""

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sie_jax.evaluation import audit
from sie_jax.report import annotate


def test_it_ranks_the_training_pairs(finished: Path) -> None:
    table = pq.read_table(finished / "importance.parquet")
    rows = audit.read(finished / "audit.csv", most=10**6)
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    rows = [row for row in rows if row["found_by"] != audit.CONFLICT]
    losses = dict(zip(table["example_id"].to_pylist(), table["loss"].to_pylist(), strict=True))
    assert {row["example_id"] for row in rows} == set(losses)
    by_model = [float(row["score"]) for row in rows if row["found_by"] == audit.MODEL]
    assert by_model == sorted(by_model, reverse=True)
    scores = [float(row["score"]) for row in rows]
    assert all("the model, which learned from this label, gives " in row["reason"] for row in rows)
    # the loss is −log of the label's probability; float32 holds neither beyond its 24 bits
    np.testing.assert_allclose(
        scores, [-np.expm1(-losses[row["example_id"]]) for row in rows], rtol=1e-5, atol=1e-6
    )
    assert {row["label"] for row in rows} | {row["prediction"] for row in rows} <= set("ICSE")


def test_conflicts_that_cleaning_left_out_come_first(finished: Path) -> None:
    table = pq.read_table(finished / "rejected.parquet")
    left_out = table.filter(pc.equal(table["reason"], audit.CONFLICT))["example_id"].to_pylist()
    rows = audit.read(finished / "audit.csv", most=len(left_out) + 1)
    assert left_out
    assert {row["example_id"] for row in rows[:-1]} == set(left_out)
    assert {row["found_by"] for row in rows[:-1]} == {audit.CONFLICT}
    assert {row["score"] for row in rows[:-1]} == {""}  # no model has seen them
    assert rows[-1]["found_by"] != audit.CONFLICT
    summary = json.loads((finished / "audit.json").read_text())
    assert summary["found_by"][audit.CONFLICT] == len(left_out)
    assert summary["wrong"] is None  # the model learned from these labels
    assert "train.folds" in summary["notes"][0]
    html = (finished / "audit.html").read_text(encoding="utf-8")
    assert html.count('"example_id": ') == min(annotate.MOST, summary["pairs"] + len(left_out))


def test_the_same_rows_are_there_as_json(finished: Path) -> None:
    lines = (finished / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    rows = audit.read(finished / "audit.csv", most=len(lines) + 1)
    assert [json.loads(line)["example_id"] for line in lines] == [row["example_id"] for row in rows]


def test_that_of_a_run_with_folds_has_every_pair(folded: Path) -> None:
    held = pq.read_table(folded / "out_of_fold.parquet")
    rows = audit.read(folded / "audit.csv", most=10**6)
    rows = [row for row in rows if row["found_by"] != audit.CONFLICT]
    assert len(rows) == held.num_rows
    summary = json.loads((folded / "audit.json").read_text())
    assert summary["pairs"] == held.num_rows
    assert summary["wrong"]["low"] <= summary["wrong"]["high"]
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    columns = np.stack([held[f"probability_{i}"].to_numpy() for i in range(4)], 1)
    given = columns[np.arange(len(columns)), held["label"].to_numpy()]
    label_probability = dict(zip(held["example_id"].to_pylist(), given.tolist(), strict=True))
    for row in rows:  # the same float32 values: nothing rounds on the way
        assert float(row["label_probability"]) == label_probability[row["example_id"]]
