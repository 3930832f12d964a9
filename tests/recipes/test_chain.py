"""A catalogue of the generated shop, searched by a chain of one small layer each."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sie_jax.config import ChainConfig
from sie_jax.errors import UserError
from sie_jax.recipes import chain
from sie_jax.serving.finding import Chain, Plan

pytestmark = pytest.mark.slow


def config_of() -> ChainConfig:
    config = ChainConfig(name="chained")
    config.data.source = "market"
    config.data.market.items, config.data.market.queries = 200, 80
    config.data.validation = 0.2
    config.data.max_length, config.data.buckets = 16, 1
    config.data.vocabulary_size = 300
    config.model.hidden_size, config.model.num_hidden_layers = 16, 1
    config.model.num_attention_heads, config.model.intermediate_size = 2, 16
    for train in (config.train, config.cross):
        train.batch_size, train.epochs = 32, 1
    config.train.task, config.cross.task = "contrastive", "listwise"
    config.chain.found, config.chain.kept, config.chain.depths = (20, 40), (10,), (10,)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chained") / "run"
    chain.run(config_of(), folder, console=Console(quiet=True))
    return folder


def test_every_step_is_measured_on_all_that_is_known(workdir: Path) -> None:
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert list(metrics["test"])[:4] == ["words", "tuned", "found", "ranked"]
    assert metrics["complete"]
    assert set(metrics["unjudged"].values()) == {0.0}
    assert set(metrics["trials"]["found"]) == {"20", "40"}
    ceilings = list(metrics["ceiling"].values())
    assert ceilings == sorted(ceilings, reverse=True)
    for step, ceiling in metrics["ceiling"].items():
        assert metrics["test"][step]["ndcg@10"]["value"] <= ceiling + 1e-9
    assert metrics["milliseconds"].keys() == metrics["ceiling"].keys()
    report = (workdir / "report.html").read_text()
    assert "From query to list" in report
    assert "Queries through the chain" in report


def test_the_chain_of_the_folder_gives_the_lists_that_were_measured(workdir: Path) -> None:
    loaded = Chain.load(workdir / "model")
    lists = pq.read_table(workdir / "retrieved.parquet").to_pydict()
    last = json.loads((workdir / "metrics.json").read_text())["verdict"]["ranker"]
    for query, ids in list(zip(lists["query"], lists[last], strict=True))[:3]:
        hits = loaded.hits(query, count=10)
        assert [hit.item_id for hit in hits] == ids[:10]
        assert all({"found", "ranked"} <= hit.why.keys() for hit in hits)
    everything = loaded.search(lists["query"][:2], plan=Plan(found=len(loaded.ids)))
    assert all(len(set(one)) == len(one) for one in everything.items.tolist())


def test_a_step_that_is_asked_for_is_taken(workdir: Path) -> None:
    loaded = Chain.load(workdir / "model")
    plain = loaded.search(["a red thing"], plan=Plan(found=20), count=5)
    diverse = loaded.search(["a red thing"], plan=Plan(found=20, diversity=0.5), count=5)
    assert list(diverse.steps) == [*plain.steps, "diversified"]
    assert plain.items.shape == diverse.items.shape == (1, 5)
    assert diverse.likeness[0, 0] == 0
    assert np.array_equal(plain.items[0, 0], diverse.items[0, 0])
    with pytest.raises(UserError, match="1000 items are asked for, and the catalogue has 200"):
        loaded.search(["a red thing"], plan=Plan(found=1000))


def test_a_damaged_folder_is_refused(workdir: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(workdir / "model", tmp_path / "model"))
    told = json.loads((copied / "chain.json").read_text())
    told["made_of"]["tuned"]["model"] = "another"
    (copied / "chain.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="made of another model"):
        Chain.load(copied)
    (copied / "chain.json").write_text("{}")
    with pytest.raises(UserError, match="is no folder of a chain"):
        Chain.load(copied)


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    config = config_of()
    config.cross.task = "contrastive"
    with pytest.raises(UserError, match="which reads query and item apart"):
        chain.run(config, tmp_path / "run")
    config = config_of()
    config.train.task = "listwise"
    with pytest.raises(UserError, match="a catalogue is searched by towers"):
        chain.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
