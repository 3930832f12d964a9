from typing import Any

import numpy as np
import pytest

from sie_jax.data import batches, loading
from sie_jax.data.loading import PlannedBatches, iterate

PAD = 99
ROWS = 21


class Records:
    """Rows in memory, which are read like the records of `builders.read`."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.lengths = generator.integers(4, 17, ROWS)
        self.rows = [
            {
                "row": i,
                "input_ids": generator.integers(0, 50, length).astype(np.int32),
                "query_length": 3,
                "label": i % 4,
            }
            for i, length in enumerate(self.lengths)
        ]

    def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
        return [self.rows[i] for i in rows]


RECORDS = Records()


def planned(epochs: int = 2, **options: Any) -> PlannedBatches:
    boundaries = batches.bucket_lengths(RECORDS.lengths, buckets=2, max_length=16)
    plan = [
        batches.epoch(
            RECORDS.lengths,
            seed=0,
            epoch=epoch,
            batch_size=4,
            boundaries=boundaries,
            rows=np.arange(len(RECORDS.lengths)),
        )
        for epoch in range(epochs)
    ]
    return PlannedBatches(RECORDS, plan, batch_size=4, pad_token_id=PAD, **options)


def test_shapes_and_types() -> None:
    made = planned()
    assert made.batches_per_epoch == 6  # ⌈21 / 4⌉
    assert len(made) == 12
    for i in range(len(made)):
        batch = made[i]
        length = batch["input_ids"].shape[1]
        for name, dtype, shape in (
            ("row", np.int32, (4,)),
            ("input_ids", np.int32, (4, length)),
            ("token_type_ids", np.int32, (4, length)),
            ("attention_mask", np.bool_, (4, length)),
            ("label", np.int32, (4,)),
            ("mask", np.bool_, (4,)),
            ("weight", np.float32, (4,)),
        ):
            assert batch[name].dtype == dtype, name
            assert batch[name].shape == shape, name


def test_a_row_is_padded_with_the_pad_token_and_not_attended_there() -> None:
    made = planned()
    seen = []
    for index in range(made.batches_per_epoch):
        batch = made[index]
        for i, row in enumerate(batch["row"]):
            if not batch["mask"][i]:
                continue
            seen.append(row)
            record, size = RECORDS.rows[row], RECORDS.lengths[row]
            np.testing.assert_array_equal(batch["input_ids"][i, :size], record["input_ids"])
            assert (batch["input_ids"][i, size:] == PAD).all()
            assert batch["attention_mask"][i].tolist() == [
                position < size for position in range(batch["input_ids"].shape[1])
            ]
            assert batch["token_type_ids"][i].tolist() == [
                int(3 <= position < size) for position in range(batch["input_ids"].shape[1])
            ]
            assert batch["label"][i] == record["label"]
            assert batch["weight"][i] == 1.0
    assert sorted(seen) == list(range(ROWS))


def test_a_padding_row_attends_to_its_first_token_only() -> None:
    made = planned()
    short = next(made[i] for i in range(6) if not made[i]["mask"].all())
    for i in np.flatnonzero(~short["mask"]):
        assert short["row"][i] == -1
        assert (short["input_ids"][i] == PAD).all()
        assert short["attention_mask"][i].tolist() == [True] + [False] * (
            short["input_ids"].shape[1] - 1
        )
        assert short["weight"][i] == 1.0


def test_query_and_item_are_taken_apart() -> None:
    """The tokens of both, [CLS] before each; the query's places are a power of two."""
    generator = np.random.default_rng(1)
    known = loading.Apart(generator.integers(3, 40, ROWS), generator.integers(0, 9, ROWS), 48)
    made, together = planned(apart=known), planned()
    for index in range(made.batches_per_epoch):
        batch, wanted = made[index], together[index]
        real = batch["mask"]
        for name in ("row", "label", "mask", "weight"):
            np.testing.assert_array_equal(batch[name], wanted[name])
        longest = known.query_lengths[batch["row"][real]].max()
        places = batch["query_ids"].shape[1]
        assert places in (8, 16, 32, 48)  # no text has more than 48
        assert places >= longest
        assert places < 2 * longest or places == 8
        for i in np.flatnonzero(real):
            ids = RECORDS.rows[batch["row"][i]]["input_ids"]
            for side, tokens in (("query", ids[:3]), ("item", [ids[0], *ids[3:]])):
                mask = batch[f"{side}_mask"][i]
                np.testing.assert_array_equal(batch[f"{side}_ids"][i, mask], tokens)
                assert mask[: len(tokens)].all()
                assert (batch[f"{side}_ids"][i, ~mask] == PAD).all()
            assert batch["item"][i] == known.items[batch["row"][i]]
        assert (batch["item"][~real] == -1).all()
        both = np.concatenate([batch["query_mask"], batch["item_mask"]], 1)
        np.testing.assert_array_equal(batch["attention_mask"], both)
        assert (both[~real].sum(1) == 2).all()
    # every process has the places of the global batch
    for share in parts_of(made.batch_size, 2):
        part = planned(apart=known, share=share)
        for index in range(len(made)):
            for name, values in made[index].items():
                np.testing.assert_array_equal(part[index][name], values[share])


def test_weights_are_joined_by_row() -> None:
    weights = np.linspace(0.1, 3, ROWS)
    made = planned(weights=weights)
    for i in range(len(made)):
        batch = made[i]
        real = batch["mask"]
        np.testing.assert_array_equal(
            batch["weight"][real], weights[batch["row"][real]].astype(np.float32)
        )


def parts_of(places: int, processes: int) -> list[np.ndarray]:
    return np.array_split(np.arange(places), processes)


@pytest.mark.parametrize("processes", [2, 4])
def test_shares_of_the_processes_make_up_the_global_batch(processes: int) -> None:
    whole = planned()
    shares = [planned(share=share) for share in parts_of(whole.batch_size, processes)]
    for i in range(len(whole)):
        parts = [share[i] for share in shares]
        for name, values in whole[i].items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_a_share_may_be_any_places() -> None:
    whole, places = planned(), np.array([0, 3])
    for i, batch in enumerate(planned(share=places)[i] for i in range(len(whole))):
        for name, values in whole[i].items():
            np.testing.assert_array_equal(batch[name], values[places])


@pytest.mark.parametrize("records_at_once", [1, 12, 1024])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (5, None), (12, None), (1, 8), (3, 3)])
def test_the_iterator_gives_the_batches_it_is_asked_for(
    start: int, stop: int | None, records_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "RECORDS_AT_ONCE", records_at_once)
    made = planned()
    given = list(iterate(made, start=start, stop=stop))
    assert len(given) == (len(made) if stop is None else stop) - start
    for i, batch in enumerate(given, start=start):
        for name, values in made[i].items():
            np.testing.assert_array_equal(batch[name], values)


def test_batches_read_together_ask_the_source_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(
        Records,
        "__getitems__",
        lambda _, rows: asked.append(rows) or [RECORDS.rows[i] for i in rows],
    )
    assert len(list(iterate(planned()))) == 12
    assert len(asked) == 1
    assert sorted(asked[0]) == sorted([*range(ROWS), *range(ROWS)])


@pytest.mark.parametrize("processes", [1, 2])
def test_drawn_batches_resume_and_are_shared_out_like_all_others(processes: int) -> None:
    values = np.linspace(1, 3, ROWS)
    p = values / values.sum()
    plan = [
        batches.drawn(
            RECORDS.lengths,
            seed=0,
            epoch=epoch,
            batch_size=4,
            boundaries=batches.bucket_lengths(RECORDS.lengths, buckets=2, max_length=16),
            probabilities=p,
        )
        for epoch in range(2)
    ]
    options: dict[str, Any] = {"batch_size": 4, "pad_token_id": PAD, "weights": 1 / (ROWS * p)}
    whole = PlannedBatches(RECORDS, plan, **options)
    assert whole.batches_per_epoch == planned().batches_per_epoch
    shares = [
        list(iterate(PlannedBatches(RECORDS, plan, share=share, **options), start=5))
        for share in parts_of(4, processes)
    ]
    for index, parts in enumerate(zip(*shares, strict=True), start=5):
        rows = np.concatenate([part["row"] for part in parts])
        np.testing.assert_array_equal(rows, whole[index]["row"])
        np.testing.assert_array_equal(
            np.concatenate([part["weight"] for part in parts]),
            (1 / (ROWS * p))[rows].astype(np.float32),
        )


def test_a_source_that_gives_too_few_records_is_not_the_end_of_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Records, "__getitems__", lambda _, rows: RECORDS.rows[: len(rows) - 1])
    with pytest.raises(ValueError, match="shorter"):
        list(iterate(planned()))
