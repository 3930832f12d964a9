"""Evaluate: every run on the test split, what it cost, and the report."""

import dataclasses
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jax.sharding import Mesh

from sie_jax import processes
from sie_jax.data.planning import Planner
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import ATTRIBUTE, RATER
from sie_jax.evaluation import Predictions, agreement, detection, from_columns, trec
from sie_jax.evaluation.section import EvaluationConfig
from sie_jax.evaluation.verdict import Training, by_query, verdict
from sie_jax.files import read_json, write_json
from sie_jax.importance import SCORES, groups, hardness, needing, sampling
from sie_jax.importance.section import ImportanceConfig
from sie_jax.models.ranker import BLEND, LINEAR, STACK, TRANSLATION, TREES, Ranker
from sie_jax.passes import estimating
from sie_jax.stages import choose, pretrain, reporting, tune
from sie_jax.stages.audit import Audited
from sie_jax.stages.contest import (
    STACKED,
    Contest,
    Contestants,
    blend_of,
    choice,
    column_of,
    stacked,
    stacked_names,
    told,
)
from sie_jax.stages.cross_fit import OutOfFold
from sie_jax.stages.pair_runs import judged, summarized
from sie_jax.stages.rehearse import Rehearsed
from sie_jax.stages.reporting import CARD, REPORT
from sie_jax.stages.running import by_run
from sie_jax.stages.score import Scores
from sie_jax.stages.train import Trained
from sie_jax.stages.translation import translated
from sie_jax.stages.untrained import untrained
from sie_jax.tables.provenance import IDENTITY
from sie_jax.tables.spool import write_parquet
from sie_jax.tasks import apart, classifies, scores
from sie_jax.training.cost import Cost
from sie_jax.training.section import Schedule
from sie_jax.workdir import Job, Made, stage
from sie_jax.workdir.ledger import total

METRICS, RANKINGS = "metrics.json", "rankings.parquet"


@dataclasses.dataclass(frozen=True)
class Results:
    """What the other stages left; None for those that this config does not have."""

    prepared: Made[Prepared]
    contestants: Contestants
    scores: Made[Scores]
    weighed: Made[pa.Table]
    audited: Made[Audited] | None
    trained: tuple[Made[Trained], ...]
    contest: Made[Contest]
    exported: Made[Ranker]
    rehearsed: Mapping[str, tuple[Made[Rehearsed], ...]]
    held_out: Made[OutOfFold] | None = None
    pretrained: Made[str] | None = None
    tuned: Made[float] | None = None
    chosen: Made[Any] | None = None
    explained: Made[pa.Table] | None = None
    robust: Made[dict[str, Any]] | None = None
    nested: Made[dict[str, Any]] | None = None

    def runs(self) -> dict[str, list[Made[Trained]]]:
        """The training runs by name, those of all seeds in their order."""
        return by_run(self.trained)


def read(made: Made[dict[str, Any]]) -> dict[str, Any]:
    """The content of metrics.json."""
    values: dict[str, Any] = read_json(made.folder / METRICS)
    return values


@stage(leaves=(METRICS, REPORT, RANKINGS, CARD, "trec", "groups"), read=read, trains=False)
def evaluate(
    job: Job,
    results: Results,
    *,
    evaluation: EvaluationConfig,
    importance: Mapping[str, ImportanceConfig],
    train: Schedule,
    pretrained: bool,
    seed: int,
) -> None:
    """Leaves metrics.json, report.html, rankings.parquet, the model card, trec/ and groups/.

    rankings.parquet has the score of every test pair by each ranker, a column per run and seed.

    importance: the section of each weighted run. train: how the runs were optimised.
    pretrained: whether they started from a pretrained model. seed: of the random baseline.
    """
    prepared, scale = results.prepared.value, results.prepared.value.scale
    training = prepared.split("train")
    predictions = {
        run: [from_columns(made.value.test, scale.gains) for made in several]
        for run, several in results.runs().items()
    }
    table, counts = results.weighed.value, prepared.counts
    everyone = {**_without_encoder(results, seed), **predictions}
    everyone |= _stack(results, everyone)
    further = [name for section in importance.values() for name in section.further_scores]
    hard = {
        name: hardness(name, table[name].to_numpy())
        for name in dict.fromkeys((*scores(train.task), *further))
    }
    metrics = {
        "rows": {
            "read": counts["read"],
            "kept": counts["kept"],
            "rejected": sum(counts["rejected"].values()),
        },
        **summarized(
            prepared,
            "test",
            everyone,
            evaluation=evaluation,
        ),
        "verdict": verdict(
            by_query(judged(prepared, "test"), everyone),
            basis(prepared, job.mesh, train, pretrained),
            ranker=results.contest.value.outcome.ranker,
            choice=choice(results.contest.value),
        ),
        "contest": told(results.contest.value),
        "train": {run: _mean_of(several) for run, several in results.runs().items()},
        **_selected(results),
        "cost": _costs(results, importance),
        "planted_errors": detection.planted_errors(
            training["label"].to_numpy(), training["truth"].to_numpy(), hard
        ),
        "device": f"{job.mesh.size} × {jax.devices()[0].device_kind}",
        **({} if results.held_out is None else _cross_validation(results, evaluation)),
        **_of_stages(job, results),
        "weights": _amounts(results, importance),
    }

    def leave() -> None:
        job.workdir.draw_log()
        _write_trec(job, prepared, predictions)
        _write_rankings(job, prepared, everyone)
        by_group = _groups(job, prepared, table, importance["weighted"].score)
        reporting.write(job, results, metrics, everyone, by_group, evaluation)
        reporting.write_card(job, results, metrics, classes=classifies(train.task))
        write_json(job.folder / METRICS, metrics)

    processes.alone(leave)


def _without_encoder(results: Results, seed: int) -> dict[str, list[Predictions]]:
    """What ranks the test pairs without a trained encoder: baselines, features alone, words."""
    known, prepared = results.contestants.features.value, results.prepared.value
    baselines = untrained(prepared, known, "test", seed=seed)
    linear = results.contestants.linear.value.scores(known.names, known.values["test"])
    trees = results.contestants.trees.value.scores(known.names, known.values["test"])
    ours = {
        LINEAR: linear,
        TREES: trees,
        BLEND: blend_of(prepared, "test", linear, trees),
        TRANSLATION: translated(results.contestants.translation.value, prepared, "test"),
    }
    found = baselines | {name: Predictions(None, scores) for name, scores in ours.items()}
    return {name: [one] for name, one in found.items()}


def _stack(
    results: Results, everyone: dict[str, list[Predictions]]
) -> dict[str, list[Predictions]]:
    """The ranking of the test pairs by the stack of the first seed's runs, where there is one.

    It ranks as the exported folder would.
    """
    stack, known = results.contest.value.stack, results.contestants.features.value
    if stack is None:
        return {}
    members = {run: everyone[run][0].scores for run in STACKED if column_of(run) in stack.names}
    linear = everyone[LINEAR][0].scores
    columns = stacked(results.prepared.value, "test", known, linear, members)
    scores = stack.scores(stacked_names(known.names, members), columns)
    return {STACK: [Predictions(None, scores)]}


def basis(prepared: Prepared, mesh: Mesh, train: Schedule, pretrained: bool) -> Training:
    """What the verdict on the trained models rests on."""
    training = prepared.split("train")
    sizes = train.batch_size, train.list_size
    per_epoch = Planner(prepared, mesh, *sizes, apart=apart(train.task)).steps_per_epoch
    return Training(
        queries=len(training["query_id"].unique()),
        pairs=training.num_rows,
        steps=train.epochs * per_epoch,
        steps_per_epoch=per_epoch,
        pretrained=pretrained,
    )


def _mean_of(several: list[Made[Trained]]) -> dict[str, float]:
    """How well the models of a run do on the training pairs: the mean over seeds."""
    measured = [made.value.training for made in several]
    return {
        metric: float(np.mean([one[metric] for one in measured]))
        for metric in measured[0]
        if all(metric in one for one in measured)
    }


def _selected(results: Results) -> dict[str, Any]:
    """Which weights of each run and seed were taken, where there was a choice."""
    found = {
        run: [made.value.selected for made in several] for run, several in results.runs().items()
    }
    chosen = any(one["validation"] for several in found.values() for one in several)
    return {"selected": found} if chosen else {}


def _costs(
    results: Results, importance: Mapping[str, ImportanceConfig]
) -> dict[str, dict[str, Any]]:
    """What one model of each run costs: the mean over seeds, and what its weights needed in full.

    The stack costs its features, its members, and their models on folds. What was estimated to be
    looked at alone is not charged. `nested` is all that the folds of a cross-validation have cost.
    """
    costs = {}
    for run, several in results.runs().items():
        each = [total(made.cost) for made in several]
        spent = each[0]._replace(seconds=sum(one.seconds for one in each) / len(each))
        if run == "weighted" and results.chosen is not None:
            spent += total(results.chosen.cost)
        if run in importance and importance[run].mode == "offline":
            spent += _scoring(results, importance[run])
        costs[run] = spent
    if results.contest.value.stack is not None:
        parts: list[Made[Any]] = [
            results.contestants.features,
            results.contestants.linear,
            results.contestants.translation,
        ]
        parts += [made for run in STACKED for made in results.rehearsed.get(run, ())]
        parts += [results.held_out] if results.held_out is not None else []
        trained = results.contestants.trained
        members = [costs[run] for run in STACKED if run in trained]
        costs[STACK] = sum((total(made.cost) for made in parts), sum(members, Cost()))
    if results.nested is not None:
        costs["nested"] = total(results.nested.cost)
    return {run: spent._asdict() for run, spent in costs.items()}


def _scoring(results: Results, importance: ImportanceConfig) -> Cost:
    """What the score of the weights took, from the warm-up on."""
    entries = estimating.entries(importance.score, checkpoints=importance.warmup_epochs)
    spent = total(results.scores.cost, "warmup", "score", *entries)
    if needing([importance.score], "reference"):
        assert results.held_out is not None
        folds = results.held_out.cost
        names = [name for name in folds if name.startswith("fold-") or name.endswith("-train")]
        spent += total(folds, *names)
    return spent


def _of_stages(job: Job, results: Results) -> dict[str, Any]:
    """What stages measured that not every config has."""
    found: dict[str, Any] = {}
    if results.pretrained is not None:
        seconds = total(results.pretrained.cost).seconds
        measured = read_json(job.folder / pretrain.FOLDER / pretrain.HELD_OUT)
        found["pretraining"] = {**measured, "seconds": seconds}
    if results.tuned is not None:
        found["tuning"] = read_json(job.folder / tune.FILE)
    if results.chosen is not None:
        found["choosing"] = read_json(job.folder / choose.FILE)
    if results.nested is not None:
        found["nested"] = results.nested.value
    return found


def _cross_validation(results: Results, config: EvaluationConfig) -> dict[str, Any]:
    """Metrics of training pairs' out-of-fold predictions, and whether scores go with raters."""
    assert results.held_out is not None
    prepared, columns = results.prepared.value, results.held_out.value.training()
    pairs = prepared.split("train")
    predicted = from_columns(columns, prepared.scale.gains)
    measured = summarized(prepared, "train", {"uniform": [predicted]}, evaluation=config)
    found: dict[str, Any] = {"cross_validation": measured["test"]["uniform"]}
    raters = [name for name in pairs.column_names if name.startswith(RATER)]
    if len(raters) > 1:
        ratings = np.stack([pairs[name].to_numpy() for name in raters], 1)
        found["rater_disagreement"] = agreement.correlations(
            {name: hardness(name, columns[name]) for name in SCORES if name in columns},
            agreement.disagreement(ratings),
            pairs["query_id"].to_pylist(),
            resamples=config.resamples,
            seed=config.seed,
        )
    return found


def _amounts(
    results: Results, importance: Mapping[str, ImportanceConfig]
) -> dict[str, dict[str, float]]:
    """Of each run's weights over the training set: how many rows they amount to, and as sampling.

    `effective_sample_size` is a share of the rows. `gradient_variance_ratio` is what drawing rows
    by these weights, corrected, would make of the variance of uniform draws' gradients, for
    policies that leave no row out: by the norms after the warm-up, ‖ḡ‖² left out of both. Weights
    that are made in each batch have neither.
    """
    if importance["weighted"].mode != "offline":
        return {}
    table, training = results.weighed.value, results.prepared.value.split("train")
    norms, rows = table["grad_norm"].to_numpy().astype(np.float64), table.num_rows
    uniform, amounts = np.full(rows, 1 / rows), {}
    uniformly = dataclasses.replace(importance["weighted"], policy="uniform")
    for run in results.runs():
        section = importance.get(run, uniformly)
        made = section.weights(table[section.score].to_numpy(), training, section.policy)
        weights = made.astype(np.float64)
        amounts[run] = {"effective_sample_size": sampling.effective_sample_size(weights) / rows}
        if weights.all():
            variance, least = (
                sampling.gradient_variance(norms**2, p, squared_norm_of_mean=0.0)
                for p in (weights / weights.sum(), uniform)
            )
            amounts[run]["gradient_variance_ratio"] = variance / least
    return amounts


def _write_trec(job: Job, prepared: Prepared, runs: dict[str, list[Predictions]]) -> None:
    """Leaves the test split's judgments and every trained model's ranking as trec_eval's files."""
    test, folder, gains = prepared.split("test"), job.folder / "trec", prepared.scale.gains
    ids = test["query_id"].to_pylist(), test["example_id"].to_pylist()
    judgments = {"qrels_highest_grade": [0] * (len(gains) - 1) + [1]}
    try:
        judgments["qrels"] = trec.relevance_levels(gains)
    except ValueError as error:  # no reason to end a run that has been trained
        job.say(f"{folder / 'qrels.txt'} is left out: {error}")
    for name, levels in judgments.items():
        trec.write_qrels(folder / f"{name}.txt", *ids, test["label"].to_numpy(), levels)
    for run, predictions in runs.items():
        for repeat, one in enumerate(predictions):
            name = f"{run}-{repeat}"
            trec.write_run(folder / f"{name}.run", *ids, one.scores, tag=name)


def _write_rankings(job: Job, prepared: Prepared, runs: dict[str, list[Predictions]]) -> None:
    table = prepared.split("test").select(IDENTITY)
    for run, predictions in runs.items():
        for repeat, one in enumerate(predictions):
            table = table.append_column(f"{run}-{repeat}", pa.array(one.scores.astype(np.float64)))
    write_parquet(job.folder / RANKINGS, table)


def _groups(job: Job, prepared: Prepared, table: pa.Table, score: str) -> dict[str, pa.Table]:
    """Importance by query, item and attribute, each left as a file in groups/."""
    training = prepared.split("train")
    items = pc.binary_join_element_wise(training["item_id"], training["title"], " ")
    columns = {"query": training["query"], "item": items}
    columns |= {
        name.removeprefix(ATTRIBUTE): training[name]
        for name in training.column_names
        if name.startswith(ATTRIBUTE)
    }
    weights, scores = table["weight"].to_numpy(), table[score].to_numpy()
    tables = {name: groups.by_group(column, weights, scores) for name, column in columns.items()}
    for name, one in tables.items():
        file = f"{quote(name, safe=' ')}.parquet"  # a column may be called anything
        write_parquet(job.folder / "groups" / file, one)
    return tables
