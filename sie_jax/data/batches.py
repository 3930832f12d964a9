"""The batch plan: which rows form which batch, a pure function of seed, epoch and lengths.

Nothing here is stateful, so a position in the plan is one integer, and any number of processes
compute the same plan.
"""

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Rows of one global batch, and the length that all are padded to."""

    rows: np.ndarray  # int64 [n], n ≤ batch size
    length: int


def bucket_lengths(lengths: np.ndarray, *, buckets: int, max_length: int) -> tuple[int, ...]:
    """At most `buckets` padded lengths, ascending: the length's quantiles rounded up to eights.

    The last is `max_length` rounded to what the longest row needs, so that every row fits one.
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
    """One epoch's batches: each of `rows` once, shuffled, each batch of rows of about one length.

    What a bucket cannot fill a batch with moves up to the next one, so at most one batch of an
    epoch is short. The number of batches is ⌈n / batch_size⌉ in every epoch, n being len(rows).
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

    ⌈N / batch_size⌉ batches as in an epoch that takes every row once, and all of them full. The
    rows of the whole epoch are drawn before they are dealt out by length, so that the lengths have
    no say in what is drawn. A batch then holds rows of about one length, and is at a random place
    of the epoch: the batch at any given place has in expectation what p says. Its variance is that
    of independent draws where there is one bucket; with several, batches differ by length too, as
    they do in `epoch`.

    probabilities: float64 `[N]`, sum 1; 1/(N p_i) is the weight that makes up for p.
    """
    generator = np.random.default_rng((seed, epoch))
    number = -(-len(lengths) // batch_size) * batch_size
    rows = generator.choice(len(lengths), number, p=probabilities)
    plan = _cut(rows, lengths, batch_size, boundaries)
    return [plan[i] for i in generator.permutation(len(plan))]


def in_order(
    lengths: np.ndarray, *, batch_size: int, boundaries: tuple[int, ...], rows: np.ndarray
) -> list[Batch]:
    """The batches of a sweep over `rows`: each once, nothing shuffled."""
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
