"""Prepare: its files, and what of the config they depend on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import pyarrow.parquet as pq
import pytest
import workdirs
from rich.console import Console
from safetensors.numpy import load_file, save_file
from tiny_runs import opened, tiny

from sie_jax.config import Config
from sie_jax.data.schema import Source
from sie_jax.data.section import DataConfig
from sie_jax.data.sources.click_log import BOT_RULES
from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json
from sie_jax.recipes import relevance
from sie_jax.stages import prepare
from sie_jax.workdir.job import CONFIG, FOLDERS, LEFT


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


LOG = {
    "impressions_read": 5000,
    "impressions_used": 4000,
    "impressions_removed": dict.fromkeys((*BOT_RULES, "too_little_evidence"), 100),
    "sessions": 90,
    "bot_sessions": 2,
    "pairs": 70,
    "pairs_kept": 60,
    "positions": [{"position": k, "propensity": 1 / k} for k in range(1, 9)],
}
LOG_SAID = (
    "log: 5,000 rows read, 4,000 of them count; 300 are of bots (2 of 90 sessions); 10 of 70 pairs "
    "have too little evidence for a grade"
)


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (
            {**LOG, "positions": [], "impressions_repeated": 1200},
            [LOG_SAID, "1,200 of 5,000 rows of the log repeat the session, query, item and pos"],
        ),
        ({**LOG, "positions": [], "impressions_repeated": 0}, [LOG_SAID]),
        (
            {**LOG, "ubi": {"hit_lists": {"used": 1300}}},
            [
                LOG_SAID,
                "how often each position is looked at, as a share of the first: 1: 1.00, 2: 0.50, "
                "3: 0.33, 4: 0.25, 5: 0.20; cleaning.json has the rest",
                "no event shows an item: 1,300 lists of hits, with which queries were answered",
            ],
        ),
        ({**LOG, "positions": [], "ubi": {"hit_lists": {"used": 0}}}, [LOG_SAID]),
        ({}, []),
    ],
    ids=["repeated", "without positions", "hit lists", "no hit lists", "no log"],
)
def test_what_became_of_a_click_log_is_said(
    tmp_path: Path, summary: dict[str, Any], words: list[str]
) -> None:
    write_json(tmp_path / "cleaning.json", {"summary": summary, "kept": 7})
    said: list[str] = []
    job: Any = SimpleNamespace(folder=tmp_path, say=said.append)
    prepare._say_counts(job, DataConfig())
    assert len(said) == len(words)
    for line, start in zip(said, words, strict=True):
        assert line.startswith(start)


def test_all_that_a_run_leaves_is_known_as_such(finished: Path) -> None:
    """A folder that holds any of it is then no place for a new workdir."""
    assert {path.name for path in finished.iterdir()} <= {CONFIG, *FOLDERS, *LEFT}


def of_table(tmp_path: Path, queries: int = 20) -> Config:
    """The config of a run on a table of three items for each query, and of a tiny checkpoint."""
    data, model = tmp_path / "data", tmp_path / "bert"
    data.mkdir()
    rows = [f"lamp {i // 3},lamp no {i},{i % 2}" for i in range(3 * queries)]
    (data / "a.csv").write_text("\n".join(["query,title,label", *rows, ""]))
    checkpoints.write(model, rows, num_labels=2)
    config = tiny()
    config.data.source, config.data.path = "table", str(data)
    config.model.pretrained = str(model)
    return config


def edited(config: Config) -> None:
    """As many bytes at the same time."""
    path = Path(config.data.path, "a.csv")
    stat = path.stat()
    path.write_text(path.read_text().replace("lamp no 7", "lamp no 8"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def more(config: Config) -> None:
    Path(config.data.path, "b.csv").write_text("query,title,label\nlamp 0,lamp no 90,1\n")


def other_weights(config: Config) -> None:
    path = Path(config.model.pretrained, "model.safetensors")
    tensors = load_file(path)
    save_file({name: values + 1 for name, values in tensors.items()}, path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edited, r"inputs\.data\.a\.csv 'content "),
        (more, r"inputs\.data\.b\.csv None, not 'content "),
        (other_weights, r"inputs\.checkpoint\.model\.safetensors 'content "),
    ],
)
def test_an_input_that_changed_since_is_noticed(
    tmp_path: Path, change: Callable[[Config], None], told: str
) -> None:
    config = of_table(tmp_path)
    with opened(config, tmp_path / "run") as (_, start):
        before = start.prepared.id
    with opened(config, tmp_path / "run") as (_, start):
        assert start.prepared.id == before
    change(config)
    with (
        pytest.raises(
            UserError, match=rf"^stage prepare .* with other inputs .{told}.*--redo=prep"
        ),
        opened(config, tmp_path / "run"),
    ):
        pass
    console = Console(quiet=True)
    with relevance.opened(config, tmp_path / "run", redo=["prepare"], console=console) as workdir:
        assert relevance.prepared(config, workdir).id != before  # so all that follows is made again


def test_an_input_that_changes_while_it_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, real = of_table(tmp_path), DataConfig.read

    def read(self: DataConfig) -> Source:
        found = real(self)
        edited(config)
        return found

    monkeypatch.setattr(DataConfig, "read", read)
    with (
        pytest.raises(UserError, match=r"data was changed while it was read: rerun"),
        opened(config, tmp_path / "run"),
    ):
        pass


def test_what_is_read_is_no_place_for_a_workdir(tmp_path: Path) -> None:
    config = of_table(tmp_path)
    before = workdirs.times(tmp_path)
    for path in ("data", "data/run", "bert", "bert/deep/run"):
        with (
            pytest.raises(UserError, match=r"is read: give another --workdir"),
            opened(config, tmp_path / path),
        ):
            pass
    config.data.path = str(tmp_path / "run" / "audit.csv")
    with (
        pytest.raises(UserError, match=r"run/audit\.csv is read: give another --workdir"),
        opened(config, tmp_path / "run"),
    ):
        pass
    assert workdirs.times(tmp_path) == before


@pytest.mark.parametrize(
    ("section", "field", "value", "told"),
    [
        ("train", "batch_size", 10**7, r"train.batch_size is 10000000, but there are \d+ training"),
        ("train", "epochs", 10**12, "train.epochs or importance.warmup_epochs 1000000000000 needs"),
        ("importance", "warmup_epochs", 10**12, "importance.warmup_epochs 1000000000000 needs"),
        ("train", "profile_steps", (100, 110), "begins with 100, but no run has more than"),
        (
            "data",
            "max_length",
            10**8,
            r"but no pair has more than \d+ characters: give at most 512",
        ),
    ],
)
def test_sizes_that_cannot_work_are_refused_before_anything_is_written(
    tmp_path: Path, section: str, field: str, value: Any, told: str
) -> None:
    """And the mended command then runs."""
    config = of_table(tmp_path)
    mended = getattr(getattr(config, section), field)
    setattr(getattr(config, section), field, value)
    with pytest.raises(UserError, match=told), opened(config, tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
    setattr(getattr(config, section), field, mended)
    with opened(config, tmp_path / "run"):
        pass
