"""A recommender of 60 users: two tastes, whose items come in one order each."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sie_jax.config import RecommendationConfig
from sie_jax.data.histories.histories import TEST, Histories, cases
from sie_jax.errors import UserError
from sie_jax.recipes import recommendation
from sie_jax.serving.recommending import HistoryRecommender

pytestmark = pytest.mark.slow


def config_of(folder: Path) -> RecommendationConfig:
    """Users go round a ring of five items, from a place of their own; some begin with a return."""
    rows = ["who,what,when,pieces,name"]
    for user in range(60):
        for step in range(3 + user % 3):
            item = 5 * (user % 2) + (user // 2 + step) % 5
            rows.append(f"u{user},i{item},2024-01-{1 + step:02d},1,thing {item} of {user % 2}")
    rows += ["u0,i0,,1,thing 0 of 0", "u1,i9,2024-01-09,-1,thing 9 of 1"]
    path = folder / "events.csv"
    path.write_text("\n".join(rows))
    config = RecommendationConfig(name="ring")
    config.data.source, config.data.path = "interactions", str(path)
    config.data.columns.user, config.data.columns.item = "who", "what"
    config.data.columns.time, config.data.columns.value = "when", "pieces"
    config.data.columns.text = "name"
    config.model.hidden_size, config.model.num_hidden_layers = 16, 1
    config.model.max_length, config.model.text = 6, "words"
    config.model.dropout = 0.0
    config.train.batch_size, config.train.buckets = 16, 1
    config.train.epochs, config.train.learning_rate = 10, 2e-2
    config.weightings = ("clipped",)
    config.train.seeds = 2
    config.evaluation.explained_users = 1
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ring")
    recommendation.run(config_of(folder), folder / "run", console=Console(quiet=True))
    return folder / "run"


def test_the_order_is_learnt(workdir: Path) -> None:
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["test"]["uniform"]["ndcg@10"]["value"] > 0.9
    assert metrics["test"]["popularity"]["ndcg@10"]["value"] < 0.6
    assert metrics["verdict"]["beats_baseline"] is True
    assert set(metrics["difference"]["clipped"]["ndcg@10"]) == {"value", "low", "high"}
    assert metrics["rows"] == {"read": 242, "kept": 241, "rejected": 1}
    assert len(metrics["verdict"]["notes"]) == 3
    assert "{" not in " ".join(metrics["verdict"]["notes"])


def test_the_folder_ranks_as_the_run_did(workdir: Path) -> None:
    model = HistoryRecommender.load(workdir / "model")
    own = Histories.load(workdir)
    asked = cases(own, TEST)
    kept = pq.read_table(workdir / "recommendations.parquet").to_pydict()
    for case in range(0, len(asked), 17):
        events = slice(asked.start[case], asked.stop[case])
        seconds = np.diff(own.time[events] / 1e6, prepend=own.time[asked.start[case]] / 1e6)
        found = model.recommend(
            [own.items[one - 1] for one in own.item[events]],
            count=5,
            events=[own.event_names[one] for one in own.event[events]],
            seconds=seconds.tolist(),
        )
        assert [one.item_id for one in found] == kept["items"][case][:5]
    with pytest.raises(UserError, match="no item of the history"):
        model.recommend(["nothing"])
    with pytest.raises(UserError, match="is none of event, return"):
        model.recommend(["i1"], events=["view"])


def test_the_page_shows_users_and_why(workdir: Path) -> None:
    page = (workdir / "report.html").read_text()
    for text in ("Results on the test users", "The catalogue", "Training histories that pushed"):
        assert text in page


def test_the_same_command_repeats_nothing(workdir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (workdir / "stages").rglob("*.json")}
    recommendation.run(config_of(workdir.parent), workdir, console=Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    config.weightings = ("lighter",)
    with pytest.raises(UserError, match="weightings is 'lighter': choose one of truncated"):
        recommendation.run(config, tmp_path / "run")
    config = config_of(tmp_path)
    config.data.split = "temporal"
    config.data.validation_from, config.data.test_from = "2024-02-01", "2024-01-01"
    with pytest.raises(UserError, match=r"data.validation_from 2024-02-01 is not before"):
        recommendation.run(config, tmp_path / "run")
    config = config_of(tmp_path)
    config.model.id_dropout, config.model.text = 0.1, ""
    with pytest.raises(UserError, match=r"model.id_dropout hides ids"):
        recommendation.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
