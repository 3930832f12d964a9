"""A catalogue of the generated shop, searched by towers of one small layer."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sie_jax.config import RetrievalConfig
from sie_jax.errors import UserError
from sie_jax.recipes import retrieval
from sie_jax.stages import catalogue

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
    config.negatives.kinds = ("denoised", "weighted")
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found") / "run"
    retrieval.run(config_of(), folder, console=Console(quiet=True))
    return folder


def test_every_way_is_measured_over_the_whole_catalogue(workdir: Path) -> None:
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert list(metrics["test"]) == [
        *("words", "tuned", "longer", "denoised", "weighted", "fused", "weighed"),
    ]
    assert metrics["catalogue"] == {"items": 200}
    assert 0 < metrics["index"]["tuned"]["recall_against_exact"] <= 1
    assert list(metrics["weights"]) == ["words", "tuned", "longer", "denoised", "weighted"]
    assert metrics["complete"]
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


def test_what_was_mined_is_beside_the_pairs_and_was_not_judged(workdir: Path) -> None:
    pairs = pq.read_table(workdir / "data" / "pairs.parquet").to_pylist()
    judged = {(one["query_id"], one["item_id"]) for one in pairs}
    training = [one for one in pairs if one["split"] == "train"]
    for kind in ("denoised_1", "weighted_1"):
        found = pq.read_table(workdir / "mined" / kind / "data" / "pairs.parquet").to_pylist()
        added = [one for one in found if (one["query_id"], one["item_id"]) not in judged]
        assert len(added) == len(found) - len(pairs)
        assert {one["label"] for one in added} == {0}
        assert len(added) == 4 * len({one["query_id"] for one in training})
        doubt = pq.read_table(workdir / "mined" / kind / "doubt.parquet").to_pydict()
        of_added = doubt["doubtful_groups"][len(training) :]
        assert not any(doubt["doubtful_groups"][: len(training)])
        assert any(of_added) == (kind == "weighted_1")
        assert all(0 <= one <= 1 for one in of_added)


def test_encoding_that_was_stopped_goes_on_with_the_next_part(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves: no marker, and the parts that were whole."""
    copied = Path(shutil.copytree(workdir, tmp_path / "run"))
    vectors = np.load(copied / "vectors" / "tuned.npy")
    (copied / "vectors" / "tuned.npy").unlink()
    (copied / "stages" / "encode" / "tuned.json").unlink()
    monkeypatch.setattr(catalogue, "PART", 64)
    encode, calls = catalogue.sentences.encode, []

    def stopped(encoder: Any, texts: Any) -> Any:
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(encoder, texts)

    monkeypatch.setattr(catalogue.sentences, "encode", stopped)
    with pytest.raises(KeyboardInterrupt):
        retrieval.run(config_of(), copied, console=Console(quiet=True))
    assert calls == [64, 64, 64]
    retrieval.run(config_of(), copied, console=Console(quiet=True))
    assert calls[3:5] == [64, 200 - 3 * 64]
    assert np.allclose(np.load(copied / "vectors" / "tuned.npy"), vectors, atol=1e-6)


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    config = config_of()
    config.train.task = "listwise"
    with pytest.raises(UserError, match="a catalogue is searched by towers"):
        retrieval.run(config, tmp_path / "run")
    config = config_of()
    config.tuned = False
    with pytest.raises(UserError, match="trains towers further, and tuned is false"):
        retrieval.run(config, tmp_path / "run")
    config.negatives.kinds = ()
    with pytest.raises(UserError, match="no encoder would search"):
        retrieval.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
