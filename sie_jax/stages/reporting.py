"""The report of a run and the model card, from what the stages left and evaluate measured."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import sie_jax
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import ATTRIBUTE, SPLITS
from sie_jax.evaluation import (
    Predictions,
    calibration,
    classification,
    detection,
    slices,
)
from sie_jax.evaluation import audit as auditing
from sie_jax.evaluation.rivals import Rivals, rivals
from sie_jax.evaluation.section import EvaluationConfig
from sie_jax.files import whole
from sie_jax.importance import SCORES
from sie_jax.models.towers import is_towers
from sie_jax.report import card, origin, page, sections
from sie_jax.report.parts import Part
from sie_jax.serving.settings import Settings
from sie_jax.stages import explain
from sie_jax.stages.export import MODEL
from sie_jax.stages.pair_runs import judged
from sie_jax.training import logs
from sie_jax.training.progress import duration
from sie_jax.workdir import Job
from sie_jax.workdir.ledger import Ledger, total

if TYPE_CHECKING:  # evaluate calls this file
    from sie_jax.stages.evaluate import Results

REPORT, CARD = "report.html", f"{MODEL}/{card.FILE}"
CATEGORY = f"{ATTRIBUTE}category"
CONFUSED = ("uniform", "weighted")
"""The runs whose confusions are shown."""


def write(
    job: Job,
    results: "Results",
    metrics: dict[str, Any],
    runs: Mapping[str, Sequence[Predictions]],
    by_group: dict[str, pa.Table],
    evaluation: EvaluationConfig,
) -> None:
    """Leaves report.html.

    metrics: the content of metrics.json. runs: every run's predictions of the test pairs, an entry
    a seed. by_group: importance by query, item and attribute.
    """
    prepared, log = results.prepared.value, logs.read(job.folder / "metrics.jsonl")
    scale, names = prepared.scale, prepared.scale.names
    scores = [name for name in SCORES if name in results.weighed.value.column_names]
    explained: list[dict[str, Any]] = []
    if results.explained is not None:
        exported, *_ = results.runs()[results.exported.value.run]
        pushes = results.explained.value
        explained = explain.shown(prepared, exported.value, pushes, evaluation.explained_queries)
    config = job.workdir.config
    noise = _noise(prepared)
    trained = {run: several for run, several in runs.items() if run in metrics["cost"]}
    parts = [
        sections.verdict.part(metrics),
        sections.nested.part(metrics),
        sections.rankers.part(metrics),
        sections.contest.part(metrics),
        sections.results.part(metrics, scale),
        *_of_rivals(prepared, rivals(judged(prepared, "test"), runs, metrics["verdict"])),
        sections.robustness.part(
            metrics["verdict"]["ranker"],
            None if results.robust is None else results.robust.value,
        ),
        sections.confusion.part(_confusions(prepared, trained), names),
        sections.calibration.part(_calibration(prepared, trained)),
        sections.overfitting.part(metrics, noise),
        sections.cross_validation.part(metrics),
        sections.cost.part(metrics),
        sections.weights.part(metrics, sampled=config["importance"]["use"] == "sampling"),
        sections.choosing.part(metrics),
        sections.tuning.part(metrics),
        sections.pretraining.part(metrics, log),
        sections.training.part(metrics, log),
        sections.scores.part(metrics, results.weighed.value, scores=scores, label_names=names),
        sections.groups.part(by_group),
        _suspicious(results),
        sections.explanations.part(explained),
        sections.noise.part(noise, names),
        sections.cleaning.part(prepared.counts),
        sections.settings.part(config, job.workdir.defaults),
    ]
    with whole(job.folder / REPORT) as temporary:
        title = f"sie_jax: {config['name']}"
        page.write(temporary, title=title, parts=parts, facts=facts(job))


def _suspicious(results: "Results") -> Part | None:
    """The labels most worth checking, where a task names labels."""
    if results.audited is None:
        return None
    found = results.audited.value
    return sections.suspicious.part(
        auditing.read(found.file, most=sections.suspicious.MOST), found.summary
    )


def facts(job: Job) -> dict[str, str]:
    """When and by what the page is made, of which data, and how long the run has worked.

    This is the only place where a run's files hold a date.
    """
    data = job.workdir.config["data"]
    name = PurePath(data["path"]).name
    seconds = total(Ledger(job.folder / "ledger").entries()).seconds
    found = {
        "made": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "sie_jax": sie_jax.__version__,
        "commit": (origin.commit() or "")[:10],
        "data": f"{data['source']} {name}".strip(),
        "time of all passes and trainings": duration(seconds),
    }
    return {fact: text for fact, text in found.items() if text}


def _noise(prepared: Prepared) -> dict[str, dict[str, Any] | None]:
    """The wrong labels of each split, as far as the truth is known."""
    found = {}
    for split in SPLITS:
        pairs = prepared.split(split)
        labels, truth = pairs["label"].to_numpy(), pairs["truth"].to_numpy()
        classes = len(prepared.scale.names)
        found[split] = detection.wrong_labels(labels, truth, classes=classes)
    return found


def _confusions(
    prepared: Prepared, runs: Mapping[str, Sequence[Predictions]]
) -> dict[str, np.ndarray]:
    """The confusion matrix of the first seed of the runs that are compared."""
    labels, classes = prepared.split("test")["label"].to_numpy(), len(prepared.scale.names)
    return {
        run: classification.confusion_per_query(
            labels, first, np.zeros(len(labels), int), num_queries=1, num_classes=classes
        )[0]
        for run in CONFUSED
        if run in runs and (first := runs[run][0].classes) is not None
    }


def _calibration(
    prepared: Prepared, runs: Mapping[str, Sequence[Predictions]]
) -> dict[str, list[list[dict[str, float]]]]:
    """The bins of every seed of the runs whose score is an expected gain."""
    gains = np.array(prepared.scale.gains)[prepared.split("test")["label"].to_numpy()]
    return {
        run: [calibration.bins(one.scores, gains) for one in several]
        for run, several in runs.items()
        if several[0].classes is not None
    }


def _of_rivals(prepared: Prepared, found: Rivals | None) -> list[Part | None]:
    """What is to be seen of the exported ranker beside the best baseline, query by query."""
    if found is None:
        return []
    test = prepared.split("test")
    _, first = np.unique(found.query_index, return_index=True)
    queries = test["query"].take(first).to_pylist()
    won, lost = sections.queries.duels(found, test, prepared.scale.names)
    names = found.ranker, found.baseline
    categories = None
    if CATEGORY in test.column_names:
        categories = slices.most_common(test[CATEGORY].to_pylist(), found.query_index, len(queries))
    divided = slices.groupings(
        queries,
        training_queries=prepared.split("train")["query"].unique().to_pylist(),
        categories=categories,
    )
    return [
        sections.queries.part(*names, found.counts(), won, lost),
        sections.slices.part(*names, slices.compare(found.ours, found.theirs, divided)),
    ]


def write_card(job: Job, results: "Results", metrics: Mapping[str, Any], *, classes: bool) -> None:
    """Leaves the model card in the exported folder. classes: whether its encoder names classes."""
    prepared, folder = results.prepared.value, job.folder / MODEL
    model = card.Model(
        results.exported.value,
        Settings.read(folder),
        prepared.scale.names if classes else (),
        is_towers(folder),
        results.contest.value.agreement,
        any(made.value.head for made in results.contestants.trained.values()),
    )
    splits = {}
    for name in SPLITS:
        queries = prepared.split(name)["query_id"]
        splits[name] = pc.count_distinct(queries).as_py(), len(queries)
    data = card.Data(job.workdir.config["data"]["source"], splits)
    (job.folder / CARD).write_text(card.card(model, data, metrics), encoding="utf-8")
