"""A catalogue of the generated shop, searched by towers of one small layer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sie_jax.config import RetrievalConfig
from sie_jax.errors import UserError
from sie_jax.recipes import retrieval

pytestmark = pytest.mark.slow


def config_of() -> RetrievalConfig:
    config = RetrievalConfig(name="found")
    config.data.source = "market"
    config.data.market.items, config.data.market.queries = 200, 60
    config.data.max_length, config.data.buckets = 16, 1
    config.data.vocabulary_size = 300
    config.model.hidden_size, config.model.num_hidden_layers = 16, 1
    config.model.num_attention_heads, config.model.intermediate_size = 2, 16
    config.train.task = "contrastive"
    config.train.batch_size, config.train.epochs = 32, 1
    config.index.kind, config.index.size, config.index.effort = "ivf", 10, 3
    config.depths = (10, 50)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found") / "run"
    retrieval.run(config_of(), folder, console=Console(quiet=True))
    return folder


def test_every_way_is_measured_over_the_whole_catalogue(workdir: Path) -> None:
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert list(metrics["test"]) == ["words", "tuned", "fused", "weighed"]
    assert metrics["catalogue"] == {"items": 200}
    assert 0 < metrics["index"]["tuned"]["recall_against_exact"] <= 1
    assert list(metrics["weights"]) == ["words", "tuned"]
    assert set(metrics["difference"]["fused"]["recall@50"]) == {"value", "low", "high"}
    lists = pq.read_table(workdir / "retrieved.parquet").to_pydict()
    for way in metrics["test"]:
        assert all(len(set(one)) == len(one) <= 50 for one in lists[way])
    assert "Found in the catalogue" in (workdir / "report.html").read_text()


def test_the_same_command_repeats_nothing_and_a_lost_part_is_made_again(
    workdir: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(workdir, tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in (copied / "stages").rglob("*.json")}
    vectors = np.load(copied / "vectors" / "tuned.npy")
    (copied / "vectors" / "tuned.npy").unlink()
    retrieval.run(config_of(), copied, console=Console(quiet=True))
    assert np.array_equal(np.load(copied / "vectors" / "tuned.npy"), vectors)
    made = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert made == {copied / "stages" / "encode" / "tuned.json"}


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    config = config_of()
    config.train.task = "listwise"
    with pytest.raises(UserError, match="a catalogue is searched by towers"):
        retrieval.run(config, tmp_path / "run")
    config = config_of()
    config.tuned = False
    with pytest.raises(UserError, match="no encoder would search"):
        retrieval.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
