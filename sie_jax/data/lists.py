"""The batch plan of lists: which queries, each with its items, form which batch.

Like `batches`, a pure function of seed, epoch, lengths and queries.
"""

from typing import NamedTuple

import numpy as np

from sie_jax.data.batches import Batch

LEAST = 2  # rows that a list needs: alone, an item has nothing to be ranked against


class Shape(NamedTuple):
    """What holds lists: `shares` of each batch, one for a device, of `places` rows each.

    limit: the most rows of a list, at most `places`; of longer lists each epoch draws so many.
    least: the rows that a list needs, to be there at all.
    """

    shares: int
    places: int
    limit: int
    least: int = LEAST


def epoch(
    lengths: np.ndarray,
    queries: np.ndarray,
    *,
    seed: int,
    epoch: int,
    shape: Shape,
    boundaries: tuple[int, ...],
    rows: np.ndarray,
) -> list[Batch]:
    """One epoch's batches, each of whole lists, of which none lies in two shares.

    A list is what `rows` has of one query. Those with fewer than `shape.least` rows are left out.
    Lists of about one length (that of their longest row) share a batch, and within it as many as
    fit a share; what does not fill a share moves up to the next length. Where rows do not fill a
    share, places are left empty: row −1, a list of its own. Every epoch has equally many batches.

    Args:
      lengths: `[N]`, the tokens of every row. queries: `[N]`, the query of each. rows: which of
        them to take.
    """
    generator = np.random.default_rng((seed, epoch))
    lists = [one for one in _lists(generator.permutation(rows), queries) if len(one) >= shape.least]
    lists = [lists[at] for at in generator.permutation(len(lists))]
    # of all its rows, so that the plan has one shape whatever an epoch draws of it
    bucket = np.searchsorted(boundaries, [lengths[one].max() for one in lists])
    plan: list[Batch] = []
    waiting: list[np.ndarray] = []
    for index, length in enumerate(boundaries):
        waiting += [
            one[: shape.limit] for one, at in zip(lists, bucket, strict=True) if at == index
        ]
        shares = _packed(waiting, shape.places)
        last = index == len(boundaries) - 1
        # the emptiest share moves up with those that are left over
        kept = len(shares) if last else max(len(shares) - 1, 0) // shape.shares * shape.shares
        waiting = [one for share in shares[kept:] for one in share]
        order = generator.permutation(kept)
        plan += [
            _batch([shares[at] for at in order[start : start + shape.shares]], shape, length)
            for start in range(0, kept, shape.shares)
        ]
    return [plan[at] for at in generator.permutation(len(plan))]


def in_order(
    lengths: np.ndarray,
    queries: np.ndarray,
    *,
    batch_size: int,
    boundaries: tuple[int, ...],
    rows: np.ndarray,
) -> list[Batch]:
    """The batches of a sweep over `rows`: each row once, beside the others of its query.

    Lists of about one length follow one another by query. A list that a batch has no place left
    for begins the next one. One of more than `batch_size` rows is cut. Arguments as in `epoch`.
    """
    lists = _lists(rows, queries)
    # stable, so that queries keep their order
    bucket = np.searchsorted(boundaries, [lengths[one].max() for one in lists])
    batches: list[Batch] = []
    waiting: list[np.ndarray] = []
    shape = Shape(1, batch_size, batch_size, 1)

    def leave() -> None:
        if waiting:
            longest = max(lengths[one].max() for one in waiting)
            length = boundaries[np.searchsorted(boundaries, longest)]
            batches.append(_batch([waiting], shape, length))

    for at in np.argsort(bucket, kind="stable"):
        for start in range(0, len(lists[at]), batch_size):
            piece = lists[at][start : start + batch_size]
            if sum(map(len, waiting)) + len(piece) > batch_size:
                leave()
                waiting = []
            waiting.append(piece)
    leave()
    return batches


def _lists(rows: np.ndarray, queries: np.ndarray) -> list[np.ndarray]:
    """The rows of each query, by query, in their order."""
    rows = rows[np.argsort(queries[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(queries[rows], prepend=-1))
    return np.split(rows, starts)[1:]


def _packed(lists: list[np.ndarray], places: int) -> list[list[np.ndarray]]:
    """The lists in as few shares as best fit gives, longest lists first; fullest shares first.

    How many shares there are and how full depends on the sizes of the lists alone.
    """
    shares: list[list[np.ndarray]] = []
    free: dict[int, list[int]] = {}  # shares by how many places they have left
    for one in sorted(lists, key=len, reverse=True):
        left = next((n for n in range(len(one), places + 1) if free.get(n)), None)
        if left is None:
            shares.append([])
            left, at = places, len(shares) - 1
        else:
            at = free[left].pop()
        shares[at].append(one)
        free.setdefault(left - len(one), []).append(at)
    return sorted(shares, key=lambda share: sum(map(len, share)), reverse=True)


def _batch(shares: list[list[np.ndarray]], shape: Shape, length: int) -> Batch:
    size = shape.shares * shape.places
    rows, lists = np.full(size, -1, np.int64), np.arange(size, 2 * size, dtype=np.int32)
    number = 0
    for share, several in enumerate(shares):
        at = share * shape.places
        for one in several:
            rows[at : at + len(one)], lists[at : at + len(one)] = one, number
            at, number = at + len(one), number + 1
    return Batch(rows, length, lists)
