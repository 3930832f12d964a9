"""Search the catalogue for the kept queries, by every way there is, and measure what was found."""

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sie_jax import processes
from sie_jax.data import sentences
from sie_jax.data.preparing import Prepared
from sie_jax.errors import UserError
from sie_jax.evaluation import claims, retrieval
from sie_jax.evaluation.retrieval import NOTHING
from sie_jax.files import read_json, whole, write_json
from sie_jax.report import page, sections
from sie_jax.retrieval import fusion
from sie_jax.retrieval.index import EXACT, IndexConfig, VectorIndex, found_share
from sie_jax.retrieval.words import WordIndex
from sie_jax.stages.asked import Asked, asked_of, texts_of, told, write_lists
from sie_jax.stages.reporting import facts
from sie_jax.stages.train import Trained
from sie_jax.training import logs
from sie_jax.workdir import Job, Made, stage
from sie_jax.workdir.ledger import total

WORDS, CHECKPOINT, TUNED, FUSED, WEIGHED = "words", "checkpoint", "tuned", "fused", "weighed"
METRICS, REPORT, LISTS, INDEX = "metrics.json", "report.html", "retrieved.parquet", "index"
CHOSEN = "recall@{depth}"
SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The vectors of the catalogue by one encoder, and the run that trained it, if one did."""

    vectors: Made[np.ndarray]
    trained: Made[Trained] | None


def read(made: Made[dict[str, Any]]) -> dict[str, Any]:
    """The content of metrics.json."""
    values: dict[str, Any] = read_json(made.folder / METRICS)
    return values


@stage(leaves=(METRICS, REPORT, LISTS, INDEX), read=read, trains=False)
def search(
    job: Job,
    prepared: Made[Prepared],
    encoded: Mapping[str, Encoded],
    *,
    index: IndexConfig,
    depths: tuple[int, ...],
    checkpoint: str,
    item_text: bool,
) -> None:
    """Leaves metrics.json, report.html, the index and the lists of the test queries.

    encoded: by the name of each way beside WORDS.

    An item is wanted where it was judged to be of the highest grade. Items that nobody judged for a
    query count as not wanted, and how many of those stand in a list is told: `unjudged`. A query
    without a wanted item in the catalogue is left out and counted.
    """
    pairs = prepared.value
    ids, texts = texts_of(pairs, item_text=item_text)
    depth = max(depths)
    if depth > len(ids):
        raise UserError(
            f"depths has {depth}, and the catalogue has {len(ids):,} items: give at most that"
        )
    asked = {split: asked_of(pairs, split, ids) for split in ("validation", "test")}
    found, seconds = _searched(job, pairs, encoded, asked, texts, index, depth, checkpoint)
    weights, _ = fusion.learned(
        [lists["validation"] for lists in found.values()],
        asked["validation"].wanted,
        metric=CHOSEN.format(depth=depth),
        depth=depth,
    )
    ways = list(found)
    for name, given in ((FUSED, None), (WEIGHED, weights)):
        found[name] = {
            split: fusion.fused([found[way][split] for way in ways], given, depth=depth)[0]
            for split in asked
        }
    measured = {
        way: retrieval.per_query(lists["test"], asked["test"].wanted, depths=depths)
        for way, lists in found.items()
    }
    validation = {
        way: float(
            np.nanmean(
                retrieval.per_query(
                    lists["validation"], asked["validation"].wanted, depths=(depth,)
                )[CHOSEN.format(depth=depth)]
            )
        )
        for way, lists in found.items()
    }
    metrics = {
        **told(pairs, asked["test"], len(ids)),
        **_told(measured, asked["test"].counted),
        "unjudged": {
            way: asked["test"].unjudged(lists["test"], min(10, depth))
            for way, lists in found.items()
        },
        "weights": dict(zip(ways, weights, strict=True)),
        "index": seconds,
        "verdict": _verdict(measured, validation, CHOSEN.format(depth=depth)),
        "cost": _cost(encoded),
        "device": f"{job.mesh.size} × {jax.devices()[0].device_kind}",
    }

    def leave() -> None:
        job.workdir.draw_log()
        of_test = {way: lists["test"] for way, lists in found.items()}
        write_lists(job.folder / LISTS, asked["test"].queries, ids, of_test)
        parts = [
            sections.verdict.part(metrics),
            sections.retrieval.part(metrics, depths),
            sections.searches.part(
                _examples(asked["test"], found, texts, metrics["verdict"]["ranker"])
            ),
            sections.training.part(metrics, logs.read(job.folder / "metrics.jsonl"))
            if any(one.trained is not None for one in encoded.values())
            else None,
            sections.settings.part(job.workdir.config, job.workdir.defaults),
        ]
        with whole(job.folder / REPORT) as temporary:
            title = f"sie_jax: {job.workdir.config['name']}"
            page.write(temporary, title=title, parts=parts, facts=facts(job))
        write_json(job.folder / METRICS, metrics)

    processes.alone(leave)


def _searched(
    job: Job,
    pairs: Prepared,
    encoded: Mapping[str, Encoded],
    asked: Mapping[str, Asked],
    texts: list[str],
    index: IndexConfig,
    depth: int,
    checkpoint: str,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """The lists of each way and split, and what building and searching took."""
    words = WordIndex(texts)
    found = {WORDS: {split: words.search(one.queries, depth)[0] for split, one in asked.items()}}
    seconds: dict[str, Any] = {}
    for name, (vectors, trained) in ((name, (o.vectors, o.trained)) for name, o in encoded.items()):
        model = checkpoint if trained is None else trained.value.model
        made_of = {"model": vectors.id, "catalogue": digest_of(texts)}
        encoder = sentences.load(model)
        started = time.perf_counter()
        built = VectorIndex.build(vectors.value, index, made_of)
        took = time.perf_counter() - started
        asking = {split: sentences.encode(encoder, one.queries) for split, one in asked.items()}
        started = time.perf_counter()
        found[name] = {split: built.search(one, depth)[0] for split, one in asking.items()}
        number = sum(len(one) for one in asking.values())
        seconds[name] = {
            "kind": index.kind,
            "build_seconds": took,
            "search_milliseconds": 1000 * (time.perf_counter() - started) / number,
            "bytes": int(vectors.value.nbytes),
        }
        if index.kind != EXACT:
            plain = VectorIndex.build(vectors.value, IndexConfig(), made_of)
            exact = plain.search(asking["test"], depth)[0]
            seconds[name]["recall_against_exact"] = found_share(found[name]["test"], exact)
        (job.folder / INDEX / name).mkdir(parents=True, exist_ok=True)
        built.save(job.folder / INDEX / name)
    return found, seconds


def digest_of(texts: list[str]) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()


def _told(measured: Mapping[str, Mapping[str, np.ndarray]], counted: np.ndarray) -> dict[str, Any]:
    """`test`, and `difference` from words: fixed rankers, so over queries alone."""
    rows = {
        way: {metric: values[counted] for metric, values in metrics.items()}
        for way, metrics in measured.items()
    }
    return {
        "test": {
            way: {metric: claims.fixed(values) for metric, values in metrics.items()}
            for way, metrics in rows.items()
        },
        "difference": {
            way: {
                metric: claims.fixed(values - rows[WORDS][metric])
                for metric, values in metrics.items()
            }
            for way, metrics in rows.items()
            if way != WORDS
        },
    }


def _verdict(
    measured: Mapping[str, Mapping[str, np.ndarray]], validation: Mapping[str, float], metric: str
) -> dict[str, Any]:
    """Whether what the validation queries choose finds more than the best without training."""
    chosen = max(validation, key=lambda way: validation[way])
    free = [way for way in (WORDS, CHECKPOINT) if way in measured]
    means = {way: float(np.nanmean(values[metric])) for way, values in measured.items()}
    best = max(free, key=lambda way: means[way])
    difference = claims.fixed(measured[chosen][metric] - measured[best][metric])
    low, high = difference["low"], difference["high"]
    beats: bool | None = None
    if chosen in free:
        beats = False
    elif low is not None and high is not None:
        beats = True if low > 0 else False if high < 0 else None
    claim = {
        True: f"{chosen} finds more than {best}, the best that needs no training",
        False: f"{chosen} finds no more than {best}, the best that needs no training",
        None: f"It is not resolved whether {chosen} finds more than {best}, the best that needs no "
        "training",
    }[beats]
    bounds = "" if low is None else f" [{low:+.4f}, {high:+.4f}]"
    return {
        "ranker": chosen,
        "best_baseline": best,
        metric: difference,
        "beats_baseline": beats,
        "notes": [
            f"{claim}: {metric} is {means[chosen]:.4f} and {means[best]:.4f} on the test queries, "
            f"a difference of {difference['value']:+.4f}{bounds}.",
            f"{chosen} was chosen on the validation queries: "
            + ", ".join(f"{way} {value:.4f}" for way, value in validation.items())
            + ".",
        ],
    }


def _cost(encoded: Mapping[str, Encoded]) -> dict[str, Any]:
    return {
        name: total(one.trained.cost)._asdict()
        for name, one in encoded.items()
        if one.trained is not None
    }


def _examples(
    asked: Asked,
    found: Mapping[str, Mapping[str, np.ndarray]],
    texts: list[str],
    way: str,
) -> list[dict[str, Any]]:
    """The first test queries with what words and the chosen way put first."""
    wants: dict[int, set[int]] = {}
    for row, item in zip(asked.wanted.query.tolist(), asked.wanted.item.tolist(), strict=True):
        wants.setdefault(row, set()).add(item)
    made = []
    for row in np.flatnonzero(asked.counted)[:SHOWN].tolist():
        lists = {
            name: [
                {"text": texts[item], "wanted": item in wants[row]}
                for item in found[name]["test"][row][:SHOWN].tolist()
                if item != NOTHING
            ]
            for name in dict.fromkeys((WORDS, way))
        }
        made.append({"query": asked.queries[row], "lists": lists})
    return made
