"""Prepare: its files, and what of the config they depend on."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import workdirs
from tiny_runs import opened, tiny

from sie_jax.files import read_json


def test_every_row_read_is_kept_or_rejected_with_a_reason(finished: Path) -> None:
    counts = read_json(finished / "cleaning.json")
    rejected = pq.read_table(finished / "rejected.parquet")
    assert counts["read"] == counts["kept"] + rejected.num_rows
    assert sum(counts["rejected"].values()) == rejected.num_rows > 0
    assert set(rejected["reason"].to_pylist()) == {k for k, n in counts["rejected"].items() if n}
    assert sum(counts["splits"].values()) == counts["kept"]


def test_what_later_stages_ask_of_the_data_is_no_setting_of_it(
    finished: Path, tmp_path: Path
) -> None:
    """The checks ahead read models, schedules and policies, and change nothing."""
    workdir, config = Path(shutil.copytree(finished, tmp_path / "run")), tiny(policy="tempered")
    config.train.learning_rate, config.model.hidden_size, config.train.folds = 0.1, 32, 2
    before = workdirs.times(workdir)
    with opened(config, workdir) as (_, start):
        assert start.prepared.value.counts == read_json(finished / "cleaning.json")
    assert workdirs.times(workdir) == before
