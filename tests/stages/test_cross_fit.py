"""Cross-fit: every pair is scored by models that never saw its query."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_runs
import workdirs
from tiny_runs import COLUMNS, METRICS

from sie_jax.data import preparing
from sie_jax.files import read_json
from sie_jax.recipes import plan

pytestmark = pytest.mark.slow


def test_the_stages_of_a_run_with_folds_are_those_of_the_plan(folded: Path) -> None:
    made = workdirs.markers(folded)
    assert plan.stages(tiny_runs.folded()) == tuple(sorted(made, key=lambda name: made[name]))


def test_folds_score_every_pair_and_hold_queries_apart(folded: Path) -> None:
    prepared, held = preparing.load(folded), pq.read_table(folded / "out_of_fold.parquet")
    ids = held["example_id"].to_pylist()
    assert sorted(ids) == sorted(prepared.pairs["example_id"].to_pylist())
    fold = dict(zip(ids, held["fold"].to_pylist(), strict=True))
    of_query: dict[str, set[int]] = {}
    for row in prepared.pairs.to_pylist():
        assert (fold[row["example_id"]] >= 0) == (row["split"] == "train")
        of_query.setdefault(row["query_id"], set()).add(fold[row["example_id"]])
    assert all(len(folds) == 1 for folds in of_query.values())
    assert set(fold.values()) == {-1, 0, 1, 2}
    probabilities = np.stack([held[f"probability_{i}"].to_numpy() for i in range(4)], 1)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)
    # the loss is −log of the label's probability, by which the rows are seen to belong together
    training = np.flatnonzero(held["fold"].to_numpy() >= 0)
    labels = held["label"].to_numpy()
    np.testing.assert_allclose(
        held["loss"].to_numpy()[training],
        -np.log(probabilities[training, labels[training]]),
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_fold_model_has_not_seen_its_fold(folded: Path) -> None:
    held = pq.read_table(folded / "out_of_fold.parquet")["fold"].to_numpy()
    for number in range(3):
        steps = [x["step"] for x in workdirs.lines(folded) if x["run"] == f"fold-{number}"]
        others = ((held >= 0) & (held != number)).sum()
        assert max(steps) == -(-others // 16)


def test_training_pairs_out_of_fold_are_measured(folded: Path) -> None:
    metrics = read_json(folded / "metrics.json")
    assert set(metrics["cross_validation"]) == METRICS | COLUMNS


def test_every_fold_is_charged_its_training_and_its_scores(folded: Path) -> None:
    splits = read_json(folded / "cleaning.json")["splits"]
    held = pq.read_table(folded / "out_of_fold.parquet")["fold"].to_numpy()
    costs = workdirs.costs(folded, "cross_fit")
    for number in range(3):
        inside = int((held == number).sum())
        trained, scored = splits["train"] - inside, splits | {"train": inside}
        assert costs[f"fold-{number}"]["examples"] == trained
        assert costs[f"fold-{number}"]["forward_equivalents"] == 3 * trained
        for split, rows in scored.items():
            entry = costs[f"scores-{number}-{split}"]
            assert (entry["examples"], entry["forward_equivalents"]) == (rows, 2 * rows)
    assert len(costs) == 3 * (1 + 3)
