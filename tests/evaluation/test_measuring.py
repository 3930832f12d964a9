"""Fixed rankings of the same queries: each with intervals, and one beside all others."""

import numpy as np
import pytest
from scipy import stats

from sie_jax.evaluation import measuring, ranking
from sie_jax.evaluation.measuring import PerQuery


def every_metric(*values: float) -> PerQuery:
    return {metric: np.array(values) for metric in ranking.METRICS}


RUNS = {
    "ours": every_metric(1.0, 0.5, 0.75, np.nan),
    "theirs": every_metric(0.5, 0.5, 0.5, np.nan),
}


def test_means_counts_and_paired_differences() -> None:
    found = measuring.measured(RUNS, ranker="ours", resamples=50)
    assert found["queries"] == {
        "evaluated": 3,
        "without_positive_gain": 1,
        "without_highest_grade": 0,
    }
    assert found["test"]["ours"]["ndcg@10"]["value"] == pytest.approx(0.75)
    difference = found["difference"]["theirs"]["ndcg@10"]
    half = stats.t.ppf(0.975, 2) * np.std([0.5, 0.0, 0.25], ddof=1) / np.sqrt(3)
    bounds = [difference[key] for key in ("value", "low", "high")]
    assert bounds == pytest.approx([0.25, 0.25 - half, 0.25 + half])
    assert "verdict" not in found


def test_there_is_a_verdict_where_there_is_a_baseline() -> None:
    runs = {"ours": RUNS["ours"], "bm25": RUNS["theirs"], "random": every_metric(0.1, 0.2, 0.3, 0)}
    found = measuring.measured(runs, ranker="ours", resamples=50)
    assert found["verdict"]["best_baseline"] == "bm25"
    assert found["verdict"]["ndcg@10"] == found["difference"]["bm25"]["ndcg@10"]
