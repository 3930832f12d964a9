from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_jax.data.histories import events
from sie_jax.data.histories.histories import (
    DECLARED,
    LEAVE_ONE_OUT,
    TEMPORAL,
    TEST,
    TRAIN,
    VALIDATION,
    Histories,
    Splitting,
    cases,
    make,
)
from sie_jax.data.schema import REJECTED_SCHEMA
from sie_jax.errors import UserError


def made(splitting: Splitting, **columns: Any) -> Histories:
    found = events.Events(events.of_columns(columns), REJECTED_SCHEMA.empty_table(), "here")
    return make(found, splitting, timed=True)[0]


def by_user(histories: Histories, values: np.ndarray) -> dict[str, list[Any]]:
    return {
        user: values[begin:end].tolist()
        for user, begin, end in zip(
            histories.users, histories.offsets[:-1], histories.offsets[1:], strict=True
        )
    }


def test_the_last_event_is_the_test_and_the_one_before_it_validation() -> None:
    found = made(
        Splitting(kind=LEAVE_ONE_OUT),
        user=["a", "b", "a", "a", "b", "a"],
        item=["x", "x", "y", "z", "y", "x"],
        time=[1, 1, 3, 2, 2, 4],
    )
    assert found.items == ["x", "y", "z"]
    assert by_user(found, found.item) == {"a": [1, 3, 2, 1], "b": [1, 2]}
    # b has too few events to be asked
    assert by_user(found, found.split) == {"a": [TRAIN, TRAIN, VALIDATION, TEST], "b": [TRAIN] * 2}
    asked = cases(found, TEST)
    assert (asked.user.tolist(), asked.start.tolist(), asked.stop.tolist()) == ([0], [0], [3])
    assert asked.item.tolist() == [1]


def test_a_return_takes_the_latest_purchase_back() -> None:
    found = made(
        Splitting(kind=LEAVE_ONE_OUT),
        user=["a"] * 7,
        item=["x", "y", "x", "x", "z", "z", "y"],
        time=[1, 2, 3, 4, 5, 6, 7],
        value=[1.0, 1, 1, -1, 1, 1, 1],
    )
    assert found.event_names == ("event", "return")
    assert found.wanted.tolist() == [True, True, False, False, True, True, True]


def test_without_repeats_only_what_is_new_is_wanted() -> None:
    columns = {"user": [*"aaaaab"], "item": [*"xyxzxx"], "time": [1, 2, 3, 4, 5, 6]}
    found = made(Splitting(kind=LEAVE_ONE_OUT, repeats=False), **columns)
    assert by_user(found, found.wanted) == {"a": [True, True, False, True, False], "b": [True]}
    # the last new item is the test, and the new one before it validation
    assert by_user(found, found.split)["a"] == [TRAIN, VALIDATION, VALIDATION, TEST, TEST]


def test_equal_rows_count_once() -> None:
    columns = {
        "user": ["a", "a", "a", "a"],
        "item": ["x", "x", "y", "z"],
        "time": [1, 1, 2, 3],
    }
    found = events.Events(events.of_columns(columns), REJECTED_SCHEMA.empty_table(), "here")
    histories, counts = make(found, Splitting(kind=LEAVE_ONE_OUT), timed=True)
    assert len(histories.item) == 3
    assert counts["repeated"] == 1


def test_by_time_the_first_basket_after_the_split_is_asked() -> None:
    found = made(
        Splitting(kind=TEMPORAL, validation_from=10, test_from=20),
        user=["a"] * 6 + ["new"] * 4 + ["once"] * 2,
        item=["x", "y", "x", "x", "z", "y", "x", "y", "z", "x", "x", "y"],
        time=[1, 5, 12, 21, 21, 25, 22, 22, 30, 31, 23, 23],
        basket=[*"abcdde", *"ffgh", "i", "i"],
    )
    asked = cases(found, TEST)
    assert [found.users[user] for user in asked.user] == ["a", "new"]
    items = np.array(found.items)
    wanted = {
        found.users[user]: items[asked.item[asked.case == case] - 1].tolist()
        for case, user in enumerate(asked.user)
    }
    # a's first basket of the test has two items; new's first basket is what is known of him
    assert wanted == {"a": ["x", "z"], "new": ["z"]}
    assert asked.known.tolist() == [True, False]
    assert (asked.stop - asked.start).tolist() == [3, 2]
    assert [found.users[one] for one in cases(found, TEST, unseen=False).user] == ["a"]
    # nothing that is known is of the time that is asked for, or later
    for case in range(2):
        known = found.time[asked.start[case] : asked.stop[case]]
        assert known.max() < found.time[asked.stop[case]]


def test_a_declared_split_must_not_leak() -> None:
    columns = {"user": ["a"] * 4, "item": ["x", "y", "z", "x"], "time": [1, 2, 3, 4]}
    splits = ["train", "train", "validation", "test"]
    assert made(Splitting(kind=DECLARED), **columns, split=splits).split.tolist() == [0, 0, 1, 2]
    with pytest.raises(UserError, match="a training event is later"):
        made(Splitting(kind=DECLARED), **columns, split=["train", "test", "validation", "train"])
    with pytest.raises(UserError, match="1 rows have the split 'dev'"):
        made(Splitting(kind=DECLARED), **columns, split=["train", "train", "dev", "test"])


def test_only_named_events_are_wanted() -> None:
    columns = {
        "user": ["a"] * 5,
        "item": ["x", "x", "y", "y", "z"],
        "time": [1, 2, 3, 4, 5],
        "event": ["view", "buy", "view", "buy", "buy"],
    }
    found = made(Splitting(kind=LEAVE_ONE_OUT, targets=("buy",)), **columns)
    assert found.wanted.tolist() == [False, True, False, True, True]
    assert found.split.tolist() == [TRAIN, TRAIN, TRAIN, VALIDATION, TEST]
    with pytest.raises(UserError, match=r"data.targets names 'sale'"):
        made(Splitting(kind=LEAVE_ONE_OUT, targets=("sale",)), **columns)


def test_nobody_to_ask() -> None:
    with pytest.raises(UserError, match="no event is left for validation"):
        made(Splitting(kind=LEAVE_ONE_OUT), user=["a", "b"], item=["x", "x"], time=[1, 2])
    with pytest.raises(UserError, match="no event is left to train on"):
        made(
            Splitting(kind=TEMPORAL, validation_from=0, test_from=5),
            user=["a", "a"],
            item=["x", "y"],
            time=[1, 6],
        )


def test_saved_histories_are_the_same(tmp_path: Path) -> None:
    found = made(
        Splitting(kind=LEAVE_ONE_OUT),
        user=["a"] * 4,
        item=["x", "y", "z", "x"],
        time=[1, 2, 3, 4],
        text=["an x", None, "a z", "an x"],
    )
    found.save(tmp_path)
    again = Histories.load(tmp_path)
    assert (again.users, again.items, again.texts) == (["a"], ["x", "y", "z"], ["an x", "", "a z"])
    for name in ("offsets", "item", "time", "event", "wanted", "basket", "split"):
        assert np.array_equal(getattr(again, name), getattr(found, name)), name
    assert again.timed
    assert found.popularity.tolist() == [0, 1, 1, 0]
