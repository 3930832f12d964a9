"""Explain: the training pairs that pushed the worst test predictions."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.data.preparing import Prepared
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation import Predictions, from_columns, ranking
from sie_jax.passes import explain as explaining
from sie_jax.passes.influence import Options
from sie_jax.stages.pair_runs import PairRuns, Start
from sie_jax.stages.train import Trained
from sie_jax.tables.spool import write_parquet
from sie_jax.tasks.task import ClassificationTask
from sie_jax.workdir import Job, Made, stage

FILE = "explanations.parquet"


def read(made: Made[pa.Table]) -> pa.Table:
    """The pairs that pushed each explained prediction (`passes.explain`)."""
    return pq.read_table(made.folder / FILE)


@stage(leaves=(FILE,), read=read, trains=False)
def explain(
    job: Job,
    start: Start,
    exported: Made[Trained],
    *,
    queries: int,
) -> None:
    """Leaves explanations.parquet: of the worst `queries` test queries, what pushed one prediction.

    exported: the run whose encoder is exported, and explained.
    """
    runs = PairRuns(job, start)
    pairs, task = runs.prepared, runs.task
    assert isinstance(task, ClassificationTask)
    rows = np.sort([one.row for one in worst(pairs, exported.value, queries)]).astype(int)
    if not len(rows):  # no test query has an item of positive gain
        processes.alone(write_parquet, job.folder / FILE, explaining.SCHEMA.empty_table())
        return
    params = runs.params(exported.value.model, seed=start.seed)
    found = explaining.explain(
        task,
        meshes.place(job.mesh, params),
        runs.examples("train"),
        runs.examples("test", rows),
        runs.workspace,
        Options(seed=start.seed),
        target_ids=pairs.split("test")["example_id"].to_numpy()[rows],
    )
    processes.alone(write_parquet, job.folder / FILE, found)


class Worst(NamedTuple):
    """One of the worst test queries: its nDCG@10, and the row of the pair that is explained."""

    value: float
    row: int


def worst(prepared: Prepared, trained: Trained, most: int) -> list[Worst]:
    """The test queries with the lowest nDCG@10, the lowest first.

    Of a query the pair is taken whose rank score is farthest from the gain of its label.
    """
    test, gains = prepared.split("test"), np.array(prepared.scale.gains)
    predictions = predictions_of(prepared, trained)
    labels = test["label"].to_numpy()
    queries, query_index = np.unique(test["query_id"].to_pylist(), return_inverse=True)
    value = ranking.per_query(
        predictions.scores,
        labels,
        gains,
        query_index,
        num_queries=len(queries),
        example_ids=test["example_id"].to_pylist(),
    )["ndcg@10"]
    error = np.abs(predictions.scores - gains[labels])
    return [
        Worst(float(value[i]), int(np.argmax(np.where(query_index == i, error, -1.0))))
        for i in np.argsort(value, kind="stable")[:most]
        if not np.isnan(value[i])
    ]


def predictions_of(prepared: Prepared, trained: Trained) -> Predictions:
    """The classes and rank scores of a run's test pairs."""
    return from_columns(trained.test, prepared.scale.gains)


def shown(
    prepared: Prepared, trained: Trained, pushes: pa.Table, most: int
) -> list[dict[str, Any]]:
    """The explained predictions with their texts, as the report takes them."""
    test, training = prepared.split("test"), prepared.split("train")
    names, predictions = prepared.scale.names, predictions_of(prepared, trained)
    assert predictions.classes is not None  # a trained run names them
    by_example: dict[str, list[dict[str, Any]]] = {}
    for push in pushes.to_pylist():
        by_example.setdefault(push["example_id"], []).append(push)

    def one(push: dict[str, Any]) -> dict[str, Any]:
        pair = training.slice(push["row"], 1).to_pylist()[0]
        return {
            "query": pair["query"],
            "title": pair["title"],
            "label": names[pair["label"]],
            "influence": push["influence"],
        }

    explained = []
    for found in worst(prepared, trained, most):
        pair = test.slice(found.row, 1).to_pylist()[0]
        about = by_example.get(pair["example_id"], [])
        explained.append(
            {
                "query": pair["query"],
                "value": found.value,
                "title": pair["title"],
                "label": names[pair["label"]],
                "predicted": names[predictions.classes[found.row]],
                **{
                    direction: [one(push) for push in about if push["direction"] == direction]
                    for direction in ("for", "against")
                },
            }
        )
    return explained
