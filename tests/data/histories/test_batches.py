import numpy as np
import pytest

from sie_jax.data.histories import events
from sie_jax.data.histories.batches import (
    HistoryBatches,
    HistoryPlanner,
    gaps_of,
    training_targets,
    training_windows,
)
from sie_jax.data.histories.histories import (
    LEAVE_ONE_OUT,
    TEST,
    Histories,
    Splitting,
    cases,
    make,
)
from sie_jax.data.schema import REJECTED_SCHEMA
from sie_jax.devices import mesh as meshes


@pytest.fixture(scope="module")
def histories() -> Histories:
    """a has nine events, of which the fourth is a return; b has three, and c one."""
    user = [*"a" * 9, *"b" * 3, "c"]
    item = [*"pqrrstuvw", *"pqr", "p"]
    value = [1, 1, 1, -1, *[1] * 9]
    time = [*(10**6 * np.array([0, 1, 3, 10, 11, 12, 13, 14, 15])).tolist(), 1, 2, 3, 1]
    columns = {"user": user, "item": item, "time": time, "value": [float(v) for v in value]}
    found = events.Events(events.of_columns(columns), REJECTED_SCHEMA.empty_table(), "here")
    return make(found, Splitting(kind=LEAVE_ONE_OUT), timed=True)[0]


def planner(histories: Histories, **options: int) -> HistoryPlanner:
    given = {"batch_size": 4, "length": 3, "buckets": 1} | options
    return HistoryPlanner(histories, meshes.make(1), **given)


def in_order(planned: HistoryPlanner) -> HistoryBatches:
    return planned.of_windows(np.arange(len(planned.windows.start)))


def test_each_training_event_but_the_first_is_predicted_once(histories: Histories) -> None:
    target = training_targets(histories)
    # a trains on events 0 to 6, and b on its first alone, of which nothing is predicted; neither
    # event 2, which is taken back, nor the return itself is
    assert target[:7].tolist() == [1, -1, -1, 4, 5, 6, -1]
    assert (target[7:] == -1).all()
    windows = training_windows(target, histories.offsets, 3)
    read = [
        place
        for start, stop in zip(windows.start, windows.stop, strict=True)
        for place in range(start, stop)
    ]
    assert sorted(read) == [0, 1, 2, 3, 4, 5]
    assert (windows.lengths <= 3).all()


def test_a_basket_is_asked_for_after_the_one_before_it() -> None:
    columns = {
        "user": [*"aaaaaaaa"],
        "item": [*"pqrstuvw"],
        "time": [10**6 * one for one in (1, 1, 1, 2, 2, 3, 4, 5)],
    }
    found = events.Events(events.of_columns(columns), REJECTED_SCHEMA.empty_table(), "here")
    own = make(found, Splitting(kind=LEAVE_ONE_OUT), timed=True)[0]
    # of the baskets pqr, st and u each predicts the next, counted round; v and w are kept apart
    assert training_targets(own).tolist() == [3, 4, 3, 5, 5, -1, -1, -1]


def test_batches_hold_items_and_what_comes_next(histories: Histories) -> None:
    batch = in_order(planner(histories))[0]
    names = np.array(["", *histories.items])
    row = int(np.flatnonzero(batch["row"] == 0)[0])
    assert names[batch["items"][row]].tolist() == ["r", "s", "t"]
    assert names[batch["targets"][row]].tolist() == ["s", "t", "u"]
    other = int(np.flatnonzero(batch["row"] == 1)[0])
    assert names[batch["items"][other]].tolist() == ["p", "q", "r"]
    assert names[batch["targets"][other]].tolist() == ["q", "", ""]
    padding = batch["row"] < 0
    assert not batch["items"][padding].any()
    assert not batch["mask"][padding].any()


def test_nothing_of_the_test_is_read_before_it_is_asked(histories: Histories) -> None:
    asked = cases(histories, TEST)
    batch = planner(histories, length=8).asked(asked)[0]
    names = np.array(["", *histories.items])
    assert "".join(names[batch["items"][0]]) == "pqrrstuv"
    assert not batch["targets"].any()
    # what comes later changes no batch: the last event may be any other
    changed = histories.item.copy()
    changed[8] = 1
    again = planner(Histories(**{**vars(histories), "item": changed}), length=8)
    for name, values in batch.items():
        assert np.array_equal(values, again.asked(asked)[0][name]), name
    for ours, theirs in zip(in_order(planner(histories)), in_order(again), strict=False):
        assert ours["items"].max() <= theirs["items"].max()


def test_gaps_are_powers_of_two_seconds(histories: Histories) -> None:
    assert gaps_of(histories, np.arange(6)).tolist() == [0, 1, 2, 3, 1, 1]


def test_epochs_are_shuffled_by_the_seed(histories: Histories) -> None:
    one, same, other = (planner(histories, length=1).epochs(2, seed=seed) for seed in (0, 0, 1))
    rows = [[batch["row"].tolist() for batch in epochs] for epochs in (one, same, other)]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]
    assert len(one) == 2 * one.batches_per_epoch
