"""Trees: LambdaMART on the features alone, the strongest ranker that many teams have today."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.data.preparing import Prepared
from sie_jax.models import trees as fitting
from sie_jax.models.trees import TreeRanker
from sie_jax.stages.features import Features
from sie_jax.stages.linear import folds_of, lists_of
from sie_jax.tables.provenance import IDENTITY
from sie_jax.tables.spool import write_parquet
from sie_jax.workdir import Job, Made, stage

FILE, HELD_OUT = "trees.json", "trees.parquet"


class Trees(NamedTuple):
    """The ranker, and the score of each training pair by trees that left its fold out."""

    ranker: TreeRanker
    held_out: np.ndarray


def read(made: Made[Trees]) -> Trees:
    """What was fitted."""
    held_out = pq.read_table(made.folder / HELD_OUT)["score"].to_numpy()
    return Trees(TreeRanker.load(made.folder / FILE), held_out)


@stage(leaves=(FILE, HELD_OUT), read=read, trains=False)
def trees(
    job: Job, prepared: Made[Prepared], features: Made[Features], *, folds: int, split_seed: int
) -> None:
    """Leaves trees.json, LightGBM's trees, and trees.parquet, the out-of-fold scores.

    folds: of the training queries, by which the size of the trees is chosen; as many as there are
    queries at most.

    Raises UserError where LightGBM cannot be loaded. Where there is no order to learn, the stage
    `linear` has said so.
    """
    known, training = features.value, prepared.value.split("train")
    lists = lists_of(prepared.value, "train", known.values["train"])
    dealt = folds_of(prepared.value, "train", most=folds, seed=split_seed)
    found = fitting.left_out(lists, dealt)
    ranker = TreeRanker(known.names, fitting.fit(lists, found.size), found.size)
    table = training.select(IDENTITY).append_column("fold", pa.array(dealt))
    table = table.append_column("score", pa.array(found.held_out()))

    def leave() -> None:
        ranker.save(job.folder / FILE)
        write_parquet(job.folder / HELD_OUT, table)

    processes.alone(leave)
