"""Rehearse: a weighted run trained without one fold, so that the contest can judge it there."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.importance.section import ImportanceConfig
from sie_jax.stages.cross_fit import OutOfFold
from sie_jax.stages.pair_runs import PairRuns, Start
from sie_jax.stages.score import Scores
from sie_jax.stages.train import weighing
from sie_jax.tables.spool import write_parquet
from sie_jax.training.run import Run
from sie_jax.workdir import Job, Made, stage

FOLDER = "rehearsals"


class Rehearsed(NamedTuple):
    """What a model predicts for the training pairs `rows` that it left out: `[n, K]`."""

    rows: np.ndarray
    probabilities: np.ndarray


def read(made: Made[Rehearsed]) -> Rehearsed:
    """The predictions for the fold that was left out."""
    table = pq.read_table(made.folder / _file(made.stage.partition("/")[2]))
    names = [name for name in table.column_names if name != "row"]
    return Rehearsed(table["row"].to_numpy(), np.stack([table[x].to_numpy() for x in names], 1))


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
    """Leaves rehearsals/RUN.parquet: class probabilities of the training pairs of one fold.

    The folds are those of the stage cross_fit, whose models are the same without weights. Fixed
    weights come from `scores`, which saw the labels of all training pairs: what this tells the
    weights about the fold that is left out is small, and taken into account nowhere.
    """
    runs = PairRuns(job, start)
    of_pair = held_out.value.pairs["fold"].to_numpy()
    of_pair = of_pair[of_pair >= 0]
    inside, outside = (np.flatnonzero(where) for where in (of_pair == fold, of_pair != fold))
    policy, examples = weighing(run, runs.prepared, scores, importance, outside)
    state = runs.fit(run, examples, policy=policy)
    probabilities = runs.predicted(state.params, "train", inside)["probabilities"]
    columns = {f"probability_{i}": column for i, column in enumerate(probabilities.T)}
    processes.alone(
        write_parquet, job.folder / _file(run.name), pa.table({"row": inside} | columns)
    )
