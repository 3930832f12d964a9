"""Planned batches as a Grain dataset of padded arrays, each process reading its own share."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from sie_jax.data.batches import Batch

Arrays = dict[str, np.ndarray]

# A call of ArrayRecord takes as long for each file that it reads as for about ten of its records.
RECORDS_AT_ONCE = 1024


class PlannedBatches:
    """Random access to padded batches: item i is batch i of the plan, epoch after epoch.

    `epochs` holds each epoch's batches; all epochs have equally many. `share` names the places of
    the global batch that this process holds (`mesh.local_rows`); None means all. Each item holds
    for these places: `row` int32 `[b]` (−1: padding), `input_ids` and `token_type_ids` int32 and
    `attention_mask` bool `[b, T]`, `label` int32 `[b]`, `mask` bool `[b]` (False: padding) and
    `weight` float32 `[b]` (1 where no weights are given). Batches of lists have `list` int32 `[b]`:
    rows of one list have one number there, and every padding row has one of its own.

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
    ) -> None:
        self._source, self._weights = source, weights
        self._pad = pad_token_id
        self._share = np.arange(batch_size) if share is None else share
        self.batch_size = batch_size
        self.batches_at_once = max(1, RECORDS_AT_ONCE // len(self._share))
        self._batches = [batch for epoch in epochs for batch in epoch]
        self.batches_per_epoch = len(epochs[0])
        # the batch that takes the most memory
        lengths = [batch.length for batch in self._batches]
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
        mask, length = rows >= 0, batch.length
        input_ids = np.full((len(rows), length), self._pad, np.int32)
        token_type_ids = np.zeros((len(rows), length), np.int32)
        attention_mask = np.zeros((len(rows), length), bool)
        attention_mask[:, 0] = True
        label = np.zeros(len(rows), np.int32)
        for i, record in zip(np.flatnonzero(mask), records, strict=True):
            size = len(record["input_ids"])
            input_ids[i, :size] = record["input_ids"]
            token_type_ids[i, record["query_length"] : size] = 1
            attention_mask[i, :size] = True
            label[i] = record["label"]
        weight = np.ones(len(rows), np.float32)
        if self._weights is not None:
            weight[mask] = self._weights[rows[mask]]
        return {
            "row": rows,
            "input_ids": input_ids,
            "token_type_ids": token_type_ids,
            "attention_mask": attention_mask,
            "label": label,
            "mask": mask,
            "weight": weight,
            **({} if batch.lists is None else {"list": batch.lists[self._share]}),
        }


def iterate(
    batches: PlannedBatches, *, start: int = 0, stop: int | None = None
) -> Iterator[Arrays]:
    """The batches in order, from batch `start` up to batch `stop`, which is left out.

    As many threads as there are CPU cores read ahead, about RECORDS_AT_ONCE records each. A
    position in the plan is one integer, the number of steps taken, for any number of processes.
    """
    stop, at_once = len(batches) if stop is None else stop, batches.batches_at_once
    pieces = [range(first, min(first + at_once, stop)) for first in range(start, stop, at_once)]
    threads = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    for piece in grain.MapDataset.source(pieces).map(batches.read).to_iter_dataset(options):
        yield from piece
