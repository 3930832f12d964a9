"""Qrels and a run in trec_eval's files: read, and measured as trec_eval would."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sie_jax.data.readers import files
from sie_jax.data.sources import judgments
from sie_jax.errors import UserError
from sie_jax.evaluation import ranking
from sie_jax.evaluation.measuring import PerQuery

Values = dict[str, dict[str, float]]


class Lines(NamedTuple):
    """A number for each document of each query, and how many lines are not among them.

    lines: all but empty ones and comments. left_out: by reason.
    """

    values: Values
    lines: int
    left_out: dict[str, int]


class Pair(NamedTuple):
    """A run measured on qrels.

    query_ids: those of the qrels, in their order of code points. per_query: the metrics of each.
    highest: the highest grade of the qrels, from which an item is relevant to MRR and recall@10.
    facts: counts of what is not as plain as it could be, by a sentence.
    """

    query_ids: list[str]
    per_query: PerQuery
    highest: float
    facts: dict[str, int]


def read_qrels(path: Path) -> Lines:
    """The judgments of qrels, or of another list that `data.sources.judgments` reads.

    path: a file, or a folder of such. A grade is any finite number. Where a document is judged
    twice for a query, its last line counts. A line of another form is left out, and counted.
    Bytes of an id that are not UTF-8 are surrogates in it (PEP 383).

    Raises UserError where a file cannot be read, or no line is a judgment.
    """

    def found() -> Iterator[tuple[str, Sequence[Any]]]:
        parts = files.find(str(path), None)
        of_parts = (judgments.lines(part, keep_broken=True) for part in parts)
        for _, one in itertools.chain.from_iterable(of_parts):
            if one is None:
                yield "lines that are no judgment, or not written as the first one is", ()
            elif not one.item_id:
                yield "lines without a document", ()
            else:
                yield "", (one.query_id, one.item_id, one.grade)

    return _lines(path, found(), "qrels: query_id 0 document grade")


def read_run(path: Path) -> Lines:
    """Lines `query_id Q0 document rank score tag`; the rank is not read.

    Otherwise as `read_qrels`.
    """

    def found() -> Iterator[tuple[str, Sequence[Any]]]:
        parts = files.find(str(path), None)
        for line in itertools.chain.from_iterable(map(files.lines, parts)):
            words = line.split()
            if not words or line.startswith("#"):
                continue
            score = _number(words[4]) if len(words) == 6 else None
            if len(words) != 6:
                yield "lines without 6 fields", ()
            elif score is None:
                yield "lines whose score is none, or not finite", ()
            else:
                yield "", (words[0], words[2], score)

    return _lines(path, found(), "a run: query_id Q0 document rank score tag")


def measure(qrels: Lines, run: Lines) -> Pair:
    """The run's metrics on every query of the qrels, by trec_eval's rules for documents.

    Scores are compared as 32-bit floats, equal ones by descending document id, as trec_eval does.
    A document of the run without a judgment keeps its rank and has no gain. A judged one that the
    run lacks is at no rank, and counts in the best order and among the relevant ones. A negative
    grade counts as 0. A query of the qrels that the run lacks is 0 in every metric; one of the run
    that the qrels lack is passed over. Metrics and queries that are left out are those of
    `ranking.per_query` with the grades as gains.
    """
    judged, ranked = qrels.values, run.values
    query_ids = sorted(judged)
    levels = sorted({max(grade, 0.0) for one in judged.values() for grade in one.values()} | {0.0})
    level_of = {level: place for place, level in enumerate(levels)}
    rows = [
        (at, document, judged[query].get(document), ranked.get(query, {}).get(document))
        for at, query in enumerate(query_ids)
        for document in sorted(judged[query].keys() | ranked.get(query, {}).keys())
    ]
    documents = sorted({row[1] for row in rows}, reverse=True)
    place = {document: number for number, document in enumerate(documents)}
    labels = np.array([level_of[max(grade or 0.0, 0.0)] for _, _, grade, _ in rows])
    found = np.array([score is not None for *_, score in rows])
    scores = np.array([0.0 if score is None else score for *_, score in rows]).astype(np.float32)
    index = np.array([at for at, *_ in rows])
    ties = np.array([place[document] for _, document, *_ in rows])
    metrics = ranking.per_query(
        scores,
        labels,
        levels if len(levels) > 1 else [0.0, 1.0],  # no grade is positive: all is left out
        index,
        num_queries=len(query_ids),
        example_ids=ties,
        retrieved=found,
    )
    order = ranking.rank_order(np.where(found, scores, -np.inf), index, ties)
    rank = np.empty(len(rows), int)
    counts = np.bincount(index)
    rank[order] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    unjudged = np.array([grade is None for _, _, grade, _ in rows])
    negative = np.array([grade is not None and grade < 0 for _, _, grade, _ in rows])
    return Pair(
        query_ids,
        metrics,
        levels[-1],
        {
            "queries of the qrels that the run lacks: each counts 0": sum(
                query not in ranked for query in judged
            ),
            "queries of the run that the qrels lack: passed over": sum(
                query not in judged for query in ranked
            ),
            "unjudged documents in the run: they keep their rank and have no gain": int(
                unjudged.sum()
            ),
            "of these, among the first ten": int((unjudged & (rank < 10)).sum()),
            "judged documents that the run lacks: at no rank": int((~found).sum()),
            "negative grades: they count as 0": int(negative.sum()),
        },
    )


def _lines(path: Path, found: Iterator[tuple[str, Sequence[Any]]], what: str) -> Lines:
    """What lines say, each a reason why it is left out or a query, a document and a number."""
    values: Values = {}
    left_out: Counter[str] = Counter()
    lines = 0
    for reason, said in found:
        lines += 1
        if reason:
            left_out[reason] += 1
            continue
        query, document, number = said
        of_query = values.setdefault(query, {})
        if document in of_query:
            left_out["earlier lines of a document that comes again: the last one counts"] += 1
        of_query[document] = number
    if not values:
        reasons = ", ".join(f"{times} {reason}" for reason, times in left_out.items())
        raise UserError(f"{path} has no line of {what}{f' ({reasons})' if reasons else ''}")
    return Lines(values, lines, dict(left_out))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
