"""A whole run on a table with today's score and a telling feature among its columns."""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_runs import run, unexplained, won_by

from sie_jax import serving
from sie_jax.config import Config
from sie_jax.errors import UserError
from sie_jax.evaluation import corrections
from sie_jax.files import read_json

pytestmark = pytest.mark.slow


class Run(NamedTuple):
    config: Config
    workdir: Path
    metrics: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Titles say nothing of the labels; `today` orders as they do, and `hint` nearly says them.

    Every second item of the lowest label has no score today. `rank` is a feature and an attribute.
    """
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(1)
    labels = [grade for _ in range(60) for grade in rng.permutation([0, 0, 1, 1, 2, 2]).tolist()]
    words = np.array(["red", "blue", "lamp", "shoe", "hose", "case", "big", "old"])
    rows, zeros = [], 0
    for n, label in enumerate(labels):
        zeros += label == 0
        unscored = label == 0 and zeros % 2 == 0
        rows.append(
            {"query": f"{words[n // 6 % 8]} {n // 6}"}
            | {"title": f"{' '.join(rng.choice(words, 4))} {n}", "label": label}
            | {"today": "" if unscored else label - 10, "hint": label + 0.1 * rng.random()}
            | {"rank": "" if n % 10 == 0 else n % 6}
        )
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    config, said = unexplained(), io.StringIO()
    config.data.source, config.data.path = "table", str(folder / "pairs.csv")
    config.data.columns.current, config.data.features = "today", ("hint", "rank")
    config.data.table.attributes = ("rank",)
    metrics = run(config, folder / "run", said=said)
    return Run(config, folder / "run", metrics, said.getvalue())


@pytest.mark.parametrize("winner", ["linear", "blend", "current"])
def test_the_exported_ranker_reads_the_columns_by_their_names(
    winner: str, done: Run, tmp_path: Path
) -> None:
    won_by(winner, done.workdir, done.config, tmp_path / "run")
    columns = {name: name for name in ("query", "title")}
    pairs = serving.Pairs(done.config.data.path, columns)
    serving.score_table(tmp_path / "run" / "model", pairs, tmp_path / "out.parquet")
    scored = pq.read_table(tmp_path / "out.parquet")
    scores = dict(zip(scored["example_id"].to_pylist(), scored["score"].to_pylist(), strict=True))
    wanted = pq.read_table(tmp_path / "run" / "rankings.parquet")
    found = [scores[one] for one in wanted["example_id"].to_pylist()]
    np.testing.assert_allclose(found, wanted[f"{winner}-0"].to_numpy(), rtol=1e-6, atol=1e-6)


def test_a_table_without_these_columns_is_refused(done: Run, tmp_path: Path) -> None:
    won_by("linear", done.workdir, done.config, tmp_path / "run")
    (tmp_path / "new.csv").write_text("query,title,hint\nred,lamp,1\n")
    columns = {name: name for name in ("query", "title")}
    with pytest.raises(UserError, match="no column 'rank'"):
        serving.score_table(
            tmp_path / "run" / "model",
            serving.Pairs(str(tmp_path / "new.csv"), columns),
            tmp_path / "out.parquet",
        )


def test_a_perfect_score_of_today_is_the_best_baseline(done: Run) -> None:
    test, verdict = done.metrics["test"], done.metrics["verdict"]
    baselines = ["random", "token_overlap", "bm25", "current"]
    ours = ["linear", "trees", "blend", "translation"]
    assert list(test) == [*baselines, *ours, "uniform", "weighted", "stack"]
    # an item without a score is last in its query; as 0 it would be first
    assert test["current"]["ndcg@10"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert test["bm25"]["ndcg@10"]["value"] < 0.95
    assert verdict["best_baseline"] == "current"
    difference = test[verdict["ranker"]]["ndcg@10"]["value"] - 1
    assert verdict["ndcg@10"]["value"] == pytest.approx(difference)
    assert verdict["beats_baseline"] is not True
    assert any("the best baseline, current: " in note for note in verdict["notes"])


def test_a_telling_feature_makes_linear_nearly_perfect(done: Run) -> None:
    assert done.metrics["test"]["linear"]["ndcg@10"]["value"] > 0.99
    ranker = read_json(done.workdir / "linear.json")
    weights = dict(zip(ranker["names"], ranker["weights"], strict=True))
    assert max(weights, key=lambda name: abs(weights[name])) == "hint"
    names = pq.read_schema(done.workdir / "features.parquet").names
    assert names[-3:] == ["attribute:rank", "hint", "rank"]


def test_it_is_told_and_missing_numbers_are_counted(done: Run) -> None:
    counts = read_json(done.workdir / "cleaning.json")
    assert counts["kept"] == 360  # 60 of today's scores and 36 ranks are missing
    assert counts["missing"] == {"numeric:hint": 0, "numeric:rank": 36, "current": 60}
    assert "60 of 360 pairs have no today: in `current` such a pair is last" in done.said
    assert "36 of 360 pairs have no rank: it counts as its mean over the query" in done.said
    assert "pairs have no hint" not in done.said
    assert "│ current" in done.said or "current " in done.said
    report = (done.workdir / "report.html").read_text(encoding="utf-8")
    assert ">current<" in report
    assert "hint 0, rank 36, current 60." in " ".join(report.split())


def test_corrected_pairs_have_the_columns_of_numbers(done: Run, tmp_path: Path) -> None:
    pairs = pq.read_table(done.workdir / "data" / "pairs.parquet")
    names = read_json(done.workdir / "data" / "prepared.json")["labels"]
    kept = f"{pairs['example_id'][0]},{names[pairs['label'][0].as_py()]}"
    (tmp_path / "kept.csv").write_text(f"example_id,corrected_label\n{kept}\n")
    counts = corrections.apply(tmp_path / "kept.csv", str(done.workdir), tmp_path / "new.csv")
    assert counts == (360, 0, 1, {})
    with (tmp_path / "new.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == pairs["attribute:rank"].to_pylist()
    for name in ("numeric:hint", "current"):
        written = [row[name.removeprefix("numeric:")] for row in rows]
        assert [float(one) if one else None for one in written] == pairs[name].to_pylist()
