"""Histories as padded batches: what a training run learns from, and what is asked of it."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from sie_jax.data import batches as plans
from sie_jax.data.batches import Batch
from sie_jax.data.histories.histories import TRAIN, Cases, Histories
from sie_jax.data.loading import Arrays
from sie_jax.devices import mesh as meshes
from sie_jax.models.histories import GAPS

ALL, LAST, NONE = "all", "last", "none"


class Windows(NamedTuple):
    """What a model reads at a time: R stretches of events of one user each.

    start, stop `[R]`: places in the histories.
    """

    start: np.ndarray
    stop: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """How many events are read of each."""
        return self.stop - self.start


def training_targets(histories: Histories) -> np.ndarray:
    """The event that each event is to predict `[N]`, a place; −1 of none.

    It is one of the next basket of the user's training events: of a basket of m wanted events the
    k-th, where the event is the k-th of its own basket, counted round. So it is asked as it will be
    used, for what comes next and not for the rest of what is being bought; where each basket has
    one event, it is the next event.
    """
    target = np.full(len(histories.item), -1, np.int64)
    trained = histories.split == TRAIN
    usable = trained & histories.wanted
    for begin, end in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        stop = int(begin + trained[begin:end].sum())  # training events come first
        edges = begin + np.flatnonzero(np.diff(histories.basket[begin:stop], prepend=-1))
        for place, edge in enumerate(edges[1:], 1):
            after = edges[place + 1] if place + 1 < len(edges) else stop
            following = edge + np.flatnonzero(usable[edge:after])
            if len(following):
                own = np.arange(edges[place - 1], edge)
                target[own] = following[np.arange(len(own)) % len(following)]
    return target


def training_windows(target: np.ndarray, offsets: np.ndarray, length: int) -> Windows:
    """All events that predict one, in stretches of at most `length`, cut from each user's end.

    target: as `training_targets` gives it. Each is read in one stretch. One in which nothing is
    predicted is left out.
    """
    starts, stops = [], []
    predicts = np.concatenate([[0], np.cumsum(target >= 0)])
    for begin, end in itertools.pairwise(offsets):
        own = np.flatnonzero(target[begin:end] >= 0)
        stop = int(begin + own[-1] + 1) if len(own) else int(begin)
        while stop > begin:
            start = max(int(begin), stop - length)
            if predicts[stop] > predicts[start]:
                starts.append(start)
                stops.append(stop)
            stop = start
    return Windows(np.array(starts, np.int64), np.array(stops, np.int64))


@dataclass(frozen=True)
class HistoryBatches:
    """Random access to padded batches, as `training.loop.fit` and `data.loading.iterate` take them.

    Each batch holds, for the places of this process: `row` int32 `[b]` (−1: padding), `items`,
    `targets`, `events` and `gaps` int32 `[b, T]` (targets: 0 where nothing is predicted),
    `attention_mask` bool `[b, T]`, `mask` bool `[b]`, `weight` float32 `[b]` (1) and `progress`
    float32 `[b]`, the share of the run's batches before this one.

    target: what each event predicts in training (`training_targets`). predicts: ALL, those; LAST:
    the last event of a window predicts the one behind it; NONE: nothing is predicted.
    """

    histories: Histories
    windows: Windows
    plan: Sequence[Batch]
    batch_size: int
    batches_per_epoch: int
    share: np.ndarray
    target: np.ndarray
    predicts: str = ALL
    batches_at_once: int = 4

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Arrays:
        return self.read([index])[0]

    def __iter__(self) -> Iterator[Arrays]:
        return (self[index] for index in range(len(self)))

    @property
    def longest(self) -> int:
        """The place of a batch of the greatest length."""
        lengths = [batch.length for batch in self.plan]
        return lengths.index(max(lengths))

    def examples(self, index: int) -> int:
        """How many real rows batch `index` has, over all processes."""
        return int((self.plan[index].rows >= 0).sum())

    def read(self, indices: Sequence[int]) -> list[Arrays]:
        """These batches."""
        return [self._made(index) for index in indices]

    def _made(self, index: int) -> Arrays:
        batch = self.plan[index]
        rows = np.full(self.batch_size, -1, np.int32)
        rows[: len(batch.rows)] = batch.rows
        rows = rows[self.share]
        mask = rows >= 0
        known = np.where(mask, rows, 0)
        start, stop = self.windows.start[known], self.windows.stop[known]
        size = np.where(mask, stop - start, 0)
        place = np.arange(batch.length)
        there = place < size[:, None]
        of = np.where(there, start[:, None] + place, 0)
        own = self.histories
        following = self.target[of] if self.predicts == ALL else of + 1
        predicted = there & (following >= 0) & (self.predicts != NONE)
        if self.predicts == LAST:
            predicted &= place == size[:, None] - 1
        following = np.clip(following, 0, len(own.item) - 1)
        attended = there.copy()
        attended[:, 0] = True
        return {
            "row": rows,
            "items": np.where(there, own.item[of], 0).astype(np.int32),
            "targets": np.where(predicted, own.item[following], 0).astype(np.int32),
            "events": np.where(there, own.event[of], 0).astype(np.int32),
            "gaps": np.where(there, gaps_of(own, of), 0).astype(np.int32),
            "attention_mask": attended,
            "mask": mask,
            "weight": np.ones(len(rows), np.float32),
            "progress": np.full(len(rows), index / max(len(self.plan), 1), np.float32),
        }


def gaps_of(histories: Histories, places: np.ndarray) -> np.ndarray:
    """The class of the time since the user's event before: 0 of the first, else 1 + log2 seconds.

    The last class has all from 2^22 seconds on, about 50 days. All are 0 where times are none.
    """
    before = np.maximum(places - 1, 0)
    seconds = (histories.time[places] - histories.time[before]) / 1e6
    first = np.isin(places, histories.offsets[:-1])
    bucket = 1 + np.floor(np.log2(np.maximum(seconds, 1.0)))
    return np.where(first | (not histories.timed), 0, np.clip(bucket, 1, GAPS - 1)).astype(np.int32)


@dataclass(frozen=True)
class HistoryPlanner:
    """Plans batches of `batch_size` histories of at most `length` events."""

    histories: Histories
    mesh: Mesh
    batch_size: int
    length: int
    buckets: int = 3

    @functools.cached_property
    def windows(self) -> Windows:
        """Those to train on."""
        return training_windows(self.target, self.histories.offsets, self.length)

    @functools.cached_property
    def target(self) -> np.ndarray:
        """What each event predicts in training."""
        return training_targets(self.histories)

    def epochs(self, number: int, *, seed: int) -> HistoryBatches:
        """So many epochs over the training windows, shuffled by the seed."""
        windows = self.windows
        rows = np.arange(len(windows.start))
        boundaries = self._boundaries(windows.lengths)
        plan = [
            plans.epoch(
                windows.lengths,
                seed=seed,
                epoch=epoch,
                batch_size=self.batch_size,
                boundaries=boundaries,
                rows=rows,
            )
            for epoch in range(number)
        ]
        flat = [batch for one in plan for batch in one]
        return self._batches(windows, flat, len(plan[0]))

    def of_windows(self, rows: np.ndarray) -> HistoryBatches:
        """Some training windows, each once."""
        windows = self.windows
        plan = plans.in_order(
            windows.lengths,
            batch_size=self.batch_size,
            boundaries=self._boundaries(windows.lengths),
            rows=rows,
        )
        return self._batches(windows, plan, len(plan))

    def asked(self, cases: Cases) -> HistoryBatches:
        """The last events of each case, as many as a model reads; row i is case i."""
        start = np.maximum(cases.start, cases.stop - self.length)
        lengths = cases.stop - start
        plan = plans.in_order(
            lengths,
            batch_size=self.batch_size,
            boundaries=self._boundaries(lengths),
            rows=np.arange(len(lengths)),
        )
        return self._batches(Windows(start, cases.stop), plan, len(plan), predicts=NONE)

    def asked_together(self, cases: Cases) -> HistoryBatches:
        """At most a batch of cases, in one batch of the greatest length, in their order."""
        start = np.maximum(cases.start, cases.stop - self.length)
        plan = [Batch(np.arange(len(cases)), self.length)]
        return self._batches(Windows(start, cases.stop), plan, 1, predicts=NONE)

    def predicting(self, cases: Cases) -> HistoryBatches:
        """The last events of each case and one wanted item after it, to learn how to weigh by."""
        first = np.unique(cases.case, return_index=True)[1]
        assert len(first) == len(cases)
        start = np.maximum(cases.start, cases.stop - self.length)
        windows = Windows(start, cases.stop)
        plan = plans.in_order(
            windows.lengths,
            batch_size=self.batch_size,
            boundaries=(int(windows.lengths.max()),),
            rows=np.arange(len(start)),
        )
        return self._batches(windows, plan, len(plan), predicts=LAST)

    def _boundaries(self, lengths: np.ndarray) -> tuple[int, ...]:
        found = plans.bucket_lengths(lengths, buckets=self.buckets, max_length=self.length)
        return tuple(sorted({*found, min(int(lengths.max()), self.length)}))

    def _batches(
        self,
        windows: Windows,
        plan: Sequence[Batch],
        per_epoch: int,
        *,
        predicts: str = ALL,
    ) -> HistoryBatches:
        return HistoryBatches(
            self.histories,
            windows,
            plan,
            self.batch_size,
            per_epoch,
            meshes.local_rows(self.mesh, self.batch_size),
            self.target,
            predicts,
        )
