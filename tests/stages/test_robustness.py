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
    test = prepared.split("test").to_pandas()
    gains = np.array(prepared.scale.gains)
    scorer = serving.load(finished / "model")
    moved, taus = [], []
    for _, rows in test.groupby("query_id"):
        query = rows["query"].iloc[0]
        turned = " ".join(query.split()[::-1])
        if not gains[rows["label"]].any() or turned == query:
            continue
        before, after = (
            serving.score(
                scorer,
                rows.assign(query=text)[["query", "title", "text"]].to_dict("records"),
            )["score"].to_numpy()
            for text in (query, turned)
        )
        moved.append(before.argmax() != after.argmax())
        taus.append(stats.kendalltau(before, after).statistic)
    assert len(moved) > 1
    wanted = found["word order"]
    assert (wanted["queries"], wanted["unscored"]) == (len(moved), 0)
    assert wanted["first_changed"] == pytest.approx(np.mean(moved))
    assert wanted["kendall_tau"] == pytest.approx(np.mean(taus))


def test_the_scores_before_are_those_that_the_run_predicted(finished: Path) -> None:
    prepared = preparing.load(finished)
    rows = prepared.split("test").select(["query", "title", "text"]).to_pylist()
    served = serving.score(serving.load(finished / "model"), rows)["score"].to_numpy()
    columns = pq.read_table(finished / "predictions" / "weighted-0.parquet").columns
    probabilities = np.stack([column.to_numpy() for column in columns], 1)
    np.testing.assert_allclose(served, probabilities @ prepared.scale.gains, atol=1e-6)


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
