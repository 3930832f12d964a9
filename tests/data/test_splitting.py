"""Queries stay whole, official splits stay, and what is carved follows the hash of the query."""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sie_jax.data.folds import assign
from sie_jax.data.schema import CLEAN_SCHEMA, SPLITS, normalise_query
from sie_jax.data.splitting import assert_disjoint, drawn, split
from sie_jax.errors import UserError


def table(queries: list[str], splits: list[str] | str = "") -> pa.Table:
    given = [splits] * len(queries) if isinstance(splits, str) else splits
    return pa.Table.from_pylist(
        [
            {"example_id": str(place), "query_id": str(place), "query": query, "item_id": "i",
             "title": "t", "text": "", "label": 0, "split": name, "truth": -1}
            for place, (query, name) in enumerate(zip(queries, given, strict=True))
        ],
        schema=CLEAN_SCHEMA,
    )  # fmt: skip


def by_query(kept: pa.Table) -> dict[str, str]:
    return dict(zip(kept["query"].to_pylist(), kept["split"].to_pylist(), strict=True))


def by_id(rejected: pa.Table) -> dict[str, str]:
    return dict(
        zip(rejected["example_id"].to_pylist(), rejected["reason"].to_pylist(), strict=True)
    )


def uniform(query: str, seed: int) -> float:
    digest = hashlib.blake2b(query.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


MANY = [f"query {number}" for number in range(2000)]


@pytest.mark.parametrize("seed", [0, 1, -3])
def test_without_official_splits_both_are_carved_by_hash(seed: int) -> None:
    kept, rejected = split(table(MANY), validation=0.1, test=0.2, seed=seed)
    expected = {
        query: "test" if u < 0.2 else "validation" if u < 0.3 else "train"
        for query in MANY
        for u in [uniform(query, seed)]
    }
    assert by_query(kept) == expected
    assert rejected.num_rows == 0
    # Binomial, five standard deviations.
    for name, share in (("test", 0.2), ("validation", 0.1)):
        count = list(expected.values()).count(name)
        assert abs(count - share * 2000) < 5 * np.sqrt(2000 * share * (1 - share))


def test_another_seed_splits_otherwise() -> None:
    one, other = (split(table(MANY), validation=0.1, test=0.2, seed=s)[0] for s in (0, 1))
    assert by_query(one) != by_query(other)


def test_ids_and_the_order_of_rows_make_no_difference() -> None:
    forward, _ = split(table(MANY), validation=0.1, test=0.2, seed=0)
    backward, _ = split(table(MANY[::-1]), validation=0.1, test=0.2, seed=0)
    assert by_query(forward) == by_query(backward)


def test_other_rows_make_no_difference() -> None:
    whole, _ = split(table(MANY), validation=0.1, test=0.2, seed=0)
    half, _ = split(table(MANY[:1000]), validation=0.1, test=0.2, seed=0)
    assert by_query(half) == {query: by_query(whole)[query] for query in MANY[:1000]}


def test_spellings_of_one_query_go_together() -> None:
    queries = [spelling for query in MANY[:200] for spelling in (query, f" {query.upper()}\t")]
    kept, rejected = split(table(queries), validation=0.3, test=0.3, seed=0)
    names = kept["split"].to_pylist()
    assert names[::2] == names[1::2]
    assert rejected.num_rows == 0


@pytest.mark.parametrize("given", ["train", ""])
def test_official_test_rows_stay_and_validation_is_carved_from_train(given: str) -> None:
    splits = ["test" if place % 3 == 0 else given for place in range(2000)]
    kept, rejected = split(table(MANY, splits), validation=0.1, test=0.2, seed=0)
    assert by_query(kept) == {
        query: "test" if name == "test" else "validation" if uniform(query, 0) < 0.1 else "train"
        for query, name in zip(MANY, splits, strict=True)
    }
    assert rejected.num_rows == 0


def test_official_validation_stays_and_test_is_carved_from_train() -> None:
    splits = ["validation" if place % 3 == 0 else "train" for place in range(2000)]
    kept, _ = split(table(MANY, splits), validation=0.1, test=0.2, seed=0)
    assert by_query(kept) == {
        query: name if name == "validation" else "test" if uniform(query, 0) < 0.2 else "train"
        for query, name in zip(MANY, splits, strict=True)
    }


def test_three_official_splits_stay() -> None:
    splits = [SPLITS[place % 3] for place in range(30)]
    kept, rejected = split(table(MANY[:30], splits), validation=0.1, test=0.2, seed=0)
    assert kept["split"].to_pylist() == splits
    assert rejected.num_rows == 0


def test_rows_that_would_leak_are_rejected() -> None:
    queries = ["a", "A ", "a", "b", "b", "c", "d", ""]
    splits = ["train", "test", "validation", "validation", "train", "train", "", "train"]
    kept, rejected = split(table(queries[:7], splits[:7]), validation=0.1, test=0.2, seed=0)
    assert by_id(rejected) == {
        "0": "query_in_test",
        "2": "query_in_test",
        "4": "query_in_validation",
    }
    assert kept["example_id"].to_pylist() == ["1", "3", "5", "6"]
    assert kept["split"].to_pylist() == ["test", "validation", "train", "train"]
    assert rejected.schema.names == [*CLEAN_SCHEMA.names, "reason"]
    assert kept.schema == CLEAN_SCHEMA


def test_a_row_without_a_split_cannot_join_an_official_test_query() -> None:
    _, rejected = split(
        table(["a", "a", "b", "c"], ["test", "", "", ""]), validation=0.1, test=0.2, seed=0
    )
    assert by_id(rejected) == {"1": "query_in_test"}


def test_validation_that_lies_wholly_in_test_is_carved_anew() -> None:
    kept, _ = split(
        table(["a", "a", "b", "c"], ["test", "validation", "train", "train"]),
        validation=0.1,
        test=0.2,
        seed=0,
    )
    assert sorted(kept["split"].to_pylist()) == sorted(SPLITS)


@pytest.mark.parametrize("seed", range(20))
def test_random_tables_never_leak(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries = [f"{'Q' if rng.random() < 0.5 else 'q'} {rng.integers(30)}" for _ in range(120)]
    splits = rng.choice(["", *SPLITS], size=120, p=[0.4, 0.4, 0.1, 0.1]).tolist()
    original = table(queries, splits)
    kept, rejected = split(original, validation=0.2, test=0.2, seed=seed)
    assert_disjoint(kept)
    held: dict[str, set[str]] = {name: set() for name in SPLITS}
    for row in kept.to_pylist():
        held[row["split"]].add(normalise_query(row["query"]))
    assert all(held.values())
    assert not held["train"] & held["test"]
    assert not held["train"] & held["validation"]
    assert not held["validation"] & held["test"]
    ids = [*kept["example_id"].to_pylist(), *rejected["example_id"].to_pylist()]
    assert sorted(ids, key=int) == original["example_id"].to_pylist()
    assert "test" not in rejected["split"].to_pylist()
    again, _ = split(original, validation=0.2, test=0.2, seed=seed)
    assert again.equals(kept)


@pytest.mark.parametrize("seed", range(20))
def test_tiny_data_fills_every_split(seed: int) -> None:
    kept, _ = split(table(["a", "b", "c", "a"]), validation=0.01, test=0.01, seed=seed)
    names = by_query(kept)
    assert set(names.values()) == set(SPLITS)
    # The one with the smallest hash moves first, to the first split that is empty.
    if min(uniform(query, seed) for query in "abc") >= 0.02:
        assert names == dict(
            zip(
                sorted("abc", key=lambda query: uniform(query, seed)),
                ("test", "validation", "train"),
                strict=True,
            )
        )


@pytest.mark.parametrize("seed", range(20))
def test_tiny_data_leaves_train_something(seed: int) -> None:
    kept, _ = split(table(["a", "b", "c"]), validation=0.49, test=0.49, seed=seed)
    assert set(by_query(kept).values()) == set(SPLITS)


def test_tiny_data_with_an_official_test() -> None:
    kept, _ = split(
        table(["a", "b", "c"], ["test", "train", "train"]), validation=0.01, test=0.5, seed=0
    )
    assert by_query(kept)["a"] == "test"
    assert set(by_query(kept).values()) == set(SPLITS)


@pytest.mark.parametrize(
    ("queries", "splits", "words"),
    [
        (["a", "A "], "", "1 query in 2 rows cannot be split"),
        (["a", "b"], "", "too few for train and test and validation"),
        (["a", "b"], ["test", "train"], "too few for train and validation"),
        (
            ["a", "a", "b"],
            ["test", "train", "validation"],
            "0 training queries are too few for train: 1 of 2 queries have rows in several given "
            "splits, and what is held out cannot train: give all rows of a query the same split",
        ),
        (["a", "b"], ["test", "dev"], "'dev'"),
    ],
)
def test_tables_that_cannot_be_split(
    queries: list[str], splits: list[str] | str, words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        split(table(queries, splits), validation=0.1, test=0.2, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("validation", "test"), [(0.0, 0.2), (0.1, 0.0), (0.5, 0.5), (-0.1, 0.2), (float("nan"), 0.2)]
)
def test_shares_out_of_range_are_refused(validation: float, test: float) -> None:
    with pytest.raises(UserError, match="shares above 0"):
        split(table(MANY[:10]), validation=validation, test=test, seed=0)


def test_assert_disjoint_finds_a_leak_and_a_row_without_a_split() -> None:
    assert_disjoint(table(["a", "b"], ["train", "test"]))
    with pytest.raises(AssertionError, match="in train and in test"):
        assert_disjoint(table(["a b", " A  B"], ["train", "test"]))
    with pytest.raises(AssertionError, match="split is ''"):
        assert_disjoint(table(["a"]))


@pytest.mark.parametrize("queries", [3, 10, 400])
def test_drawn_splits_have_their_shares_and_at_least_one_query_each(queries: int) -> None:
    names = drawn(np.random.default_rng(0), queries, validation=0.1, test=0.2)
    counts = Counter(names.tolist())
    assert counts["test"] == max(1, queries // 5)
    assert counts["validation"] == max(1, queries // 10)
    assert counts["train"] == queries - counts["test"] - counts["validation"] > 0
    again = drawn(np.random.default_rng(1), queries, validation=0.1, test=0.2)
    assert queries == 3 or names.tolist() != again.tolist()


def folds_of(
    queries: list[str], *, folds: int, seed: int = 0, **given: Any
) -> list[dict[str, str]]:
    """Each query's split in every fold."""
    shares = {"validation": 0.2, "test": 0.2, "seed": seed, "folds": folds}
    found = []
    for fold in range(folds):
        kept, rejected = split(table(queries, **given), fold=fold, **shares)
        assert rejected.num_rows == 0
        assert_disjoint(kept)
        found.append(by_query(kept))
    return found


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_over_the_folds_every_query_is_tested_once(folds: int) -> None:
    found = folds_of(MANY[:200], folds=folds)
    for query in MANY[:200]:
        assert [one[query] for one in found].count("test") == 1
    for one in found:
        counts = Counter(one.values())
        assert counts["test"] in (200 // folds, 200 // folds + 1)
        rest = 200 - counts["test"]
        # Binomial, five standard deviations.
        assert abs(counts["validation"] - 0.2 * rest) < 5 * np.sqrt(0.16 * rest)


def test_the_test_queries_of_a_fold_are_those_that_it_deals_out() -> None:
    dealt = assign([normalise_query(query) for query in MANY[:50]], folds=5, seed=3)
    for fold, one in enumerate(folds_of(MANY[:50], folds=5, seed=3)):
        tested = [query for query, n in zip(MANY[:50], dealt, strict=True) if n == fold]
        assert [query for query, name in one.items() if name == "test"] == tested
        for query in set(MANY[:50]) - {*tested}:
            wanted = "validation" if uniform(query, 3 + fold) < 0.2 else "train"
            assert one[query] == wanted


def test_folds_do_not_heed_given_splits_or_the_order_of_rows() -> None:
    given = [SPLITS[place % 3] for place in range(60)]
    found = folds_of(MANY[:60], folds=3)
    assert folds_of(MANY[:60], folds=3, splits=given) == found
    assert folds_of(MANY[:60][::-1], folds=3) == found
    assert folds_of(MANY[:60], folds=3, seed=1) != found


def test_rows_of_one_query_stay_together_whatever_their_splits() -> None:
    queries = [spelling for query in MANY[:30] for spelling in (query, f" {query.upper()}\t")]
    for one in folds_of(queries, folds=3, splits=["test", "train"] * 30):
        names = [one[query] for query in queries]
        assert names[::2] == names[1::2]


def test_no_query_is_kept_from_training_in_every_fold() -> None:
    found = folds_of(MANY[:300], folds=5)
    assert all("train" in {one[query] for one in found} for query in MANY[:300])


def test_three_queries_are_enough_for_three_folds_and_too_few_for_four() -> None:
    for one in folds_of(MANY[:3], folds=3):
        assert sorted(one.values()) == sorted(SPLITS)
    with pytest.raises(UserError, match="3 queries are too few for 4 folds, each with a query"):
        split(table(MANY[:3]), validation=0.1, test=0.2, seed=0, folds=4)
    with pytest.raises(UserError, match="1 training queries are too few for train and validation"):
        split(table(MANY[:2]), validation=0.1, test=0.2, seed=0, folds=2)
