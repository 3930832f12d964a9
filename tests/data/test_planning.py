"""The batches of prepared pairs: whose rows, in which order, with which weights."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from small_shop import Shop

from sie_jax.data import batches as plans
from sie_jax.data.planning import Planner
from sie_jax.devices import mesh as meshes

LENGTHS = {"train": np.array([5, 9, 16, 7, 12, 3, 8]), "validation": np.array([4, 15, 6])}
BOUNDARIES = (8, 16)


class Tokenizer(NamedTuple):
    pad_token_id: int = 0


class Pairs(NamedTuple):
    """What a planner reads of prepared pairs; a token is its row's number plus one."""

    lengths: dict[str, np.ndarray] = LENGTHS
    boundaries: tuple[int, ...] = BOUNDARIES
    tokenizer: Tokenizer = Tokenizer()

    def tokens(self, name: str) -> list[dict[str, Any]]:
        return Records(
            {
                "input_ids": np.full(length, row + 1, np.int32),
                "query_length": 2,
                "label": row % 4,
            }
            for row, length in enumerate(self.lengths[name])
        )


class Records(list):
    """Random access as of a TFDS source."""

    def __getitems__(self, keys: Any) -> list[dict[str, Any]]:
        return [self[key] for key in keys]


@pytest.fixture
def planner() -> Planner:
    return Planner(Pairs(), meshes.make(1), 3)  # type: ignore[arg-type]  # what it reads of pairs


def read(planned: Any) -> list[dict[str, np.ndarray]]:
    return [planned[i] for i in range(len(planned))]


def rows_of(batch: dict[str, np.ndarray]) -> list[int]:
    return batch["row"][batch["mask"]].tolist()


def test_each_epoch_has_every_row_once_as_the_plan_of_its_seed_says(planner: Planner) -> None:
    planned = planner.epochs(2, seed=4)
    assert planned.batches_per_epoch == 3
    made = read(planned)
    for epoch in range(2):
        plan = plans.epoch(
            LENGTHS["train"],
            seed=4,
            epoch=epoch,
            batch_size=3,
            boundaries=BOUNDARIES,
            rows=np.arange(7),
        )
        ours = made[3 * epoch : 3 * epoch + 3]
        assert [rows_of(batch) for batch in ours] == [batch.rows.tolist() for batch in plan]
        assert [batch["input_ids"].shape for batch in ours] == [(3, one.length) for one in plan]
    for batch in made:
        for row, ids, mask in zip(
            batch["row"], batch["input_ids"], batch["attention_mask"], strict=True
        ):
            if row >= 0:
                assert ids[mask].tolist() == [row + 1] * LENGTHS["train"][row]
        assert set(batch["weight"][batch["mask"]]) == {1.0}


def test_some_rows_alone_with_their_weights(planner: Planner) -> None:
    rows, weights = np.array([1, 2, 5, 6]), np.arange(7, dtype=np.float32) / 3
    made = read(planner.epochs(1, seed=0, rows=rows, weights=weights))
    assert sorted(row for batch in made for row in rows_of(batch)) == rows.tolist()
    for batch in made:
        np.testing.assert_array_equal(batch["weight"][batch["mask"]], weights[rows_of(batch)])


def test_drawn_batches_are_full_and_of_rows_that_have_a_probability(planner: Planner) -> None:
    probabilities = np.array([0, 0.5, 0, 0.25, 0.25, 0, 0])
    weights = np.arange(7, dtype=np.float32)
    planned = planner.drawn(2, seed=1, probabilities=probabilities, weights=weights)
    assert len(planned) == len(planner.epochs(2, seed=1))
    for batch in read(planned):
        assert batch["mask"].all()
        assert set(rows_of(batch)) <= {1, 3, 4}
        np.testing.assert_array_equal(batch["weight"], weights[batch["row"]])


def test_a_split_in_order(planner: Planner) -> None:
    for split, lengths in LENGTHS.items():
        rows = np.arange(len(lengths))
        made = read(planner.in_order(split))
        plan = plans.in_order(lengths, batch_size=3, boundaries=BOUNDARIES, rows=rows)
        assert [rows_of(batch) for batch in made] == [batch.rows.tolist() for batch in plan]
        assert sorted(row for batch in made for row in rows_of(batch)) == rows.tolist()
    (only,) = read(planner.in_order("train", np.array([2, 4])))
    assert rows_of(only) == [2, 4]


def test_in_one_length_all_batches_have_the_greatest(planner: Planner) -> None:
    made = read(planner.in_one_length("train"))
    assert [rows_of(batch) for batch in made] == [[0, 1, 2], [3, 4, 5], [6]]
    assert {batch["input_ids"].shape for batch in made} == {(3, 16)}


def test_all_rows_of_a_split(planner: Planner) -> None:
    assert planner.rows("validation").tolist() == [0, 1, 2]


def test_read_apart_each_row_is_beside_its_query_and_has_its_item(shop: Shop) -> None:
    """Sweeps and epochs say which rows are of one query and which items are equal."""
    prepared = shop.prepared
    planner = Planner(prepared, meshes.make(1), 8, list_size=4, apart=True)
    for split, planned in (
        ("test", planner.in_order("test")),
        ("train", planner.in_order("train", np.arange(3, 20))),
        ("train", planner.epochs(2, seed=0)),
    ):
        pairs = prepared.split(split)
        queries, items = (np.array(pairs[name]) for name in ("query_id", "item_id"))
        records = prepared.tokens(split).__getitems__(range(len(pairs)))
        lengths = np.array([record["query_length"] for record in records])
        for batch in read(planned):
            rows = rows_of(batch)
            real = batch["mask"]
            np.testing.assert_array_equal(batch["query_mask"][real].sum(1), lengths[rows])
            for name, values in (("list", queries), ("item", items)):
                same = batch[name][real][:, None] == batch[name][real]
                np.testing.assert_array_equal(same, values[rows][:, None] == values[rows])
    seen = np.concatenate([rows_of(batch) for batch in read(planner.in_order("train"))])
    np.testing.assert_array_equal(np.sort(seen), shop.rows)


def test_read_apart_a_query_with_one_item_is_trained_on(shop: Shop) -> None:
    queries = np.unique(np.array(shop.prepared.split("train")["query_id"]), return_index=True)[1]
    alone = np.sort(queries)
    for apart, wanted in ((True, alone.tolist()), (False, [])):
        planner = Planner(shop.prepared, meshes.make(1), 8, list_size=4, apart=apart)
        planned = planner.epochs(1, seed=0, rows=alone)
        assert sorted(row for batch in read(planned) for row in rows_of(batch)) == wanted
