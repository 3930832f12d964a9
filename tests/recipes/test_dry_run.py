"""A dry run says what a run finds and does, and leaves nothing."""

import io
import shutil
import tempfile
from pathlib import Path

import pytest
import workdirs
from rich.console import Console
from tiny_runs import tiny

from sie_jax.config import Config
from sie_jax.errors import UserError
from sie_jax.files import read_json
from sie_jax.recipes import dry_run, plan


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, and nothing else is."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def told(config: Config, workdir: Path) -> str:
    console = Console(file=io.StringIO(), width=200)
    dry_run.dry_run(config, workdir, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_counts_what_the_run_counted_and_writes_nothing(
    finished: Path, temporary: Path, tmp_path: Path
) -> None:
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    before, counts = workdirs.times(workdir), read_json(finished / "cleaning.json")
    text = told(tiny(), workdir)
    assert f"rows: {counts['read']} read, {counts['kept']} kept" in text
    for rule, number in counts["rejected"].items():
        assert (f"{number} {rule}" in text) == (number > 0)
    for split, pairs in counts["splits"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"│ {split} "))
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert cells[:3] == [split, str(counts["queries"][split]), str(pairs)]
        assert sum(map(int, cells[3:-1])) == pairs
    steps = max(workdirs.steps(finished, "uniform-0"))
    assert f"training runs: 1 × uniform, weighted, {steps} steps each" in text
    assert f"stages: {len(plan.stages(tiny()))}" in text
    assert "memory of a step: " in text
    # the two runs, and an epoch of warm-up, which is as long
    assert f"so the {3 * steps} steps of the runs" in text
    assert workdirs.times(workdir) == before
    assert list(temporary.glob("sie_jax-*")) == []  # TFDS leaves an empty folder of its own


def test_columns_are_told_with_those_that_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("search,title,label,price,brand,sku\n")
    config = tiny()
    config.data.source, config.data.path = "table", str(tmp_path / "pairs.csv")
    config.data.columns.query, config.data.features = "search", ("price",)
    config.data.table.attributes = ("brand",)
    assert dry_run._columns(config)[1:] == [
        "  query: column search",
        "  title: column title",
        "  label: column label",
        "  attribute: column brand",
        "  numeric: column price",
        "  not read: sku",
    ]


def test_what_the_run_refuses_is_refused_and_nothing_is_left(
    temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / "pairs.csv").write_text("query,name,label\na,b,1\n")
    config = tiny()
    config.data.source, config.data.path = "table", str(tmp_path / "pairs.csv")
    with pytest.raises(UserError, match=r"perhaps --config\.data\.columns\.title=name$"):
        told(config, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model").mkdir()
    with pytest.raises(UserError, match="has a folder model that no run made"):
        told(tiny(), tmp_path / "other")
    assert not (tmp_path / "run").exists()
    assert list(temporary.glob("sie_jax-*")) == []


def test_training_runs_are_named_with_their_steps() -> None:
    config = tiny(compare=("keep",), policy="auto", warmup_epochs=2)
    config.train.epochs, config.train.seeds, config.train.folds = 3, 2, 5
    config.train.learning_rates, config.pretrain.steps = (1e-3, 2e-3), 400
    assert plan.runs(config, 10) == [
        "training runs: 2 × uniform, weighted, keep, 30 steps each",
        "  warm-up for the scores: 20 steps",
        "  pretraining: 400 steps",
        "  tune: 2 learning rates, 30 steps each",
        "  on folds of the training queries: 15 runs, about 24 steps each",
        "  choose: as many candidates as importance.choosing_budget 5 full trainings allow",
    ]
    # 2 × 3 runs and 2 learning rates of 30 steps, 2 epochs of warm-up, 15 runs on folds
    assert plan.total(config, 10) == 8 * 30 + 20 + 15 * 24
