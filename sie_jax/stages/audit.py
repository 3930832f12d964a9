"""Audit: the labels that are most worth checking by people."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from sie_jax import processes
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import SPLITS
from sie_jax.evaluation import audit as auditing
from sie_jax.evaluation.predictions import probabilities
from sie_jax.stages.cross_fit import OutOfFold
from sie_jax.stages.score import Scores
from sie_jax.workdir import Job, Made, stage

FILE, LINES = "audit.csv", "audit.jsonl"


def read(made: Made[Path]) -> Path:
    """The file of suspicious labels."""
    return made.folder / FILE


@stage(leaves=(FILE, LINES), read=read, trains=False, edited=(FILE, LINES))
def audit(
    job: Job,
    prepared: Made[Prepared],
    scores: Made[Scores] | None,
    held_out: Made[OutOfFold] | None,
) -> None:
    """Leaves audit.csv and audit.jsonl.

    The pairs of all splits are ranked by models that never saw their queries, where there are such
    models; else the training pairs by the model that scored them.
    """
    pairs = prepared.value
    columns: dict[str, Any]
    if held_out is not None:
        table = pa.concat_tables([pairs.split(split) for split in SPLITS])
        columns = held_out.value.columns
    else:
        assert scores is not None
        table, known = pairs.split("train"), scores.value
        columns = {name: known.column(name) for name in known.table.column_names}
    rows = auditing.ranked(table, pairs.scale.names, probabilities(columns))
    processes.alone(auditing.write, job.folder / FILE, job.folder / LINES, rows)
