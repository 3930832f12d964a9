"""The queries of a split as a whole catalogue is searched for them, and what each wants of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax.data.preparing import Prepared
from sie_jax.data.translation import item_texts
from sie_jax.evaluation.retrieval import NOTHING, Wanted
from sie_jax.tables.spool import write_parquet


def catalogue_of(prepared: Prepared) -> pa.Table:
    """The items: item_id, title and text."""
    return pq.read_table(prepared.folder / "catalogue.parquet")


def texts_of(prepared: Prepared, *, item_text: bool) -> tuple[list[str], list[str]]:
    """The id and the text of every item of the catalogue, in its order."""
    table = catalogue_of(prepared)
    titles = table["title"].to_pylist()
    texts = item_texts(titles, table["text"].to_pylist()) if item_text else titles
    return table["item_id"].to_pylist(), texts


@dataclasses.dataclass(frozen=True)
class Asked:
    """The queries of a split, and what is known of items for them: M judgments.

    queries: their texts, each once. row, item, label `[M]`: the place of the query and of the item,
    and the grade. grades: how many there are. complete: whether every item that is not named is of
    the lowest grade; otherwise nobody judged it.
    """

    queries: list[str]
    row: np.ndarray
    item: np.ndarray
    label: np.ndarray
    grades: int
    complete: bool

    @property
    def wanted(self) -> Wanted:
        """The items of the highest grade, of gain 1 each."""
        best = self.label == self.grades - 1
        return Wanted(self.row[best], self.item[best])

    def gained(self, gains: tuple[float, ...]) -> Wanted:
        """The items of a positive gain, with it."""
        gain = np.array(gains)[self.label]
        return Wanted(self.row[gain > 0], self.item[gain > 0], gain[gain > 0])

    @property
    def counted(self) -> np.ndarray:
        """Which queries want an item of the catalogue `[Q]`."""
        found = np.zeros(len(self.queries), bool)
        found[self.wanted.query] = True
        return found

    def unjudged(self, lists: np.ndarray, depth: int) -> float:
        """The share of the first places that hold an item which nobody judged for the query."""
        first = lists[:, :depth]
        labels = self.labels(first, other=-1)[first != NOTHING]
        return float((labels < 0).mean()) if len(labels) else 0.0

    def labels(self, lists: np.ndarray, *, other: int) -> np.ndarray:
        """The grade of each place of lists `[Q, n]`; `other` where nobody judged the item.

        Where judgments are complete those are of the lowest grade.
        """
        span = 1 + max(int(lists.max(initial=0)), int(self.item.max(initial=0)))
        keys = self.row * span + self.item
        order = np.argsort(keys)
        places = np.arange(len(lists))[:, None] * span + lists
        at = np.minimum(np.searchsorted(keys, places, sorter=order), max(len(keys) - 1, 0))
        unknown = 0 if self.complete else other
        if not len(keys):
            return np.full(lists.shape, unknown)
        found = self.label[order[at]]
        return np.where((keys[order[at]] == places) & (lists >= 0), found, unknown)


def told(prepared: Prepared, asked: Asked, items: int) -> dict[str, Any]:
    """What metrics.json says of the pairs, the queries and the catalogue."""
    counted = asked.counted
    return {
        "rows": {
            "read": prepared.counts["read"],
            "kept": prepared.counts["kept"],
            "rejected": sum(prepared.counts["rejected"].values()),
        },
        "queries": {
            "evaluated": int(counted.sum()),
            "without_wanted_item": int((~counted).sum()),
        },
        "complete": asked.complete,
        "catalogue": {"items": items},
    }


def write_lists(
    path: Path, queries: Sequence[str], ids: Sequence[str], lists: Mapping[str, np.ndarray]
) -> None:
    """Leaves a table: the queries, and what each way found for them, as item ids."""
    names = np.array(ids, object)
    columns = {
        way: [names[row[row != NOTHING]].tolist() for row in own] for way, own in lists.items()
    }
    write_parquet(path, pa.table({"query": list(queries), **columns}))


def asked_of(prepared: Prepared, split: str, ids: list[str]) -> Asked:
    """The queries of a split; items that the catalogue does not have are left out."""
    table = prepared.split(split)
    queries = list(dict.fromkeys(table["query"].to_pylist()))
    number = {query: row for row, query in enumerate(queries)}
    row_of = {
        query_id: number[query]
        for query_id, query in zip(
            table["query_id"].to_pylist(), table["query"].to_pylist(), strict=True
        )
    }
    labels = table["label"].to_pylist()
    complete = prepared.complete() if split != "train" else None
    if complete is not None:
        grade = {name: place for place, name in enumerate(prepared.scale.names)}
        table, labels = complete, [grade[name] for name in complete["label"].to_pylist()]
    place = {item: number for number, item in enumerate(ids)}
    found = {
        (row_of[query_id], place[item]): label
        for query_id, item, label in zip(
            table["query_id"].to_pylist(), table["item_id"].to_pylist(), labels, strict=True
        )
        if item in place and query_id in row_of
    }
    keys = np.array(sorted(found), np.int64).reshape(-1, 2)
    return Asked(
        queries,
        keys[:, 0],
        keys[:, 1],
        np.array([found[row, item] for row, item in keys.tolist()], np.int64),
        len(prepared.scale.names),
        complete is not None,
    )
