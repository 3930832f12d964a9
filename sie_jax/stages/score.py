"""Score: how much every training pair matters, by each estimator, after a uniform warm-up."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.data.schema import ATTRIBUTE
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation.predictions import probabilities
from sie_jax.files import read_json, write_json
from sie_jax.importance.doubtful import Groups
from sie_jax.passes import estimating
from sie_jax.passes.influence import Options
from sie_jax.sections import plain
from sie_jax.stages.cross_fit import OutOfFold
from sie_jax.stages.pair_runs import Kept, PairRuns, Start, check_finite
from sie_jax.tables import hashing, vectors
from sie_jax.tables.provenance import IDENTITY, Provenance
from sie_jax.tables.spool import write_parquet
from sie_jax.tasks import classifies
from sie_jax.tasks import scores as scores_of
from sie_jax.training import state as states
from sie_jax.training.history import History
from sie_jax.training.run import Run
from sie_jax.workdir import Job, Made, stage

FILE, ORIGIN, VECTORS = "scores.parquet", "scores.json", "vectors"


class Scores(NamedTuple):
    """What is known of each training pair, in their order.

    table: `IDENTITY`, and float32 columns: the scores, `last_layer_norm` and the
    task's predictions. origin: where they come from, without the name of the score.
    """

    table: pa.Table
    origin: dict[str, Any]

    def column(self, name: str) -> np.ndarray:
        """One column, `[N]`."""
        return self.table[name].to_numpy()

    def provenance(self, score: str) -> Provenance:
        """Where a score comes from, or what was made of one."""
        return Provenance(score=score, **self.origin)


def read(made: Made[Scores]) -> Scores:
    """The scores of all training pairs."""
    return Scores(pq.read_table(made.folder / FILE), read_json(made.folder / ORIGIN))


@stage(leaves=(FILE, ORIGIN, VECTORS), read=read, runs=("warmup",))
def score(
    job: Job,
    start: Start,
    held_out: Made[OutOfFold] | None,
    *,
    estimators: Sequence[str],
    warmup_epochs: int,
    groups: tuple[str, str] = ("", ""),
) -> None:
    """Leaves scores.parquet, scores.json and vectors/.

    estimators: further ones, beside the task's own scores. held_out: the stage cross_fit, where one
    of them needs models that never saw the query. groups: the attributes with annotators and with
    sellers, "" where there is none.
    """
    runs = PairRuns(job, start)
    training = runs.prepared.split("train")
    run = Run(
        "warmup", start.seed, dataclasses.replace(start.train, epochs=warmup_epochs, patience=0)
    )
    evidence = _evidence(runs, run, None if held_out is None else held_out.value)
    columns = estimating.columns(
        estimators,
        runs.task,
        evidence,
        runs.pairs("train")._replace(groups=groups_of(training, *groups)),
        runs.pairs("validation"),
        runs.workspace,
        Options(seed=start.seed),
    )
    own = scores_of(start.train.task)
    check_finite({name: columns[name] for name in (*own, *estimators)}, training)
    settings = {
        "train": plain(start.train),
        "model": plain(start.model),
        "warmup_epochs": warmup_epochs,
        "estimators": list(estimators),
    }
    origin: dict[str, Any] = {
        "checkpoint": _digest(runs, evidence.checkpoints[-1][0]),
        "seed": start.seed,
        "data_version": hashing.data_version(training),
        "config": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    }
    kinds = {"layer_norms": columns["layer_norms"]}
    if evidence.visits is not None:
        kinds["margins"] = evidence.visits.margins.T
    if "embedding" in columns:
        kinds["embedding"] = columns["embedding"]
    table = training.select(IDENTITY)
    for name, values in columns.items():
        if values.ndim == 1:
            table = table.append_column(name, pa.array(values.astype(np.float32)))

    def leave() -> None:
        vectors.write(
            job.folder / VECTORS,
            [(training["example_id"].combine_chunks(), kinds)],
            process_index=0,
            provenance={kind: Provenance(score=kind, **origin) for kind in kinds},
        )
        write_json(job.folder / ORIGIN, origin)
        write_parquet(job.folder / FILE, table)

    processes.alone(leave)


def _evidence(runs: PairRuns, run: Run, held_out: OutOfFold | None) -> estimating.Evidence:
    """The warm-up run, and what it leaves to score by."""
    epochs, rows = run.train.epochs, len(runs.prepared.lengths["train"])
    per_epoch = runs.planner.steps_per_epoch
    ends = [per_epoch * (epoch + 1) for epoch in range(epochs)]
    history = None
    if classifies(run.train.task):
        history = History(runs.job.run_folder(run.name) / "history")
    state = runs.fit(run, kept=Kept(history, ends))
    rates = states.make_schedule(run.train.learning_rate, ends[-1], run.train.warmup_fraction)
    of_epoch = np.asarray(jax.vmap(rates)(jnp.arange(ends[-1]))).reshape(epochs, per_epoch)
    checkpoints = [
        (runs.checkpoint(run, state, step).params, float(rate))
        for step, rate in zip(ends, of_epoch.mean(1), strict=True)
    ]
    moments = optax.tree.bias_correction(
        optax.tree.get(state.opt_state, "nu"), states.SECOND_MOMENT_DECAY, ends[-1]
    )
    return estimating.Evidence(
        checkpoints,
        moments,
        None if history is None else history.read(rows, steps_per_epoch=per_epoch),
        None if held_out is None else probabilities(held_out.training()),
    )


def groups_of(training: pa.Table, annotator: str, seller: str) -> Groups:
    """Whose labels can be wrong together, by the attributes with annotators and with sellers.

    A pair without an annotator is one of its query, and one without a seller is alone.
    """
    queries = training["query_id"].to_pylist()

    def values(name: str, missing: Sequence[str]) -> np.ndarray | None:
        if not name:
            return None
        known = training[ATTRIBUTE + name].to_pylist()
        # no value begins with a zero byte
        return np.array([one or f"\0{other}" for one, other in zip(known, missing, strict=True)])

    return Groups(
        np.array(queries),
        values(annotator, queries),
        values(seller, [str(row) for row in range(len(queries))]),
    )


def _digest(runs: PairRuns, params: Any) -> str:
    digest = hashlib.sha256()
    for leaf in meshes.fetch(runs.job.mesh, jax.tree.leaves(params)):
        digest.update(leaf.tobytes())
    return digest.hexdigest()
