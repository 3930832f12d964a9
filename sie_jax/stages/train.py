"""Train: one run, from the parameters of its seed, and what it predicts for the test pairs."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from flax import nnx

from sie_jax import processes
from sie_jax.data import tokenization
from sie_jax.data.preparing import Prepared
from sie_jax.data.section import DataConfig
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation.predictions import predicted
from sie_jax.files import read_json, whole_folder, write_json
from sie_jax.importance import sampling
from sie_jax.importance.policies import Policy
from sie_jax.importance.section import ImportanceConfig
from sie_jax.models import PairClassifier, Towers
from sie_jax.models.linear import LinearRanker
from sie_jax.passes.sweep import Columns
from sie_jax.serving.settings import Settings
from sie_jax.stages.pair_runs import Examples, PairRuns, Start
from sie_jax.stages.score import Scores
from sie_jax.stages.selection import trained
from sie_jax.tables.spool import write_parquet
from sie_jax.training.run import Run
from sie_jax.workdir import Job, Made, stage

MODELS = "models"
"""The folder of the models of the first seed, one of which is exported."""
HEAD = "head.json"
"""In the folder of a model: the weights of the features that its head takes."""


class Trained(NamedTuple):
    """What a run leaves: what its model says of the test and of the validation pairs.

    training: how well it does on the training pairs. selected: which of its weights were taken, and
    what each gave on the validation queries (`stages.selection`). model: its folder, "" but for the
    first seed. head: the weights of the features in its head, which the folder of the model does
    not have; None where there are none.
    """

    test: Columns
    validation: Columns
    training: dict[str, float]
    selected: dict[str, Any]
    model: str
    head: LinearRanker | None = None


def read(made: Made[Trained]) -> Trained:
    """What a run left."""
    name = made.stage.partition("/")[2]
    test, validation, figures = (made.folder / file for file in _predictions(name))
    measured = read_json(figures)
    folder = made.folder / MODELS / name
    head = folder / HEAD
    return Trained(
        read_predictions(test),
        read_predictions(validation),
        measured["training"],
        measured["selected"],
        str(folder) if folder.is_dir() else "",
        LinearRanker.load(head) if head.exists() else None,
    )


def read_predictions(path: Path) -> Columns:
    """The columns of a task that were left there (`evaluation.from_columns`)."""
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def _predictions(run: str) -> tuple[str, str, str]:
    stem = f"predictions/{run}"
    return f"{stem}.parquet", f"{stem}.validation.parquet", f"{stem}.json"


def _leaves(given: Any) -> tuple[str, ...]:
    run: Run = given["run"]
    kept = (f"{MODELS}/{run.name}",) if run.seed == given["start"].seed else ()
    return (*_predictions(run.name), *kept)


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
    """Leaves the run's predictions for test and validation, and the first seed's models/RUN.

    All runs of one seed start from the same parameters and take the same number of steps, schedule
    and batches; those that draw their batches draw their own, as many.

    data: how pairs become token ids, which the model's folder says too. scores, importance: as
    `weighing` takes them.
    """
    runs = PairRuns(job, start)
    pairs = runs.prepared
    policy, examples = weighing(run, pairs, scores, importance)
    selected = trained(runs, run, examples, policy=policy)
    found = {
        split: pa.table(predicted(runs.predicted(selected.params, split)))
        for split in ("test", "validation")
    }
    measured = runs.measured(selected.params, "train")
    keeps = run.seed == start.seed
    params = meshes.fetch(job.mesh, selected.params) if keeps else None

    def leave() -> None:
        test, validation, figures = _predictions(run.name)
        write_parquet(job.folder / test, found["test"])
        write_parquet(job.folder / validation, found["validation"])
        told = {"weights": selected.name, "validation": selected.values}
        write_json(job.folder / figures, {"training": measured, "selected": told})
        if params is not None:
            model = nnx.merge(runs.task.graphdef, params)
            head = None
            if runs.features is not None:
                weights = np.asarray(model.features.kernel[...])[:, 0]
                head = LinearRanker(runs.features.names, tuple(map(float, weights)), ridge=0.0)
            _save(job.folder / MODELS / run.name, model, head, pairs, data)

    processes.alone(leave)


def weighing(
    run: Run,
    pairs: Prepared,
    scores: Made[Scores] | None,
    importance: ImportanceConfig | None,
    rows: np.ndarray | None = None,
) -> tuple[Policy | None, Examples]:
    """The policy of a run that weighs while it trains, and the training rows with their weights.

    importance: how the run weighs its examples, None where they all count alike. scores: what fixed
    weights are made of, None where weights are made while the run trains. rows: the only ones that
    are trained on, ascending; all where None. Fixed weights have a mean of 1 over them.
    """
    if run.weighting.kind == "online":
        assert importance is not None
        return importance.policy_named(run.weighting.policy), Examples(rows)
    if scores is None:
        return None, Examples(rows)
    assert importance is not None
    training = pairs.split("train")
    weights = importance.weights(
        scores.value.column(importance.score), training, run.weighting.policy
    )
    chosen = np.arange(len(weights)) if rows is None else rows
    if run.weighting.kind == "sampling":
        probabilities = np.zeros(len(weights))
        probabilities[chosen] = sampling.probabilities(weights[chosen])
        return None, Examples(probabilities=probabilities)
    share = 1.0 if rows is None else float(weights[chosen].sum())
    factor = len(chosen) / share if share else 0.0
    return None, Examples(rows, (weights * factor).astype(np.float32))


def _save(
    folder: Path,
    model: PairClassifier | Towers,
    head: LinearRanker | None,
    pairs: Prepared,
    data: DataConfig,
) -> None:
    """Leaves the model as a Hugging Face folder, with how its pairs were made."""
    with whole_folder(folder) as temporary:
        model.save_pretrained(temporary)
        if head is not None:
            head.save(temporary / HEAD)
        tokenization.save(pairs.tokenizer, temporary, max_length=data.max_length)
        Settings(
            gains=pairs.scale.gains,
            max_length=data.max_length,
            item_text=data.item_text,
            max_query_characters=data.max_query_characters,
            max_title_characters=data.max_title_characters,
        ).write(temporary)
