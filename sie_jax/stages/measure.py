"""Measure: the chain end to end on the test queries: what is found, and what each step loses."""

import statistics
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sie_jax import processes
from sie_jax.data.preparing import Prepared
from sie_jax.evaluation import claims, retrieval
from sie_jax.evaluation.retrieval import NOTHING, Wanted
from sie_jax.files import read_json, whole, write_json
from sie_jax.report import page, sections
from sie_jax.retrieval import diversity
from sie_jax.serving.finding import FOUND, Chain
from sie_jax.stages.asked import Asked, asked_of, told, write_lists
from sie_jax.stages.assemble import DEPTH, METRIC, Assembled
from sie_jax.stages.reporting import facts
from sie_jax.stages.search import CHECKPOINT, WORDS
from sie_jax.stages.train import Trained
from sie_jax.training import logs
from sie_jax.workdir import Job, Made, stage
from sie_jax.workdir.ledger import total

METRICS, REPORT, LISTS = "metrics.json", "report.html", "retrieved.parquet"
TIMED = 30
"""Test queries that are searched one by one, to tell how long one takes."""
SHOWN = 4


def read(made: Made[dict[str, Any]]) -> dict[str, Any]:
    """The content of metrics.json."""
    values: dict[str, Any] = read_json(made.folder / METRICS)
    return values


@stage(leaves=(METRICS, REPORT, LISTS), read=read, trains=False)
def measure(
    job: Job,
    prepared: Made[Prepared],
    assembled: Made[Assembled],
    trained: Mapping[str, Made[Trained]],
    *,
    depths: tuple[int, ...],
) -> None:
    """Leaves metrics.json, report.html and the lists of the test queries.

    nDCG is that of the gains of all grades, recall that of the highest grade. Items that nobody
    judged for a query count as not wanted (`unjudged` tells how many), unless all of them are
    judged. A query that wants no item of the catalogue is left out and counted.

    `ceiling` is the mean nDCG@10 that the best order of what a step passes on would have. What it
    falls by from step to step cannot be made good later; what the last one is above the chain's
    own value was there, and was ranked too low.
    """
    pairs, chain = prepared.value, Chain.load(assembled.value.folder)
    asked = asked_of(pairs, "test", list(chain.ids))
    searched = chain.search(asked.queries, count=max(depths))
    lists = {WORDS: searched.ways[WORDS]}
    lists |= {name: searched.ways[name] for name in chain.towers} | searched.steps
    gained = asked.gained(pairs.scale.gains)
    counted = asked.counted
    rows = {name: _measured(one, asked, gained, depths, counted) for name, one in lists.items()}
    vectors = next(iter(chain.towers.values())).vectors
    metrics = {
        **told(pairs, asked, len(chain.ids)),
        "test": {
            name: {metric: claims.fixed(values) for metric, values in one.items()}
            for name, one in rows.items()
        },
        "difference": {
            name: {
                metric: claims.fixed(values - rows[WORDS][metric]) for metric, values in one.items()
            }
            for name, one in rows.items()
            if name != WORDS
        },
        "ceiling": {
            step: float(np.nanmean(_ceiling(one, gained)[counted]))
            for step, one in searched.steps.items()
        },
        "within": {
            name: diversity.within(one[counted][:, :DEPTH], vectors) for name, one in lists.items()
        },
        "unjudged": {name: asked.unjudged(one, DEPTH) for name, one in lists.items()},
        "milliseconds": _milliseconds(chain, asked),
        "plan": {
            "found": chain.plan.found,
            "kept": chain.plan.kept,
            "diversity": chain.plan.diversity,
            "ranker": "" if chain.ranker is None else chain.ranker.kind,
            "reranker": "" if chain.reranker is None else chain.reranker.kind,
        },
        "trials": assembled.value.trials,
        "verdict": _verdict(rows, list(searched.steps)[-1]),
        "cost": {name: total(one.cost)._asdict() for name, one in trained.items()},
        "device": f"{job.mesh.size} × {jax.devices()[0].device_kind}",
    }
    examples = [_example(chain, asked, row) for row in np.flatnonzero(counted)[:SHOWN].tolist()]

    def leave() -> None:
        job.workdir.draw_log()
        write_lists(job.folder / LISTS, asked.queries, chain.ids, lists)
        parts = [
            sections.verdict.part(metrics),
            sections.chain.part(metrics, depths),
            sections.hits.part(examples),
            sections.training.part(metrics, logs.read(job.folder / "metrics.jsonl")),
            sections.settings.part(job.workdir.config, job.workdir.defaults),
        ]
        with whole(job.folder / REPORT) as temporary:
            title = f"sie_jax: {job.workdir.config['name']}"
            page.write(temporary, title=title, parts=parts, facts=facts(job))
        write_json(job.folder / METRICS, metrics)

    processes.alone(leave)


def _measured(
    lists: np.ndarray,
    asked: Asked,
    gained: Wanted,
    depths: tuple[int, ...],
    counted: np.ndarray,
) -> dict[str, np.ndarray]:
    """The metrics of each counted query."""
    wide = np.full((len(lists), max(depths)), NOTHING)
    width = min(max(depths), lists.shape[1])
    wide[:, :width] = lists[:, :width]
    best = retrieval.per_query(wide, asked.wanted, depths=depths)
    graded = retrieval.per_query(wide, gained, depths=depths)
    found = {f"recall@{depth}": best[f"recall@{depth}"] for depth in depths}
    found |= {f"ndcg@{depth}": graded[f"ndcg@{depth}"] for depth in depths}
    found |= {f"mrr@{DEPTH}": best[f"mrr@{DEPTH}"]}
    return {name: values[counted] for name, values in found.items()}


def _ceiling(lists: np.ndarray, gained: Wanted) -> np.ndarray:
    """nDCG@10 of each query's list in the best order of its items."""
    assert gained.gain is not None
    gain_of = dict(
        zip(
            zip(gained.query.tolist(), gained.item.tolist(), strict=True),
            gained.gain.tolist(),
            strict=True,
        )
    )
    gains = np.array(
        [[gain_of.get((row, item), 0.0) for item in own] for row, own in enumerate(lists.tolist())]
    )
    best = np.take_along_axis(lists, np.argsort(-gains, 1, kind="stable"), 1)
    depth = min(DEPTH, lists.shape[1])
    if depth < DEPTH:
        best = np.pad(best, ((0, 0), (0, DEPTH - depth)), constant_values=NOTHING)
    return retrieval.per_query(best, gained, depths=(DEPTH,))[METRIC]


def _milliseconds(chain: Chain, asked: Asked) -> dict[str, float]:
    """The median time of each step for one query, once everything is compiled."""
    queries = asked.queries[:TIMED]
    for query in queries:
        chain.search([query])
    found = [chain.search([query]).seconds for query in queries]
    return {step: 1000 * statistics.median(one[step] for one in found) for step in found[0]}


def _verdict(rows: Mapping[str, Mapping[str, np.ndarray]], last: str) -> dict[str, Any]:
    """Whether the chain's list is better than the best without training, and than what is found."""
    free = [name for name in (WORDS, CHECKPOINT) if name in rows]
    means = {name: float(np.nanmean(one[METRIC])) for name, one in rows.items()}
    best = max(free, key=lambda name: means[name])
    difference = claims.fixed(rows[last][METRIC] - rows[best][METRIC])
    low, high = difference["low"], difference["high"]
    beats: bool | None = None
    if low is not None and high is not None:
        beats = True if low > 0 else False if high < 0 else None
    claim = {
        True: f"The chain's lists are better than those of {best}, the best that needs no training",
        False: f"The chain's lists are no better than those of {best}, which needs no training",
        None: f"It is not resolved whether the chain's lists are better than those of {best}, the "
        "best that needs no training",
    }[beats]
    after = claims.fixed(rows[last][METRIC] - rows[FOUND][METRIC])
    return {
        "ranker": last,
        "best_baseline": best,
        METRIC: difference,
        "beats_baseline": beats,
        "notes": [
            f"{claim}: {METRIC} is {means[last]:.4f} and {means[best]:.4f} on the test queries, a "
            f"difference of {_interval(difference)}.",
            f"What comes after finding changes it by {_interval(after)}.",
        ],
    }


def _interval(found: Mapping[str, float | None]) -> str:
    bounds = "" if found["low"] is None else f" [{found['low']:+.4f}, {found['high']:+.4f}]"
    return f"{found['value']:+.4f}{bounds}"


def _example(chain: Chain, asked: Asked, row: int) -> dict[str, Any]:
    """The first items for one query, with what ranked each there."""
    wanted = set(asked.wanted.item[asked.wanted.query == row].tolist())
    place = {item: number for number, item in enumerate(chain.ids)}
    return {
        "query": asked.queries[row],
        "hits": [
            {**hit._asdict(), "wanted": place[hit.item_id] in wanted}
            for hit in chain.hits(asked.queries[row], count=DEPTH)
        ],
    }
