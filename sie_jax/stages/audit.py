"""Audit: the labels that are most worth checking by people."""

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import RAW_SCHEMA, SPLITS
from sie_jax.evaluation import audit as auditing
from sie_jax.evaluation import audit_summary
from sie_jax.evaluation.predictions import probabilities
from sie_jax.evaluation.section import EvaluationConfig
from sie_jax.files import read_json, whole, write_json
from sie_jax.report import annotate
from sie_jax.stages.cross_fit import OutOfFold
from sie_jax.stages.score import Scores
from sie_jax.workdir import Job, Made, stage

FILE, LINES, PAGE, SUMMARY = "audit.csv", "audit.jsonl", "audit.html", "audit.json"


class Audited(NamedTuple):
    """The file of suspicious labels, and what `audit_summary` says of all labels."""

    file: Path
    summary: dict[str, Any]


def read(made: Made[Audited]) -> Audited:
    """What was left."""
    return Audited(made.folder / FILE, read_json(made.folder / SUMMARY))


@stage(leaves=(FILE, LINES, PAGE, SUMMARY), read=read, trains=False, edited=(FILE, LINES))
def audit(
    job: Job,
    prepared: Made[Prepared],
    scores: Made[Scores] | None,
    held_out: Made[OutOfFold] | None,
    *,
    evaluation: EvaluationConfig,
) -> None:
    """Leaves audit.csv and audit.jsonl, the page to check the labels on, and what is said of all.

    The pairs of all splits are ranked by models that never saw their queries, where there are such
    models; else the training pairs by the model that scored them. Rows with conflicting labels,
    which cleaning left out, come first.
    """
    pairs = prepared.value
    columns: dict[str, Any]
    if held_out is not None:
        table = pa.concat_tables([pairs.split(split) for split in SPLITS])
        columns, knows = held_out.value.columns, audit_summary.UNSEEN
    else:
        assert scores is not None
        table, known = pairs.split("train"), scores.value
        columns = {name: known.column(name) for name in known.table.column_names}
        knows = audit_summary.LEARNED
    conflicts = _conflicts(pairs)
    judged = auditing.Judged(
        table, pairs.scale.names, probabilities(columns), conflicts, knows=knows
    )

    def leave() -> None:
        found = auditing.ranked(
            judged,
            score=evaluation.audit_score,
            resamples=evaluation.resamples,
            seed=evaluation.seed,
        )
        auditing.write(job.folder / FILE, job.folder / LINES, found.rows(), found.further)
        sentences = audit_summary.sentences(found.summary)
        with whole(job.folder / PAGE) as page:
            annotate.write(
                page,
                found.rows(),
                name="audit",
                labels=judged.names,
                further=found.further,
                sentences=sentences,
            )
        write_json(job.folder / SUMMARY, found.summary)
        for sentence in sentences:
            job.say(f"labels: {sentence}")

    processes.alone(leave)


def _conflicts(prepared: Prepared) -> pa.Table:
    """The rows with conflicting labels that cleaning left out."""
    file = prepared.folder.parent / "rejected.parquet"
    if not prepared.counts["rejected"].get(auditing.CONFLICT):
        return RAW_SCHEMA.empty_table()
    return pq.read_table(file, filters=[("reason", "=", auditing.CONFLICT)])
