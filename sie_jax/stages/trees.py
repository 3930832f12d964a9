"""Trees: LambdaMART on the features alone, the strongest ranker that many teams have today."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.data.preparing import Prepared
from sie_jax.models import trees as fitting
from sie_jax.models.trees import TreeRanker
from sie_jax.stages.cross_fit import assigned
from sie_jax.stages.features import Features
from sie_jax.stages.linear import lists_of
from sie_jax.tables.provenance import IDENTITY
from sie_jax.tables.spool import write_parquet
from sie_jax.workdir import Job, Made, stage

FILE, HELD_OUT = "trees.json", "trees.parquet"


@dataclass(frozen=True)
class Trees:
    """What was fitted; folder: the workdir."""

    ranker: TreeRanker
    folder: Path

    @property
    def held_out(self) -> np.ndarray:
        """The score of each training pair by trees that left its fold out, made with folds only."""
        return pq.read_table(self.folder / HELD_OUT)["score"].to_numpy()


def read(made: Made[Trees]) -> Trees:
    """What was fitted."""
    return Trees(TreeRanker.load(made.folder / FILE), made.folder)


def _leaves(given: Mapping[str, Any]) -> tuple[str, ...]:
    return (FILE, HELD_OUT) if given["folds"] else (FILE,)


@stage(leaves=_leaves, read=read, trains=False)
def trees(
    job: Job, prepared: Made[Prepared], features: Made[Features], *, folds: int, split_seed: int
) -> None:
    """Leaves trees.json, LightGBM's trees, and with folds trees.parquet, the out-of-fold scores.

    folds: of the training queries, dealt as in `cross_fit`, so that all that is judged out of fold
    was fitted on the same queries; 0 where nothing is.

    Raises UserError where LightGBM cannot be loaded. Where there is no order to learn, the stage
    `linear` has said so.
    """
    known, training = features.value, prepared.value.split("train")
    lists = lists_of(prepared.value, "train", known.values["train"])
    ranker = TreeRanker(known.names, fitting.fit(lists))
    processes.alone(ranker.save, job.folder / FILE)
    if folds:
        dealt = assigned(training, folds, seed=split_seed, field="train.folds")
        table = training.select(IDENTITY).append_column("fold", pa.array(dealt))
        scores = fitting.held_out(lists, dealt)
        table = table.append_column("score", pa.array(scores))
        processes.alone(write_parquet, job.folder / HELD_OUT, table)
