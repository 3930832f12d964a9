"""Robustness: the exported model is asked again, as a server would ask it."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import workdirs
from scipy import stats
from tiny_runs import run, tiny

from sie_jax import serving
from sie_jax.data import preparing
from sie_jax.evaluation import changes
from sie_jax.files import read_json


def test_the_order_before_and_after_is_that_of_the_exported_model(finished: Path) -> None:
    found = read_json(finished / "robustness.json")
    assert list(found) == list(changes.CHANGES)
    prepared = preparing.load(finished)
    pairs = prepared.split("test").to_pandas()
    gains = np.array(prepared.scale.gains)
    pairs["turned"] = [" ".join(query.split()[::-1]) for query in pairs["query"]]
    pairs["gain"] = gains[pairs["label"]]
    pairs = pairs[pairs.groupby("query_id")["gain"].transform("max") > 0]
    pairs = pairs[pairs["turned"] != pairs["query"]].reset_index(drop=True)
    scorer = serving.load(finished / "model")
    for name in ("query", "turned"):
        asked = pairs.assign(query=pairs[name])[["query", "title", "text"]]
        pairs[f"by {name}"] = serving.score(scorer, asked.to_dict("records"))["score"]
    moved, taus = [], []
    for _, rows in pairs.groupby("query_id"):
        orders = [
            sorted(
                rows.index, key=lambda row, by=by: (-rows[by][row], int(rows["example_id"][row]))
            )
            for by in ("by query", "by turned")
        ]
        moved.append(orders[0][0] != orders[1][0])
        ranks = [[order.index(row) for row in rows.index] for order in orders]
        taus.append(stats.kendalltau(*ranks).statistic)
    assert len(moved) > 1
    wanted = found["word order"]
    assert (wanted["queries"], wanted["unscored"]) == (len(moved), 0)
    assert wanted["first_changed"] == pytest.approx(np.mean(moved))
    assert wanted["kendall_tau"] == pytest.approx(np.mean(taus))


def test_the_scores_before_are_those_that_the_run_predicted(finished: Path) -> None:
    prepared = preparing.load(finished)
    rows = prepared.split("test").select(["query", "title", "text"]).to_pylist()
    served = serving.score(serving.load(finished / "model"), rows)["score"].to_numpy()
    # without query ids, those of one text are one query
    ranker = read_json(finished / "metrics.json")["verdict"]["ranker"]
    wanted = pq.read_table(finished / "rankings.parquet")[f"{ranker}-0"].to_numpy()
    np.testing.assert_allclose(served, wanted, rtol=1e-6, atol=1e-6)


def test_it_is_charged_and_shown(finished: Path) -> None:
    found = read_json(finished / "robustness.json")
    prepared = preparing.load(finished)
    rows = prepared.split("test").num_rows
    cost = workdirs.costs(finished, "robustness")["changes"]
    assert 0 < cost["examples"] <= (1 + len(found)) * rows
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert '<section id="robustness">' in page


def test_no_queries_no_stage(folded: Path) -> None:
    assert not (folded / "robustness.json").exists()
    page = (folded / "report.html").read_text(encoding="utf-8")
    assert '<section id="robustness">' not in page


def test_other_queries_make_no_training_again(finished: Path, tmp_path: Path) -> None:
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    before, config = workdirs.markers(workdir), tiny()
    config.evaluation.changed_queries = 2
    run(config, workdir)
    assert workdirs.made_since(workdir, before) == {"robustness", "evaluate"}
    assert all(one["queries"] <= 2 for one in read_json(workdir / "robustness.json").values())
