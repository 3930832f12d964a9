"""Prepare: its files, and what of the config they depend on."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import workdirs
from tiny_runs import opened, tiny

from sie_jax.data.section import DataConfig
from sie_jax.files import read_json, write_json
from sie_jax.stages import prepare


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


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (
            {"impressions_repeated": 1200, "impressions_read": 5000},
            ["1,200 of 5,000 rows of the log repeat the session, query, item and position"],
        ),
        ({"impressions_repeated": 0, "impressions_read": 5000}, []),
        ({}, []),
    ],
    ids=["some", "none", "no log"],
)
def test_repeated_rows_of_a_log_are_said(
    tmp_path: Path, summary: dict[str, int], words: list[str]
) -> None:
    write_json(tmp_path / "cleaning.json", {"summary": summary, "kept": 7})
    said: list[str] = []
    job: Any = SimpleNamespace(folder=tmp_path, say=said.append)
    prepare._say_counts(job, DataConfig())
    assert len(said) == len(words)
    for line, start in zip(said, words, strict=True):
        assert line.startswith(start)
        assert "each counts as shown again" in line
