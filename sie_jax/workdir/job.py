"""The workdir as a stage sees it: where it works, on which devices, who is told, what it costs."""

import dataclasses
import fnmatch
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from rich.console import Console

from sie_jax import processes
from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json
from sie_jax.sections import flat
from sie_jax.telling import spoke, telling
from sie_jax.training import tracking
from sie_jax.training.cost import CostMeter
from sie_jax.training.logs import MetricsLog, draw_together
from sie_jax.training.section import Telling
from sie_jax.training.tracking import TrackingConfig
from sie_jax.workdir.ledger import Ledger

STAGES, RUNS = "stages", "checkpoints"
CONFIG = "config.json"
# folders that are made where they are missing, and the rest of what runs leave in a workdir
FOLDERS = (STAGES, RUNS, "ledger", "scratch", "replay", "tracking", "folds")
LEFT = (
    *("data", "rejected.parquet", "cleaning.json", "checkpoint.json", "features.parquet"),
    *("corpus.json", "linear.json", "trees.json", "translation.parquet"),
    *("pretraining", "tuning.json"),
    *("out_of_fold.parquet", "choosing.json", "scores.parquet", "scores.json", "vectors"),
    *("importance.parquet", "audit.csv", "audit.jsonl", "audit.html", "audit.json"),
    *("models", "predictions", "rehearsals"),
    *("contest.json", "model", "explanations.parquet", "robustness.json", "nested.json"),
    *("metrics.json", "report.html", "rankings.parquet", "trec", "groups", "metrics.jsonl"),
    *("speed.jsonl", "events.parquet", "users.parquet", "items.parquet", "item_vectors.npy"),
    *(
        "recommenders",
        "recommenders.json",
        "explanations.json",
        "recommendations.parquet",
        "blend.json",
        "retrieved.parquet",
        "index",
        "mined",
        "together",
        "assembly.json",
        "chats.parquet",
        "selection.json",
        "intents",
        "intents.json",
        "rejected_sentences.parquet",
    ),
)


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The folder of one run of a recipe, and what changes no result: devices, console, trackers.

    config: all settings as JSON, left in config.json.
    train: how often a run is logged and saved, and which of its steps are profiled.
    redo: the stages to make again: names without a run (`train`) or with one (`train/weighted-0`).
    stages: the names of all that will be asked for, in their order, where that is known.
    defaults: the settings of a config in which nothing was changed, as JSON.
    """

    folder: Path
    mesh: Mesh
    console: Console
    config: dict[str, Any]
    train: Telling
    tracking: TrackingConfig
    redo: frozenset[str] = frozenset()
    stages: tuple[str, ...] = ()
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UserError where the folder holds what is not of a workdir of this version."""
        processes.alone(self._check)

    def _check(self) -> None:
        for name in FOLDERS:
            if os.path.lexists(self.folder / name) and not (self.folder / name).is_dir():
                raise UserError(
                    f"{self.folder} has a file {name}, where a run keeps a folder: remove the "
                    "file, or give another --workdir"
                )
        if (self.folder / STAGES).exists() or not self.folder.exists():
            return
        if (self.folder / CONFIG).exists():
            raise UserError(
                f"{self.folder} was made by an older version of sie_jax: give another --workdir"
            )
        # of a run with folds, these may be all that was made before it was killed
        for name in (*(one for one in FOLDERS if one != "folds"), *LEFT):
            if os.path.lexists(self.folder / name):
                kind = "folder" if (self.folder / name).is_dir() else "file"
                raise UserError(
                    f"{self.folder} has a {kind} {name} that no run made: give another --workdir"
                )

    def say(self, text: str) -> None:
        """Prints one line as it is: a path may hold what Rich would take for markup."""
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)
        spoke()

    @contextmanager
    def telling(self, stage: str) -> Iterator[None]:
        """Says, while the block runs, which of the stages it makes."""
        if stage not in self.stages:
            yield
            return
        place = f"stage {self.stages.index(stage) + 1} of {len(self.stages)}: {stage}"
        with telling(self.say, place):
            yield

    def say_changes(self) -> None:
        """Says in one line which settings are others than those the workdir was made with.

        A setting that either of them lacks, as one of another version may, is none of these.
        """
        try:
            theirs = flat(read_json(self.folder / CONFIG))
        except (OSError, ValueError, AttributeError):  # it is missing or damaged
            return
        changed = [
            f"{name}={_shown(theirs[name])}, and now has {_shown(ours)}"
            for name, ours in flat(self.config).items()
            if name in theirs and theirs[name] != ours
        ]
        if changed:
            self.say(
                f"{self.folder} was made with {'; '.join(changed)}: new stages are added, and "
                "those that this changes are made again if they cost no training (which may "
                "replace model/, audit.csv and the report) and refused if they train; give "
                "another --workdir to keep both"
            )

    def write_config(self) -> None:
        """Leaves the present settings in config.json, unless they are there."""
        try:
            if read_json(self.folder / CONFIG) == self.config:
                return
        except (OSError, ValueError):  # it is missing or damaged
            pass
        write_json(self.folder / CONFIG, self.config)

    def draw_log(self) -> None:
        """Draws metrics.jsonl and speed.jsonl together from all runs' logs; process 0 calls it."""
        folders = sorted(path for path in (self.folder / RUNS).glob("*") if path.is_dir())
        draw_together(folders, self.folder, self.say)


class Job:
    """One making of a stage.

    What a job asks for here, it may find as a job of the same stage left it that was stopped: the
    parts of its passes, the checkpoints of its runs, its costs.

    name: of the stage, with the run where it has one. runs: patterns of the names of its runs.
    begin: called once, before anything is kept that a later job would continue.
    """

    def __init__(
        self,
        workdir: Workdir,
        name: str,
        *,
        runs: Sequence[str] = (),
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.workdir, self.name = workdir, name
        self.folder, self.mesh, self.console = workdir.folder, workdir.mesh, workdir.console
        self.say = workdir.say
        self.ledger = Ledger(workdir.folder / "ledger" / name)
        self._runs, self._scratch = tuple(runs), workdir.folder / "scratch" / name
        self._begin = functools.cache(begin)

    def meter(self, entry: str) -> CostMeter:
        """The ledger's entry for one piece of this stage's work."""
        self._begin()
        return self.ledger.meter(entry)

    def scratch(self, name: str) -> Path:
        """A folder for parts of a pass; it is removed once the stage is done."""
        self._begin()
        return self._scratch / name

    def run_folder(self, run: str) -> Path:
        """The folder of a training run: its description, checkpoints, log and history."""
        if not any(fnmatch.fnmatch(run, pattern) for pattern in self._runs):
            raise ValueError(f"stage {self.name} makes no run {run!r}, only {self._runs}")
        self._begin()
        return self.folder / RUNS / run

    @contextmanager
    def log(self, run: str) -> Iterator[MetricsLog]:
        """The log of a run, which trackers hear too; metrics.jsonl has it when the block ends."""
        path = self.run_folder(run) / "metrics.jsonl"
        try:
            if not processes.first():
                yield MetricsLog(path)
                return
            with tracking.trackers(
                self.folder / "tracking",
                wandb_project=self.workdir.tracking.wandb_project,
                group=str(self.workdir.config.get("name", "")),
                config=self.workdir.config,
            ) as trackers:
                yield MetricsLog(path, trackers)
        finally:
            if processes.first():
                self.workdir.draw_log()

    def clear(self) -> None:
        """Removes what earlier jobs of this stage kept: parts, runs, costs."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self.ledger.clear()
        self.clear_runs()

    def clear_runs(self) -> None:
        """Removes the runs of this stage, with their checkpoints and logs."""
        for pattern in self._runs:
            for path in (self.folder / RUNS).glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def clear_scratch(self) -> None:
        """Removes the parts of this stage's passes."""
        shutil.rmtree(self._scratch, ignore_errors=True)


def _shown(value: Any) -> str:
    """A setting as it is given in a flag."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "''" if value == "" else str(value)
