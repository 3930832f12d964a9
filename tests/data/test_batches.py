import numpy as np
import pytest

from sie_jax.data import batches

LENGTHS = np.random.default_rng(0).integers(5, 61, 203)


def plan(
    seed: int = 0, epoch: int = 0, batch_size: int = 8, rows: np.ndarray | None = None
) -> list[batches.Batch]:
    boundaries = batches.bucket_lengths(LENGTHS, buckets=4, max_length=60)
    return batches.epoch(
        LENGTHS,
        seed=seed,
        epoch=epoch,
        batch_size=batch_size,
        boundaries=boundaries,
        rows=np.arange(len(LENGTHS)) if rows is None else rows,
    )


def flat(made: list[batches.Batch]) -> list[list[int]]:
    return [batch.rows.tolist() for batch in made]


def test_some_rows_alone() -> None:
    rows = np.flatnonzero(np.arange(len(LENGTHS)) % 3 == 1)
    made = plan(rows=rows)
    assert sorted(row for batch in flat(made) for row in batch) == rows.tolist()
    assert len(made) == -(-len(rows) // 8)


@pytest.mark.parametrize("buckets", [1, 2, 5, 300])
def test_bucket_lengths_rise_and_the_longest_row_fits(buckets: int) -> None:
    made = batches.bucket_lengths(LENGTHS, buckets=buckets, max_length=60)
    assert 1 <= len(made) <= buckets
    assert list(made) == sorted(set(made))
    assert made[-1] == 60  # 60 is the longest row: eights would go past max_length
    assert all(length % 8 == 0 for length in made[:-1])


def test_bucket_lengths_do_not_exceed_what_is_needed() -> None:
    assert batches.bucket_lengths(np.array([3, 9, 17]), buckets=1, max_length=512) == (24,)
    assert batches.bucket_lengths(np.array([8, 8]), buckets=3, max_length=512) == (8,)


@pytest.mark.parametrize("batch_size", [1, 8, 203, 500])
def test_every_row_once_and_one_short_batch_at_most(batch_size: int) -> None:
    made = plan(batch_size=batch_size)
    np.testing.assert_array_equal(np.sort(np.concatenate(flat(made))), np.arange(len(LENGTHS)))
    sizes = [len(batch.rows) for batch in made]
    assert len(made) == -(-len(LENGTHS) // batch_size)
    assert sum(size != batch_size for size in sizes) <= 1
    assert max(sizes) <= batch_size


def test_rows_fit_the_length_of_their_batch() -> None:
    for batch in plan():
        assert LENGTHS[batch.rows].max() <= batch.length


def test_buckets_pad_less() -> None:
    slots = sum(len(batch.rows) * batch.length for batch in plan())
    assert slots < 0.8 * len(LENGTHS) * LENGTHS.max()


def test_a_plan_is_a_function_of_seed_and_epoch() -> None:
    assert flat(plan(3, 1)) == flat(plan(3, 1))
    assert flat(plan(3, 1)) != flat(plan(3, 2))
    assert flat(plan(3, 1)) != flat(plan(4, 1))
    assert flat(plan(3, 1)) != flat(plan(1, 3))


def test_batches_are_shuffled_across_buckets() -> None:
    lengths = [batch.length for batch in plan()]
    assert lengths != sorted(lengths)


def test_in_order_keeps_the_order_within_each_length() -> None:
    boundaries = batches.bucket_lengths(LENGTHS, buckets=1, max_length=60)
    made = batches.in_order(
        LENGTHS, batch_size=8, boundaries=boundaries, rows=np.arange(len(LENGTHS))
    )
    assert np.concatenate(flat(made)).tolist() == list(range(len(LENGTHS)))


PROBABILITIES = np.arange(1.0, 204) / np.arange(1.0, 204).sum()


def drawn(seed: int = 0, epoch: int = 0, buckets: int = 4) -> list[batches.Batch]:
    return batches.drawn(
        LENGTHS,
        seed=seed,
        epoch=epoch,
        batch_size=8,
        boundaries=batches.bucket_lengths(LENGTHS, buckets=buckets, max_length=60),
        probabilities=PROBABILITIES,
    )


def test_as_many_batches_are_drawn_as_an_epoch_has_and_all_are_full() -> None:
    made = drawn()
    assert len(made) == len(plan()) == 26  # ⌈203 / 8⌉
    assert {len(batch.rows) for batch in made} == {8}
    assert all(LENGTHS[batch.rows].max() <= batch.length for batch in made)
    assert len({batch.length for batch in made}) == 4


def test_drawn_batches_are_a_function_of_seed_and_epoch() -> None:
    assert flat(drawn(3, 1)) == flat(drawn(3, 1))
    assert flat(drawn(3, 1)) != flat(drawn(3, 2))
    assert flat(drawn(3, 1)) != flat(drawn(4, 1))


def test_buckets_do_not_change_what_is_drawn() -> None:
    one, four = (np.sort(np.concatenate(flat(drawn(buckets=buckets)))) for buckets in (1, 4))
    np.testing.assert_array_equal(one, four)


def test_rows_are_drawn_by_their_probabilities_at_every_place() -> None:
    epochs = [drawn(epoch=epoch) for epoch in range(1000)]
    for rows in (
        np.concatenate([batch.rows for made in epochs for batch in made]),
        np.concatenate([made[3].rows for made in epochs]),
    ):
        # 29 rows in each of 7 blocks; rows of a batch are alike in length, so that the number of
        # a block's is spread at most √8 times as wide as that of independent draws
        found = np.bincount(rows // 29, minlength=7) / len(rows)
        wanted = PROBABILITIES.reshape(7, 29).sum(1)
        spread = np.sqrt(8 * wanted * (1 - wanted) / len(rows))
        assert (np.abs(found - wanted) < 4 * spread).all()
