"""Planned batches as a Grain dataset of padded arrays, each process reading its own share."""

from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from sie_jax.data.batches import Batch

Arrays = dict[str, np.ndarray]


class PlannedBatches:
    """Random access to padded batches: item i is batch i of the plan, epoch after epoch.

    `epochs` holds each epoch's batches; all have equally many. Each item holds, for
    this process's rows of the global batch: `row` int32 `[b]` (−1: padding), `input_ids`,
    `token_type_ids` int32 and `attention_mask` bool `[b, T]`, `label` int32 `[b]`, `mask` bool
    `[b]` (a real row) and `weight` float32 `[b]` (1 where none are given).

    A padding row attends to its own first token, so that nothing in it is undefined.
    """

    def __init__(
        self,
        source: Any,
        epochs: Sequence[Sequence[Batch]],
        *,
        batch_size: int,
        pad_token_id: int,
        weights: np.ndarray | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        if batch_size % process_count:
            raise ValueError(
                f"batch size {batch_size} does not divide by {process_count} processes"
            )
        self._source, self._weights = source, weights
        self._pad = pad_token_id
        share = batch_size // process_count
        self._share = slice(process_index * share, (process_index + 1) * share)
        self._batch_size = batch_size
        self._batches = [batch for epoch in epochs for batch in epoch]
        self.batches_per_epoch = len(epochs[0])

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Arrays:
        batch = self._batches[index]
        rows = np.full(self._batch_size, -1, np.int32)
        rows[: len(batch.rows)] = batch.rows
        return self._collate(rows[self._share], batch.length)

    def _collate(self, rows: np.ndarray, length: int) -> Arrays:
        mask = rows >= 0
        input_ids = np.full((len(rows), length), self._pad, np.int32)
        token_type_ids = np.zeros((len(rows), length), np.int32)
        attention_mask = np.zeros((len(rows), length), bool)
        attention_mask[:, 0] = True
        label = np.zeros(len(rows), np.int32)
        records = self._source.__getitems__(rows[mask].tolist()) if mask.any() else []
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
        }


def iterate(batches: PlannedBatches) -> grain.DatasetIterator:
    """A Grain iterator over the batches in order; its state is one integer, saved by Orbax."""
    dataset = grain.MapDataset.source(batches)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))
