"""Pool: the test queries of all folds together, each ranked by its own fold's rankers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.data import preparing
from sie_jax.evaluation import Predictions, intervals
from sie_jax.evaluation.section import EvaluationConfig
from sie_jax.evaluation.verdict import METRIC, Training, by_query, verdict
from sie_jax.files import read_json, write_json
from sie_jax.stages.evaluate import RANKINGS, basis
from sie_jax.stages.pair_runs import judged
from sie_jax.tables.provenance import IDENTITY
from sie_jax.training.section import Schedule
from sie_jax.workdir import Job, Made, stage
from sie_jax.workdir.ledger import Ledger, total

FILE, EXPORTED = "nested.json", "exported"


def read(made: Made[dict[str, Any]]) -> dict[str, Any]:
    """The content of nested.json."""
    values: dict[str, Any] = read_json(made.folder / FILE)
    return values


@stage(leaves=(FILE,), read=read, trains=False)
def pool(
    job: Job,
    folds: Sequence[Made[dict[str, Any]]],
    *,
    evaluation: EvaluationConfig,
    train: Schedule,
    pretrained: bool,
) -> None:
    """Leaves nested.json: nDCG@10 over the test queries of all folds, and the verdict on it.

        {"folds": K, "queries": Q, "without_positive_gain": queries that nDCG leaves out,
         "ndcg@10": {RUN: {"value", "low", "high"}},    as `test` of metrics.json, over all queries
         "verdict": {...},                              as `verdict` of metrics.json
         "exported_by_fold": [RUN, ...]}

    A run is among them where every fold has it; `exported` is on each query what the query's fold
    exported. Q queries have a positive gain. A query of which the fold that tests it could prepare
    no pair is not among them.

    The claims are about these K rankers, each fixed, over the queries. The folds' training queries
    overlap, and no interval holds what other training queries would have given.

    folds: the stage evaluate of each fold's workdir. evaluation, train, pretrained: as there.
    """
    exported = tuple(made.value["verdict"]["ranker"] for made in folds)
    measured = [_by_query(made) for made in folds]
    for one, ranker in zip(measured, exported, strict=True):
        one[EXPORTED] = one[ranker][:1]  # of several seeds, the first is exported
    ndcg = {
        run: np.concatenate([one[run] for one in measured], axis=1)
        for run in measured[0]
        if all(run in one for one in measured)
    }
    for run in sorted({run for one in measured for run in one} - ndcg.keys()):
        job.say(f"{run} is left out of {FILE}: not every fold has it")
    trained = [basis(preparing.load(made.folder), job.mesh, train, pretrained) for made in folds]
    left_out = np.isnan(ndcg[EXPORTED][0])
    content = {
        "folds": len(folds),
        "queries": int((~left_out).sum()),
        "without_positive_gain": int(left_out.sum()),
        METRIC: {
            run: intervals.of_mean(
                rows.mean(0), resamples=evaluation.resamples, seed=evaluation.seed
            )
            for run, rows in ndcg.items()
        },
        "verdict": verdict(
            ndcg,
            Training(*(min(values) for values in zip(*trained, strict=True))),
            ranker=EXPORTED,
            folds=exported,
        ),
        "exported_by_fold": exported,
    }

    def leave() -> None:
        for number, made in enumerate(folds):
            spent = total(Ledger(made.folder / "ledger").entries())
            job.ledger.enter(f"fold-{number}", spent)
        write_json(job.folder / FILE, content)

    processes.alone(leave)


def _by_query(made: Made[dict[str, Any]]) -> dict[str, np.ndarray]:
    """nDCG@10 of a fold's runs on its test queries [S, Q], from the scores that it left."""
    judgments = judged(preparing.load(made.folder), "test")
    rankings = pq.read_table(made.folder / RANKINGS)
    if rankings["example_id"].to_pylist() != judgments.example_ids:
        raise AssertionError(f"{made.folder / RANKINGS} is not of the test pairs of its workdir")
    runs: dict[str, list[Predictions]] = {}
    for name in rankings.column_names[len(IDENTITY) :]:  # the seeds of a run are in their order
        scores = Predictions(None, rankings[name].to_numpy())
        runs.setdefault(name.rpartition("-")[0], []).append(scores)
    return by_query(judgments, runs)
