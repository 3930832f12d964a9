"""The labels most worth checking, each with the reason, listed for a spreadsheet."""

import csv
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sie_jax.data.repairs import repair
from sie_jax.data.schema import ATTRIBUTE, normalise_query
from sie_jax.evaluation import audit_groups, audit_summary, label_errors, likeness
from sie_jax.evaluation.spreadsheet import escape, unescape
from sie_jax.files import whole
from sie_jax.tables.spool import CHUNK_ROWS

COLUMNS = (
    "rank",
    "rank_in_query",
    "example_id",
    "query_id",
    "item_id",
    "split",
    "query",
    "title",
    "label",
    "prediction",
    "label_probability",
    "prediction_probability",
    "score",
    "found_by",
    "reason",
    "corrected_label",
)
CONFLICT, NEAR_DUPLICATE, MODEL = "conflicting_labels", "near_duplicate", "model"
"""What puts a pair on the list, the surest first."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """Pairs with what a model says of them, and those whose labels contradict one another.

    pairs: `[N]` rows of CLEAN_SCHEMA, `label` being an index into `names`, and ATTRIBUTE columns.
    names: the labels, lowest grade first. probabilities: `[N, K]`.
    conflicts: rows of RAW_SCHEMA, labels by name, as cleaning rejects them; further columns as
      `pairs` has them. conflict_probabilities: `[M, K]`, or None where the model did not see them.
    knows: how the model knows the pairs: UNSEEN, LEARNED or FOREIGN of `audit_summary`.
    """

    pairs: pa.Table
    names: Sequence[str]
    probabilities: np.ndarray
    conflicts: pa.Table
    conflict_probabilities: np.ndarray | None = None
    knows: str = audit_summary.UNSEEN


class Listed(NamedTuple):
    """The list of an audit.

    rows: gives them whenever it is called, each with the keys of COLUMNS, those of `further`, and
      `text`. further: the names of columns that the annotator may want to see. summary: what
      audit.json holds (`audit_summary`).
    """

    rows: Callable[[], Iterator[dict[str, Any]]]
    further: tuple[str, ...]
    summary: dict[str, Any]


def ranked(
    judged: Judged,
    *,
    score: str = label_errors.SCORES[0],
    top: int | None = None,
    resamples: int = label_errors.RESAMPLES,
    seed: int = 0,
) -> Listed:
    """The list of the labels most worth checking, and how many labels are wrong.

    First come the rows whose query and item have several labels (CONFLICT), in the order read, a
    pair's rows together. Then the pairs of `likeness.near_duplicates` (NEAR_DUPLICATE), a group's
    together, that with the most doubtful label first. Then all others (MODEL), the most doubtful
    first; ties keep the order given. Gradient norms are no substitute: among pairs that no model
    has seen, those with the greatest norms are the ones between whose labels the model wavers
    (benchmarks/audit.py measures this).

    `rank` counts over all rows, `rank_in_query` over those of one query, both from 1. `score` is
    that of `label_errors.doubts`, `prediction` the most probable label, and `reason` says in words
    why the pair is there. `corrected_label` is empty: whoever checks the label fills it in, and
    `corrections.apply` reads it. What the model does not say of a row is None.

    Args:
      score: one of `label_errors.SCORES`. top: how many rows the list has at most; None: all.
      resamples, seed: as for `label_errors.estimate`.
    """
    pairs, p = judged.pairs, judged.probabilities
    labels = pairs["label"].to_numpy()
    query = likeness.query_index(pairs)
    doubt = label_errors.doubts(score, p, labels)
    group = likeness.near_duplicates(pairs["title"], query, labels)
    order = _order(doubt, group)
    conflicts = _conflicts(judged)
    found = {
        CONFLICT: len(conflicts),
        NEAR_DUPLICATE: int((group >= 0).sum()),
        MODEL: int((group < 0).sum()),
    }
    chances = np.array([one.wrong for one in conflicts])
    errors = audit_summary.estimated(p, labels, query, judged.knows, resamples=resamples, seed=seed)
    blind = np.zeros(len(labels), bool)
    if errors is not None:  # a model that learned from blind labels agrees with them
        blind = audit_groups.blind_queries(p, labels, query)
    outlying = audit_groups.outlying_values(pairs, labels, query, judged.names)
    blind_queries = len(np.unique(query[blind]))
    summary: dict[str, Any] = {
        "pairs": len(labels),
        "score": score,
        "found_by": found,
        **audit_summary.summary(judged.names, labels, errors, judged.knows),
        "first": audit_summary.first(chances, order, errors, top),
        "groups": {"queries": blind_queries, "attributes": outlying},
    }
    summary["notes"] += audit_groups.notes(blind_queries, len(np.unique(query)), outlying)
    conflicts = conflicts[:top]
    order = order[: None if top is None else top - len(conflicts)]
    wanted = np.zeros(len(labels), bool)
    wanted[order] = True
    rows = _Rows(
        judged,
        score,
        conflicts,
        order,
        doubt,
        group,
        blind,
        likeness.votes(pairs["title"], query, labels, wanted, classes=len(judged.names)),
    )
    further = [name for name in pairs.column_names if name.startswith(ATTRIBUTE)]
    return Listed(rows.all, tuple(map(_own, further)), summary)


def _order(doubt: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The places of near-duplicates, group after group, and then those of the other pairs."""
    torn, others = np.flatnonzero(group >= 0), np.flatnonzero(group < 0)
    worst = np.zeros(group.max(initial=-1) + 1)
    np.maximum.at(worst, group[torn], doubt[torn])
    torn = torn[np.lexsort((-doubt[torn], group[torn], -worst[group[torn]]))]
    return np.concatenate([torn, others[np.argsort(-doubt[others], kind="stable")]])


class _Conflict(NamedTuple):
    """A row whose query and item have other labels too; `place` is that among such rows.

    wrong: the share of the pair's rows that is wrong at least, whichever label is right.
    """

    place: int
    cells: dict[str, Any]
    rivals: list[str]
    wrong: float


def _conflicts(judged: Judged) -> list[_Conflict]:
    """The rows of `judged.conflicts`, those of a query and item together."""
    rows = judged.conflicts.to_pylist()
    groups: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        for name in ("query", "title", "text"):
            row[name] = repair(row[name] or "")[0]
        groups.setdefault((normalise_query(row["query"]), row["item_id"]), []).append(place)
    found = []
    for places in groups.values():
        times = Counter(rows[place]["label"] for place in places)
        least = 1 - max(times.values()) / len(places)
        for place in places:
            rivals = [name for name in judged.names if name in times]
            rivals.remove(rows[place]["label"])
            found.append(_Conflict(place, rows[place], rivals, least))
    return found


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The rows of a list; the arrays are of the judged pairs."""

    judged: Judged
    score: str
    conflicts: Sequence[_Conflict]
    order: np.ndarray
    doubt: np.ndarray
    group: np.ndarray
    blind: np.ndarray
    votes: np.ndarray

    def all(self) -> Iterator[dict[str, Any]]:
        times: Counter[str] = Counter()
        found = itertools.chain(map(self._of_conflict, self.conflicts), self._of_pairs())
        for rank, row in enumerate(found, 1):
            times[row["query_id"]] += 1
            yield row | {"rank": rank, "rank_in_query": times[row["query_id"]]}

    def _of_conflict(self, conflict: _Conflict) -> dict[str, Any]:
        label = conflict.cells["label"]
        reasons = [f"says {label}, and the same query and item are given {_all(conflict.rivals)}"]
        row = _row(conflict.cells, label, CONFLICT)
        if self.judged.conflict_probabilities is not None:
            chances = self.judged.conflict_probabilities[conflict.place]
            given = self.judged.names.index(label)
            row["score"] = float(
                label_errors.doubts(self.score, chances[None], np.array([given]))[0]
            )
            row |= self._opinion(given, chances)
            reasons.append(self._of_model(given, chances))
        return row | {"reason": "; ".join(reasons)}

    def _of_pairs(self) -> Iterator[dict[str, Any]]:
        pairs, names = self.judged.pairs, self.judged.names
        labels = pairs["label"].to_numpy()
        torn = np.flatnonzero(self.group >= 0)
        of_group: list[set[int]] = [set() for _ in range(self.group.max(initial=-1) + 1)]
        for place in torn.tolist():
            of_group[self.group[place]].add(int(labels[place]))
        for start in range(0, len(self.order), CHUNK_ROWS):
            chunk = self.order[start : start + CHUNK_ROWS]
            for place, cells in zip(chunk, pairs.take(pa.array(chunk)).to_pylist(), strict=True):
                given, chances = int(labels[place]), self.judged.probabilities[place]
                says, by = f"says {names[given]}", MODEL
                if self.group[place] >= 0:
                    rivals = sorted(of_group[self.group[place]] - {given})
                    by, others = NEAR_DUPLICATE, _all([names[one] for one in rivals])
                    says += f", and another title of the same words is given {others}"
                reasons = [says, self._of_model(given, chances)]
                reasons += self._of_votes(given, int(chances.argmax()), self.votes[place])
                reasons += [audit_groups.BLIND] * bool(self.blind[place])
                yield {
                    **_row(cells, names[given], by),
                    **self._opinion(given, chances),
                    "score": float(self.doubt[place]),
                    "reason": "; ".join(reasons),
                }

    def _opinion(self, given: int, chances: np.ndarray) -> dict[str, Any]:
        best = int(chances.argmax())
        return {
            "prediction": self.judged.names[best],
            "label_probability": float(chances[given]),
            "prediction_probability": float(chances[best]),
        }

    def _of_model(self, given: int, chances: np.ndarray) -> str:
        names, best = self.judged.names, int(chances.argmax())
        said = f"the model{self.judged.knows} gives {_share(chances[given])} to {names[given]}"
        if best == given:
            return f"{said}, its first choice"
        return f"{said} and {_share(chances[best])} to {names[best]}"

    def _of_votes(self, given: int, best: int, votes: np.ndarray) -> list[str]:
        """What similar items say; nothing where there are none."""
        number = int(votes.sum())
        if not number:
            return []
        names = self.judged.names
        items = "similar items" if number > 1 else "similar item"
        # quoted, or a label that is a number would be read as one more count
        said = (
            f"of {number} {items} of this query {votes[best]} {_are(votes[best])} “{names[best]}”"
        )
        if best != given:
            said += f" and {votes[given]} {_are(votes[given])} “{names[given]}”"
        return [said]


def _row(cells: Mapping[str, Any], label: str, by: str) -> dict[str, Any]:
    """A row of which nothing is known but the cells of its pair and what put it on the list."""
    named = {name: cells.get(name) for name in (*COLUMNS, "text")}
    own = {_own(name): value for name, value in cells.items() if name.startswith(ATTRIBUTE)}
    return {**named, **own, "label": label, "found_by": by, "corrected_label": ""}


def _own(name: str) -> str:
    """The name of an attribute's column in the list."""
    plain = name.removeprefix(ATTRIBUTE)
    return f"pair's {plain}" if plain in COLUMNS else plain


def _all(names: Sequence[str]) -> str:
    return " and ".join(names)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _share(probability: float) -> str:
    """In whole per cent, of which none is 0 or 100."""
    if probability < 0.005:
        return "under 1 %"
    return "over 99 %" if probability > 0.995 else f"{100 * probability:.0f} %"


def write(
    path: Path, lines: Path, rows: Iterable[Mapping[str, Any]], further: Sequence[str] = ()
) -> None:
    """Writes rows (with the keys of COLUMNS and `further`) as UTF-8 CSV and as JSON lines.

    Each file is whole or not there. None is an empty cell. In the CSV a text cell that a
    spreadsheet would run as a formula gets an apostrophe in front; the JSON lines hold the texts as
    they are.
    """
    columns = (*COLUMNS, *further)
    with (
        whole(path) as temporary,
        whole(lines) as other,
        temporary.open("w", encoding="utf-8", newline="") as file,
        other.open("w", encoding="utf-8") as json_file,
    ):
        writer = csv.writer(file)
        writer.writerow(map(escape, columns))
        for row in rows:
            values = [row[name] for name in columns]
            writer.writerow(map(escape, values))
            named = dict(zip(columns, values, strict=True))
            json_file.write(json.dumps(named, ensure_ascii=False) + "\n")


def read(path: Path, *, most: int) -> list[dict[str, str]]:
    """The first `most` rows of a CSV file that `write` left, with the texts that it was given."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = itertools.islice(csv.DictReader(file), most)
        return [{name: unescape(text) for name, text in row.items()} for row in rows]
