"""Weigh: the weight that the chosen policy makes of each training pair's score."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sie_jax import processes
from sie_jax.data.preparing import Prepared
from sie_jax.importance import table
from sie_jax.importance.section import ImportanceConfig
from sie_jax.stages.score import Scores
from sie_jax.tables import parts
from sie_jax.tables.spool import write_parquet
from sie_jax.workdir import Job, Made, stage

FILE = "importance.parquet"


def read(made: Made[pa.Table]) -> pa.Table:
    """The table of scores and weights, in the order of the training pairs."""
    return parts.read(made.folder / FILE)


@stage(leaves=(FILE,), read=read)
def weigh(
    job: Job,
    prepared: Made[Prepared],
    scores: Made[Scores],
    *,
    importance: ImportanceConfig,
    columns: Sequence[str],
    after: tuple[Made[Any], ...] = (),
) -> None:
    """Leaves importance.parquet, with the scores that are named in `columns`."""
    training, known = prepared.value.split("train"), scores.value
    weights = importance.weights(known.column(importance.score), training, importance.policy)
    made = table.build(
        training,
        {name: known.column(name) for name in columns},
        weights,
        provenance={name: known.provenance(name) for name in columns}
        | {"weight": known.provenance(importance.policy)},
    )
    processes.alone(write_parquet, job.folder / FILE, made)
