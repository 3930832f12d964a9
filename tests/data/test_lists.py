"""The batch plan of lists: whole lists, in one share each, in batches of one length."""

import numpy as np
import pytest

from sie_jax.data import batches, lists
from sie_jax.data.lists import Shape

BOUNDARIES = (8, 16)
GENERATOR = np.random.default_rng(0)
SIZES = (1, 2, 3, 5, 9, 4, 1, 7, 2, 3)
QUERIES = GENERATOR.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
LENGTHS = GENERATOR.integers(4, 17, len(QUERIES))
ROWS = np.arange(len(QUERIES))
SHAPE = Shape(shares=2, places=6, limit=5)


def planned(epoch: int = 0, seed: int = 3, **changes: object) -> list[batches.Batch]:
    given = {"shape": SHAPE, "boundaries": BOUNDARIES, "rows": ROWS} | changes
    return lists.epoch(LENGTHS, QUERIES, seed=seed, epoch=epoch, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [SHAPE, Shape(1, 9, 9), Shape(4, 5, 2)])
def test_lists_are_whole_and_in_one_share(shape: Shape) -> None:
    size = shape.shares * shape.places
    taken: dict[int, int] = {}
    for batch in planned(shape=shape):
        assert batch.lists is not None
        assert len(batch.rows) == len(batch.lists) == size
        real = batch.rows >= 0
        assert (LENGTHS[batch.rows[real]] <= batch.length).all()
        # an empty place is a list of its own
        assert len(np.unique(batch.lists[~real])) == (~real).sum()
        assert not set(batch.lists[~real]) & set(batch.lists[real])
        for number in np.unique(batch.lists[real]):
            places = np.flatnonzero(batch.lists == number)
            assert len({place // shape.places for place in places}) == 1
            (query,) = set(QUERIES[batch.rows[places]])
            assert query not in taken
            taken[query] = len(places)
            assert len(np.unique(batch.rows[places])) == len(places)
    wanted = {q: min(size, shape.limit) for q, size in enumerate(SIZES) if size >= lists.LEAST}
    assert taken == wanted


def test_a_list_of_one_row_is_taken_where_that_is_enough() -> None:
    taken = [
        row for batch in planned(shape=SHAPE._replace(least=1)) for row in batch.rows if row >= 0
    ]
    assert len(taken) == len(set(taken)) == sum(min(size, SHAPE.limit) for size in SIZES)


@pytest.mark.parametrize("batch_size", [3, 6, 50])
def test_a_sweep_takes_each_row_once_beside_those_of_its_query(batch_size: int) -> None:
    some = ROWS[::2] if batch_size == 6 else ROWS
    plan = lists.in_order(LENGTHS, QUERIES, batch_size=batch_size, boundaries=BOUNDARIES, rows=some)
    seen: list[int] = []
    places: dict[int, set[int]] = {}
    for number, batch in enumerate(plan):
        assert batch.lists is not None
        assert len(batch.rows) == len(batch.lists) == batch_size
        real = batch.rows >= 0
        assert real.any()
        assert LENGTHS[batch.rows[real]].max() <= batch.length
        # one list for each query of the batch, and one for each empty place
        of_query = dict(zip(QUERIES[batch.rows[real]], batch.lists[real], strict=True))
        assert len(set(of_query.values())) == len(of_query)
        assert [of_query[query] for query in QUERIES[batch.rows[real]]] == list(batch.lists[real])
        assert len(set(batch.lists)) == len(of_query) + (~real).sum()
        for query in of_query:
            places.setdefault(query, set()).add(number)
        seen += batch.rows[real].tolist()
    assert sorted(seen) == some.tolist()
    for query, batches_of in places.items():
        size = (QUERIES[some] == query).sum()
        assert len(batches_of) == 1 or size > batch_size
    again = lists.in_order(
        LENGTHS, QUERIES, batch_size=batch_size, boundaries=BOUNDARIES, rows=some
    )
    for one, other in zip(plan, again, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)


def test_every_epoch_is_another_one_of_equally_many_batches() -> None:
    epochs = [planned(epoch) for epoch in range(20)]
    assert {len(one) for one in epochs} == {len(epochs[0])}
    # the list of nine rows is drawn from: all of them are seen in time
    seen = {row for one in epochs for batch in one for row in batch.rows.tolist()} - {-1}
    assert seen == set(ROWS[np.isin(QUERIES, np.flatnonzero(np.array(SIZES) > 1))])
    assert not np.array_equal(epochs[0][0].rows, epochs[1][0].rows)


def test_the_plan_is_a_function_of_seed_and_epoch() -> None:
    for one, again in zip(planned(2), planned(2), strict=True):
        np.testing.assert_array_equal(one.rows, again.rows)
        np.testing.assert_array_equal(one.lists, again.lists)  # type: ignore[arg-type]
    assert not np.array_equal(planned(0)[0].rows, planned(0, seed=4)[0].rows)


def test_rows_that_are_left_out_are_in_no_list() -> None:
    some = ROWS[::2]
    found = np.concatenate([batch.rows for batch in planned(rows=some)])
    assert set(found[found >= 0]) <= set(some)
    assert not planned(rows=np.flatnonzero(QUERIES == 0))


def test_shares_are_packed_full() -> None:
    """Lists of four sizes fill all shares but one of each length, and those that move up."""
    sizes = np.repeat([2, 3, 4, 6], 50)
    queries = np.repeat(np.arange(200), sizes)
    lengths = np.full(len(queries), 7)
    shape = Shape(shares=1, places=12, limit=6)
    plan = lists.epoch(
        lengths,
        queries,
        seed=0,
        epoch=0,
        shape=shape,
        boundaries=BOUNDARIES,
        rows=np.arange(len(queries)),
    )
    assert len(plan) == -(-len(queries) // 12)
