"""The batch plan: which rows form which batch, a pure function of seed, epoch and lengths.

Nothing here has state. So a position in the plan is one integer, and any number of processes make
the same plan.
"""

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Rows of one global batch, and the length to which all are padded.

    lists: the list of each place, where rows are ranked together; every empty place is one.
    """

    rows: np.ndarray  # int64 [n], n ≤ batch size; −1 for a place that is empty
    length: int
    lists: np.ndarray | None = None  # int32 [batch size]


def bucket_lengths(lengths: np.ndarray, *, buckets: int, max_length: int) -> tuple[int, ...]:
    """At most `buckets` padded lengths, ascending: quantiles of the lengths, rounded up to eights.

    None is above `max_length`. The longest row fits the last, so that every row fits one.
    """
    quantiles = np.quantile(lengths, np.arange(1, buckets + 1) / buckets)
    rounded = {min(int(-(-quantile // 8) * 8), max_length) for quantile in quantiles}
    return tuple(sorted(rounded))


def epoch(
    lengths: np.ndarray,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    boundaries: tuple[int, ...],
    rows: np.ndarray,
) -> list[Batch]:
    """One epoch's batches: each of `rows` once, shuffled, with rows of about one length in a batch.

    Rows that do not fill a batch of their bucket move up to the next bucket, so at most one batch
    of an epoch is short. Every epoch has ⌈n / batch_size⌉ batches, where n is len(rows).
    """
    generator = np.random.default_rng((seed, epoch))
    plan = _cut(generator.permutation(rows), lengths, batch_size, boundaries)
    return [plan[i] for i in generator.permutation(len(plan))]


def drawn(
    lengths: np.ndarray,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    boundaries: tuple[int, ...],
    probabilities: np.ndarray,
) -> list[Batch]:
    """One epoch's batches of rows drawn with replacement, row i with probability p_i each time.

    There are ⌈N / batch_size⌉ batches, as in an epoch that takes every row once, and all are full.
    The rows of the whole epoch are drawn before they are dealt out by length, so that what is drawn
    does not depend on lengths. A batch holds rows of about one length and is at a random place of
    the epoch, so that the batch at any given place has p in expectation. With one bucket its
    variance is that of independent draws; with several, batches differ by length too, as in
    `epoch`.

    probabilities: float64 `[N]`, sum 1; 1/(N p_i) is the weight that corrects for p.
    """
    generator = np.random.default_rng((seed, epoch))
    number = -(-len(lengths) // batch_size) * batch_size
    rows = generator.choice(len(lengths), number, p=probabilities)
    plan = _cut(rows, lengths, batch_size, boundaries)
    return [plan[i] for i in generator.permutation(len(plan))]


def in_order(
    lengths: np.ndarray, *, batch_size: int, boundaries: tuple[int, ...], rows: np.ndarray
) -> list[Batch]:
    """The batches of a sweep over `rows`: each row once, not shuffled."""
    return _cut(rows, lengths, batch_size, boundaries)


def _cut(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, boundaries: tuple[int, ...]
) -> list[Batch]:
    bucket = np.searchsorted(boundaries, lengths[order])
    batches: list[Batch] = []
    waiting = order[:0]
    for index, length in enumerate(boundaries):
        waiting = np.concatenate([waiting, order[bucket == index]])
        full = len(waiting) // batch_size * batch_size
        batches += [Batch(rows, length) for rows in waiting[:full].reshape(-1, batch_size)]
        waiting = waiting[full:]
    if len(waiting):
        batches.append(Batch(waiting, boundaries[-1]))
    return batches
