"""Planned batches as a Grain dataset of padded arrays, each process reading its own share."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from sie_jax.data.batches import Batch

Arrays = dict[str, np.ndarray]

# A call of ArrayRecord takes as long for each file that it reads as for about ten of its records.
RECORDS_AT_ONCE = 1024


SHORTEST = 8  # the fewest tokens that queries are padded to where they are read apart from items


class Apart(NamedTuple):
    """What is known of the source's rows where query and item are read apart.

    query_lengths: `[N]`, the tokens of each query, [CLS] and [SEP] included. items: `[N]`, the item
    of each row, equal numbers for equal items. longest: the most tokens that a text may have.
    """

    query_lengths: np.ndarray
    items: np.ndarray
    longest: int


class PlannedBatches:
    """Random access to padded batches: item i is batch i of the plan, epoch after epoch.

    `epochs` holds each epoch's batches; all epochs have equally many. `share` names the places of
    the global batch that this process holds (`mesh.local_rows`); None means all. Each item holds
    for these places: `row` int32 `[b]` (−1: padding), `input_ids` and `token_type_ids` int32 and
    `attention_mask` bool `[b, T]`, `label` int32 `[b]`, `mask` bool `[b]` (False: padding) and
    `weight` float32 `[b]` (1 where no weights are given). Batches of lists have `list` int32 `[b]`:
    rows of one list have one number there, and every padding row has one of its own.

    With `apart`, a batch holds `query_ids` and `query_mask` `[b, Q]`, [CLS] query [SEP], and
    `item_ids` and `item_mask` `[b, T]`, [CLS] item [SEP], in place of the ids of both together, and
    `item` int32 `[b]`. Q is a power of two or `longest`, so that few programs are compiled.
    `attention_mask` `[b, Q + T]` is that of query and item.

    With `features`, float32 `[N, F]` of the source's rows, a batch holds `features` `[b, F]`, 0 in
    padding rows.

    A padding row attends to its own first token, because attention to nothing would be undefined.
    """

    def __init__(
        self,
        source: Any,
        epochs: Sequence[Sequence[Batch]],
        *,
        batch_size: int,
        pad_token_id: int,
        weights: np.ndarray | None = None,
        share: np.ndarray | None = None,
        apart: Apart | None = None,
        features: np.ndarray | None = None,
    ) -> None:
        self._source, self._weights, self._apart = source, weights, apart
        self._features = features
        self._pad = pad_token_id
        self._share = np.arange(batch_size) if share is None else share
        self.batch_size = batch_size
        self.batches_at_once = max(1, RECORDS_AT_ONCE // len(self._share))
        self._batches = [batch for epoch in epochs for batch in epoch]
        self.batches_per_epoch = len(epochs[0])
        # the batch that takes the most memory
        lengths = [batch.length + self._query_places(batch) for batch in self._batches]
        self.longest = lengths.index(max(lengths)) if lengths else 0

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Arrays:
        return self.read([index])[0]

    def examples(self, index: int) -> int:
        """How many real rows batch `index` has, over all processes."""
        return int((self._batches[index].rows >= 0).sum())

    def read(self, indices: Sequence[int]) -> list[Arrays]:
        """These batches; their records are read from the source in one call."""
        rows = np.full((len(indices), self.batch_size), -1, np.int32)
        for place, index in enumerate(indices):
            planned = self._batches[index].rows
            rows[place, : len(planned)] = planned
        rows = rows[:, self._share]
        wanted = rows[rows >= 0].tolist()
        records = self._source.__getitems__(wanted) if wanted else []
        ends = np.cumsum((rows >= 0).sum(1))
        return [
            self._collate(own, self._batches[index], records[end - (own >= 0).sum() : end])
            for index, own, end in zip(indices, rows, ends, strict=True)
        ]

    def _collate(self, rows: np.ndarray, batch: Batch, records: list[dict[str, Any]]) -> Arrays:
        mask = rows >= 0
        label = np.zeros(len(rows), np.int32)
        for i, record in zip(np.flatnonzero(mask), records, strict=True):
            label[i] = record["label"]
        weight = np.ones(len(rows), np.float32)
        if self._weights is not None:
            weight[mask] = self._weights[rows[mask]]
        texts = self._together if self._apart is None else self._taken_apart
        further: Arrays = {}
        if self._features is not None:
            further["features"] = np.zeros((len(rows), self._features.shape[1]), np.float32)
            further["features"][mask] = self._features[rows[mask]]
        return {
            "row": rows,
            **texts(rows, batch, records),
            **further,
            "label": label,
            "mask": mask,
            "weight": weight,
            **({} if batch.lists is None else {"list": batch.lists[self._share]}),
        }

    def _together(self, rows: np.ndarray, batch: Batch, records: list[dict[str, Any]]) -> Arrays:
        """The token ids of each pair."""
        input_ids, attention_mask = self._padded(len(rows), batch.length)
        token_type_ids = np.zeros_like(input_ids)
        for i, record in zip(np.flatnonzero(rows >= 0), records, strict=True):
            _fill(input_ids[i], attention_mask[i], record["input_ids"])
            token_type_ids[i, record["query_length"] : len(record["input_ids"])] = 1
        return {
            "input_ids": input_ids,
            "token_type_ids": token_type_ids,
            "attention_mask": attention_mask,
        }

    def _taken_apart(self, rows: np.ndarray, batch: Batch, records: list[dict[str, Any]]) -> Arrays:
        """The token ids of each query and of each item."""
        assert self._apart is not None
        query_ids, query_mask = self._padded(len(rows), self._query_places(batch))
        item_ids, item_mask = self._padded(len(rows), batch.length)
        for i, record in zip(np.flatnonzero(rows >= 0), records, strict=True):
            ids, size = record["input_ids"], record["query_length"]
            _fill(query_ids[i], query_mask[i], ids[:size])
            _fill(item_ids[i], item_mask[i], np.append(ids[:1], ids[size:]))
        return {
            "query_ids": query_ids,
            "query_mask": query_mask,
            "item_ids": item_ids,
            "item_mask": item_mask,
            "attention_mask": np.concatenate([query_mask, item_mask], 1),
            "item": np.where(rows >= 0, self._apart.items[rows], -1).astype(np.int32),
        }

    def _query_places(self, batch: Batch) -> int:
        """Q, of all rows of the global batch, so that all processes have the same; 0 without."""
        if self._apart is None:
            return 0
        longest = self._apart.query_lengths[batch.rows[batch.rows >= 0]].max(initial=SHORTEST)
        return min(1 << int(longest - 1).bit_length(), self._apart.longest)

    def _padded(self, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask of rows without tokens, of which each attends to its first place."""
        mask = np.zeros((rows, length), bool)
        mask[:, 0] = True
        return np.full((rows, length), self._pad, np.int32), mask


def _fill(ids: np.ndarray, mask: np.ndarray, tokens: np.ndarray) -> None:
    ids[: len(tokens)], mask[: len(tokens)] = tokens, True


class BatchSource(Protocol):
    """Batches by their number: what `iterate` asks of them."""

    @property
    def batches_at_once(self) -> int:
        """How many batches are read in one call."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Arrays]:
        """These batches."""


def iterate(batches: BatchSource, *, start: int = 0, stop: int | None = None) -> Iterator[Arrays]:
    """The batches in order, from batch `start` up to batch `stop`, which is left out.

    As many threads as there are CPU cores read ahead, about RECORDS_AT_ONCE records each. A
    position in the plan is one integer, the number of steps taken, for any number of processes.
    """
    import grain  # takes a second, which scoring a few texts does without

    stop, at_once = len(batches) if stop is None else stop, batches.batches_at_once
    pieces = [range(first, min(first + at_once, stop)) for first in range(start, stop, at_once)]
    threads = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    for piece in grain.MapDataset.source(pieces).map(batches.read).to_iter_dataset(options):
        yield from piece
