"""The command that prepares on Beam leaves a workdir from which training goes on."""

import importlib
from pathlib import Path
from typing import Any

import checkpoints
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from running import ROOT, config_text

from sie_jax.config import Config, from_json
from sie_jax.data.preparing import Prepared
from sie_jax.data.sources import synthetic
from sie_jax.files import read_json
from sie_jax.recipes import relevance

FIELDS = {
    "data.synthetic.queries": 100,
    "data.synthetic.items_per_query": 3,
    "data.synthetic.dirt": 0.1,
}


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What prepare.py runs, which stands beside the package as train.py does."""
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("prepare").prepare.entry


def prepared(config: Config, workdir: Path) -> Prepared:
    """What `train.py` goes on from."""
    with relevance.opened(config, workdir, console=Console(quiet=True)) as opened:
        return relevance.prepared(config, opened).value


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "tiny.py").write_text(config_text(FIELDS))
    return f"--config={tmp_path / 'tiny.py'}"


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """A tiny BERT with its tokenizer."""
    shop = synthetic.read(queries=20, items_per_query=3, dirt=0.0).table
    texts = shop["query"].to_pylist() + shop["title"].to_pylist()
    checkpoints.write(tmp_path / "bert", texts, vocabulary_size=200)
    return f"--config.model.pretrained={tmp_path / 'bert'}"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["synthetic", "table"])
def test_training_goes_on_from_what_beam_prepared(
    prepare: Any,
    config: str,
    checkpoint: str,
    source: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A source that the command reads, and a table that the workers read."""
    pytest.importorskip("apache_beam", reason="pip install -e '.[beam]'", exc_type=ImportError)
    command = ["prepare.py", config, checkpoint, f"--workdir={tmp_path / 'beam'}"]
    if source == "table":
        shop = synthetic.read(queries=100, items_per_query=3).table
        pq.write_table(shop, tmp_path / "own.parquet", row_group_size=50)
        command += [
            "--config.data.source=table",
            f"--config.data.path={tmp_path / 'own.parquet'}",
            "--config.data.table.labels=I,C,S,E",
            "--config.data.table.attributes=text",
            "--config.data.gains=0,1,2,4",
        ]
    assert prepare([*command, "--", "--runner=DirectRunner"]) == 0
    pairs = tmp_path / "beam" / "data" / "pairs.parquet"
    written = pairs.stat().st_mtime_ns

    made: Config = from_json(read_json(tmp_path / "beam" / "config.json"))
    ours, theirs = (prepared(made, tmp_path / name) for name in ("beam", "local"))
    assert ours.pairs.equals(theirs.pairs)
    assert ours.counts == theirs.counts
    assert ours.scale == theirs.scale
    names = [{path.name for path in (tmp_path / one).iterdir()} for one in ("beam", "local")]
    assert names[0] == names[1]

    assert prepare(command) == 0  # done is done
    assert pairs.stat().st_mtime_ns == written
    assert "train.py with the same --config and --workdir trains" in capsys.readouterr().out


def test_what_the_user_can_mend_is_one_line(
    prepare: Any, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = f"--workdir={tmp_path / 'workdir'}"
    for flags, message in (
        ([config, "--distributed"], "--distributed is a flag of train.py"),
        ([config, "--config.data.max_length=1"], "data.max_length is 1"),
        (["--config=none.py"], "no such file"),
    ):
        assert prepare(["prepare.py", workdir, *flags]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "workdir").exists()


def test_a_tokenizer_is_needed(
    prepare: Any, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("apache_beam", reason="pip install -e '.[beam]'", exc_type=ImportError)
    assert prepare(["prepare.py", config, f"--workdir={tmp_path / 'workdir'}"]) == 2
    assert "give --config.model.pretrained=FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "workdir").exists()
