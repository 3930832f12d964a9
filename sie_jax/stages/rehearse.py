"""Rehearse: a weighted run trained without one fold, so that the contest can judge it there."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sie_jax import processes
from sie_jax.evaluation.predictions import predicted
from sie_jax.importance.section import ImportanceConfig
from sie_jax.passes.sweep import Columns
from sie_jax.stages.cross_fit import OutOfFold
from sie_jax.stages.pair_runs import PairRuns, Start
from sie_jax.stages.score import Scores
from sie_jax.stages.selection import trained
from sie_jax.stages.train import read_predictions, weighing
from sie_jax.tables.spool import write_parquet
from sie_jax.training.run import Run
from sie_jax.workdir import Job, Made, stage

FOLDER = "rehearsals"


class Rehearsed(NamedTuple):
    """What a model predicts for the training pairs `rows` that it left out."""

    rows: np.ndarray
    predictions: Columns


def read(made: Made[Rehearsed]) -> Rehearsed:
    """The predictions for the fold that was left out."""
    columns = read_predictions(made.folder / _file(made.stage.partition("/")[2]))
    return Rehearsed(columns.pop("row"), columns)


def _file(run: str) -> str:
    return f"{FOLDER}/{run}.parquet"


@stage(leaves=lambda given: (_file(given["run"].name),), read=read, run="run")
def rehearse(
    job: Job,
    run: Run,
    start: Start,
    held_out: Made[OutOfFold],
    scores: Made[Scores] | None,
    *,
    fold: int,
    importance: ImportanceConfig,
) -> None:
    """Leaves rehearsals/RUN.parquet: what is predicted for the training pairs of one fold.

    The folds are those of the stage cross_fit, whose models are the same without weights. Fixed
    weights come from `scores`, which saw the labels of all training pairs: what this tells the
    weights about the fold that is left out is small, and taken into account nowhere.
    """
    runs = PairRuns(job, start)
    of_pair = held_out.value.pairs["fold"].to_numpy()
    of_pair = of_pair[of_pair >= 0]
    inside, outside = (np.flatnonzero(where) for where in (of_pair == fold, of_pair != fold))
    policy, examples = weighing(run, runs.prepared, scores, importance, outside)
    selected = trained(runs, run, examples, policy=policy)
    columns = predicted(runs.predicted(selected.params, "train", inside))
    processes.alone(
        write_parquet, job.folder / _file(run.name), pa.table({"row": inside} | columns)
    )
