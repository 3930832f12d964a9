"""Train: one run, from the parameters of its seed, and what it predicts for the test pairs."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from flax import nnx

from sie_jax import processes
from sie_jax.data.preparing import Prepared
from sie_jax.data.section import DataConfig
from sie_jax.devices import mesh as meshes
from sie_jax.files import read_json, whole_folder, write_json
from sie_jax.importance import sampling
from sie_jax.importance.section import ImportanceConfig
from sie_jax.models import PairClassifier
from sie_jax.serving.settings import Settings
from sie_jax.stages.pair_runs import Examples, PairRuns, Start
from sie_jax.stages.score import Scores
from sie_jax.tables.spool import write_parquet
from sie_jax.training.run import Run
from sie_jax.workdir import Job, Made, stage

EXPORTED = "weighted-0"
"""The run whose model is exported."""
MODEL = "model"


class Trained(NamedTuple):
    """What a run predicts for the test pairs: class probabilities `[N, K]`; and how well it does on
    the training pairs."""

    probabilities: np.ndarray
    training: dict[str, float]


def read(made: Made[Trained]) -> Trained:
    """The predictions of a run."""
    table, measured = (made.folder / name for name in _predictions(made.stage.partition("/")[2]))
    columns = pq.read_table(table).columns
    return Trained(np.stack([column.to_numpy() for column in columns], 1), read_json(measured))


def _predictions(run: str) -> tuple[str, str]:
    return f"predictions/{run}.parquet", f"predictions/{run}.json"


def _leaves(given: Any) -> tuple[str, ...]:
    name = given["run"].name
    return (*_predictions(name), *((MODEL,) if name == EXPORTED else ()))


@stage(leaves=_leaves, read=read, run="run")
def train(
    job: Job,
    run: Run,
    start: Start,
    scores: Made[Scores] | None,
    *,
    data: DataConfig,
    importance: ImportanceConfig | None,
) -> None:
    """Leaves the run's predictions for the test pairs, and model/ where the run is EXPORTED.

    All runs of one seed start from the same parameters and take the same number of steps, schedule
    and batches; those that draw their batches draw their own, as many.

    data: how pairs become token ids, which the exported model says too.
    importance: how the run weighs its examples, None where they all count alike. scores: what fixed
    weights are made of, None where weights are made while the run trains.
    """
    runs, policy, examples = PairRuns(job, start), None, Examples()
    pairs = runs.prepared
    if run.weighting.kind == "online":
        assert importance is not None
        policy = importance.policy_named(run.weighting.policy)
    elif scores is not None:
        assert importance is not None
        weights = importance.weights(
            scores.value.column(importance.score), pairs.split("train"), run.weighting.policy
        )
        if run.weighting.kind == "sampling":
            examples = Examples(probabilities=sampling.probabilities(weights))
        else:
            examples = Examples(weights=(weights * len(weights)).astype(np.float32))
    state = runs.fit(run, examples, policy=policy)
    probabilities = runs.predicted(state.params, "test")["probabilities"]
    table = pa.table({f"probability_{i}": column for i, column in enumerate(probabilities.T)})
    measured = runs.measured(state, "train")
    params = meshes.fetch(job.mesh, state.params) if run.name == EXPORTED else None

    def leave() -> None:
        file, figures = _predictions(run.name)
        write_parquet(job.folder / file, table)
        write_json(job.folder / figures, measured)
        if params is not None:
            _export(job.folder / MODEL, nnx.merge(runs.task.graphdef, params), pairs, data)

    processes.alone(leave)


def _export(folder: Path, model: PairClassifier, pairs: Prepared, data: DataConfig) -> None:
    """Leaves the model as a Hugging Face folder, with how its pairs were made."""
    with whole_folder(folder) as temporary:
        model.save_pretrained(temporary)
        pairs.tokenizer.save_pretrained(temporary)
        Settings(
            gains=pairs.scale.gains,
            max_length=data.max_length,
            item_text=data.item_text,
            max_query_characters=data.max_query_characters,
            max_title_characters=data.max_title_characters,
        ).write(temporary)
