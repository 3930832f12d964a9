"""Histories: each user's events in the order of time, split so that the future stays unseen."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int

from sie_jax.data.histories import events
from sie_jax.data.schema import SPLITS
from sie_jax.errors import UserError
from sie_jax.tables.spool import write_parquet

TRAIN, VALIDATION, TEST = range(3)
LEAVE_ONE_OUT, TEMPORAL, DECLARED = "leave_one_out", "temporal", "column"
RETURN = "return"
FILES = ("events.parquet", "users.parquet", "items.parquet")


@dataclasses.dataclass(frozen=True)
class Histories:
    """The events of U users with I items, user after user, each user's in the order of time.

    users: their ids. items: ids of items 1 to I, in the order of their first event; texts: theirs.
    offsets `[U + 1]`: where each user's events begin. Of each of N events: item `[N]`, 1 to I; time
    `[N]`, microseconds, or the place in the order; event `[N]`, a place in `event_names`; wanted
    `[N]`: whether it is one of those to predict; basket `[N]`, numbered within the user from 0;
    split `[N]`: TRAIN, VALIDATION or TEST.
    timed: whether times are times.
    """

    users: list[str]
    items: list[str]
    texts: list[str]
    event_names: tuple[str, ...]
    offsets: Int[np.ndarray, "U+1"]
    item: Int[np.ndarray, "N"]
    time: Int[np.ndarray, "N"]
    event: Int[np.ndarray, "N"]
    wanted: Bool[np.ndarray, "N"]
    basket: Int[np.ndarray, "N"]
    split: Int[np.ndarray, "N"]
    timed: bool

    @property
    def user(self) -> Int[np.ndarray, "N"]:
        """The user of each event, from 0."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.offsets))

    @property
    def popularity(self) -> Int[np.ndarray, "I+1"]:
        """How many wanted training events each item has; item 0 is none."""
        counted = self.wanted & (self.split == TRAIN)
        return np.bincount(self.item[counted], minlength=len(self.items) + 1)

    def save(self, folder: Path) -> None:
        """Leaves FILES in the folder."""
        columns = {
            name: getattr(self, name)
            for name in ("user", "item", "time", "event", "wanted", "basket", "split")
        }
        metadata = {
            "timed": str(int(self.timed)),
            **{f"event{n}": e for n, e in enumerate(self.event_names)},
        }
        table = pa.table(columns).replace_schema_metadata(metadata)
        write_parquet(folder / FILES[0], table)
        write_parquet(folder / FILES[1], pa.table({"user_id": self.users}))
        items = pa.table({"item_id": self.items, "text": self.texts})
        write_parquet(folder / FILES[2], items)

    @classmethod
    def load(cls, folder: Path) -> "Histories":
        """Reads what `save` left."""
        table = pq.read_table(folder / FILES[0])
        told = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        users, items = (pq.read_table(folder / name) for name in FILES[1:])
        found = {name: table[name].to_numpy() for name in table.column_names}
        offsets = np.searchsorted(found.pop("user"), np.arange(users.num_rows + 1))
        names = [told[f"event{n}"] for n in range(len(told)) if f"event{n}" in told]
        return cls(
            users["user_id"].to_pylist(),
            items["item_id"].to_pylist(),
            items["text"].to_pylist(),
            tuple(names),
            offsets,
            timed=told["timed"] == "1",
            **found,
        )


@dataclasses.dataclass(frozen=True)
class Cases:
    """What is asked of a recommender: C users, the events known of each, and what came next.

    user `[C]`. start, stop `[C]`: the events that are known, places in the histories. case, item:
    the M wanted items, each once a case. known `[C]`: whether the user has training events.
    """

    user: Int[np.ndarray, "C"]
    start: Int[np.ndarray, "C"]
    stop: Int[np.ndarray, "C"]
    case: Int[np.ndarray, "M"]
    item: Int[np.ndarray, "M"]
    known: Bool[np.ndarray, "C"]

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, chosen: np.ndarray) -> "Cases":
        """Some cases: their places, ascending."""
        place = np.full(len(self), -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.case] >= 0
        return Cases(
            self.user[chosen],
            self.start[chosen],
            self.stop[chosen],
            place[self.case[kept]],
            self.item[kept],
            self.known[chosen],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splitting:
    """How events are divided.

    kind: LEAVE_ONE_OUT, each user's last wanted event for the test and the one before it for
    validation; TEMPORAL, by the times `validation_from` and `test_from` in microseconds; DECLARED,
    as a column says. least: how many wanted events a user needs to be in validation and test under
    LEAVE_ONE_OUT. gap: microseconds without an event that begin a new basket, where none is named.
    targets: the events that are to be predicted; empty: all but returns. returns: the names of
    returns, beside events whose value is below 0. repeats: whether an item that the user had before
    is to be predicted again.
    """

    kind: str
    validation_from: int = 0
    test_from: int = 0
    least: int = 3
    gap: int = 0
    targets: tuple[str, ...] = ()
    returns: tuple[str, ...] = (RETURN,)
    repeats: bool = True


def make(
    found: events.Events, splitting: Splitting, *, timed: bool
) -> tuple[Histories, dict[str, Any]]:
    """The histories of the events, and what was counted on the way.

    Rows that repeat another one in every column are left out. A return takes the latest earlier
    event of the same user and item back: it is no longer to be predicted, and the return itself
    never is; both stay in what a history tells. Events of one time keep the order of the rows.

    Raises UserError where nothing is left to predict, and where a declared split lets a user's
    training events be later than his others.
    """
    table, repeated = _distinct(found.table)
    event, names = _events(table, splitting)
    user_ids, user = _numbered(table["user"])
    item_ids, item = _numbered(table["item"])
    order = np.lexsort((np.arange(table.num_rows), table["time"].to_numpy(), user))
    user, item, event = user[order], item[order] + 1, event[order]
    time = table["time"].to_numpy()[order]
    returns = np.isin(np.array(names), [RETURN])[event]
    back = _taken_back(user, item, returns)
    targets = np.isin(np.array(names), splitting.targets)[event] if splitting.targets else ~returns
    wanted = targets & ~returns & ~back
    if not splitting.repeats:
        pairs = np.stack([user, item], 1)
        first = np.zeros(len(user), bool)
        first[np.unique(pairs, axis=0, return_index=True)[1]] = True
        wanted &= first
    offsets = np.searchsorted(user, np.arange(len(user_ids) + 1))
    histories = Histories(
        user_ids,
        item_ids,
        _texts(table, item_ids),
        names,
        offsets,
        item,
        time,
        event,
        wanted,
        _baskets(table, order, user, time, offsets, splitting.gap),
        np.zeros(len(user), np.int8),
        timed,
    )
    split = _split(histories, splitting, table["split"].take(pa.array(order)), found.location)
    histories = dataclasses.replace(histories, split=split)
    counts = {
        "events": len(user),
        "users": len(user_ids),
        "items": len(item_ids),
        "repeated": repeated,
        "returns": int(returns.sum()),
        "taken_back": int(back.sum()),
        "splits": {name: int((split == place).sum()) for place, name in enumerate(SPLITS)},
        "users_with_one_event": int((np.diff(offsets) == 1).sum()),
        "items_without_text": sum(not text for text in histories.texts),
    }
    return histories, counts


def cases(histories: Histories, split: int, *, unseen: bool = True) -> Cases:
    """What is asked of the users of VALIDATION or TEST: the first basket of wanted events there.

    All events before it are known. A user without any before it is asked for his second basket of
    that split, with the first known: so someone new is met as he would be. unseen: whether such
    users are among the cases.
    """
    users, starts, stops, owners, wanted_items, known = [], [], [], [], [], []
    here = histories.split == split
    asked = here & histories.wanted
    for user in np.unique(histories.user[asked]):
        begin, end = histories.offsets[user : user + 2]
        places = begin + np.flatnonzero(asked[begin:end])
        first = _basket_of(histories, places[0])
        new = first[0] == begin
        if new:
            later = places[places >= first[1]]
            if not unseen or not len(later):
                continue
            first = _basket_of(histories, later[0])
        of_basket = np.arange(*first)
        items = np.unique(histories.item[of_basket[asked[of_basket]]])
        users.append(user)
        starts.append(begin)
        stops.append(first[0])
        owners.append(np.full(len(items), len(users) - 1))
        wanted_items.append(items)
        trained = histories.split[begin:end] == TRAIN
        known.append(bool(trained.any()))
    return Cases(
        np.array(users, np.int64),
        np.array(starts, np.int64),
        np.array(stops, np.int64),
        np.concatenate([np.empty(0, np.int64), *owners]),
        np.concatenate([np.empty(0, np.int64), *wanted_items]),
        np.array(known, bool),
    )


def _basket_of(histories: Histories, place: int) -> tuple[int, int]:
    """The first and the last place, exclusive, of the basket of an event."""
    user = int(np.searchsorted(histories.offsets, place, side="right")) - 1
    begin, end = histories.offsets[user : user + 2]
    own = histories.basket[begin:end]
    same = np.flatnonzero(own == histories.basket[place])
    return int(begin + same[0]), int(begin + same[-1] + 1)


def _distinct(table: pa.Table) -> tuple[pa.Table, int]:
    """The rows without those that repeat an earlier one, and how many these are."""
    numbered = table.append_column("row", pa.array(np.arange(table.num_rows)))
    names = [name for name in table.column_names if table[name].null_count < table.num_rows]
    first = numbered.group_by(names, use_threads=False).aggregate([("row", "min")])
    rows = np.sort(first["row_min"].to_numpy())
    return table.take(pa.array(rows)), table.num_rows - len(rows)


def _events(table: pa.Table, splitting: Splitting) -> tuple[np.ndarray, tuple[str, ...]]:
    """The event of each row as a place among names; returns are all called RETURN."""
    value = table["value"].fill_null(0.0).to_numpy()
    name = table["event"].fill_null("event").to_numpy(zero_copy_only=False).astype(object)
    name = np.where((value < 0) | np.isin(name, splitting.returns), RETURN, name)
    if missing := [one for one in splitting.targets if one not in set(name)]:
        known = ", ".join(sorted(set(name)))
        raise UserError(
            f"data.targets names {missing[0]!r}, but no event has that name: they are {known}"
        )
    names, event = np.unique(name.astype(str), return_inverse=True)
    return event, tuple(names.tolist())


def _numbered(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The distinct values in the order of their first row, and the place of each row's value."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _texts(table: pa.Table, item_ids: list[str]) -> list[str]:
    """The text that each item has most often; of several the first in the alphabet; "" of none."""
    given = table.select(["item", "text"]).filter(pc.is_valid(table["text"]))
    counted = given.group_by(["item", "text"]).aggregate([([], "count_all")])
    best: dict[str, tuple[int, str]] = {}
    for item, text, count in zip(
        *(counted[name].to_pylist() for name in counted.column_names), strict=True
    ):
        if item not in best or (-count, text) < best[item]:
            best[item] = (-count, text)
    return [best[item][1] if item in best else "" for item in item_ids]


def _taken_back(user: np.ndarray, item: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Which events a later return takes back: the latest of the same user and item before it."""
    back = np.zeros(len(user), bool)
    concerned = np.isin(item, np.unique(item[returns])) if returns.any() else back
    standing: dict[tuple[int, int], list[int]] = {}
    for place in np.flatnonzero(concerned).tolist():
        bought = standing.setdefault((int(user[place]), int(item[place])), [])
        if not returns[place]:
            bought.append(place)
        elif bought:
            back[bought.pop()] = True
    return back


def _baskets(
    table: pa.Table,
    order: np.ndarray,
    user: np.ndarray,
    time: np.ndarray,
    offsets: np.ndarray,
    gap: int,
) -> np.ndarray:
    """The basket of each event, numbered within its user: as named, or by `gap`."""
    begins = np.ones(len(user), bool)
    same_user = user[1:] == user[:-1]
    named = table["basket"]
    if named.null_count < len(named):
        label = _numbered(named.fill_null(""))[1][order]
        begins[1:] = ~same_user | (label[1:] != label[:-1])
    else:
        begins[1:] = ~same_user | (time[1:] - time[:-1] > gap)
    number = np.cumsum(begins) - 1
    first = number[offsets[:-1]]
    return (number - np.repeat(first, np.diff(offsets))).astype(np.int32)


def _split(
    histories: Histories, splitting: Splitting, declared: pa.ChunkedArray, location: str
) -> np.ndarray:
    """The split of each event."""
    split = np.zeros(len(histories.item), np.int8)
    if splitting.kind == TEMPORAL:
        split[histories.time >= splitting.validation_from] = VALIDATION
        split[histories.time >= splitting.test_from] = TEST
    elif splitting.kind == DECLARED:
        split = _declared(histories, declared, location)
    else:
        _leave_one_out(histories, splitting.least, split)
    trained = histories.wanted & (split == TRAIN)
    if not trained.any():
        raise UserError(
            f"{location}: no event is left to train on: give more events, or later times of "
            "data.validation_from and data.test_from"
        )
    for place, name in ((VALIDATION, "validation"), (TEST, "test")):
        if not (histories.wanted & (split == place)).any():
            raise UserError(
                f"{location}: no event is left for {name}: "
                + (
                    "give times that events are later than"
                    if splitting.kind == TEMPORAL
                    else f"no user has {splitting.least} events to predict, or no row is of it"
                )
            )
    return split


def _leave_one_out(histories: Histories, least: int, split: np.ndarray) -> None:
    """Sets the last wanted event of each user to TEST and the one before to VALIDATION, in place.

    What is not wanted after the first of them goes with the event before it.
    """
    for begin, end in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        places = begin + np.flatnonzero(histories.wanted[begin:end])
        if len(places) >= max(least, 3):
            split[places[-2] : end] = VALIDATION
            split[places[-1] : end] = TEST


def _declared(histories: Histories, declared: pa.ChunkedArray, location: str) -> np.ndarray:
    """The splits of a column, where no user's training events are later than his others."""
    names = declared.to_pylist()
    if unknown := [name for name in names if name not in SPLITS]:
        shown = "nothing" if unknown[0] is None else repr(unknown[0])
        raise UserError(
            f"{location}: {len(unknown):,} rows have the split {shown}: write train, validation or "
            "test into each"
        )
    split = np.array([SPLITS.index(name) for name in names], np.int8)
    same = histories.user[1:] == histories.user[:-1]
    leaks = int((same & (split[1:] < split[:-1])).sum())
    if leaks:
        raise UserError(
            f"{location}: of {leaks:,} users or more a training event is later than one of "
            "validation or test, so that the future would be learnt: split by time, as "
            "--config.data.split=temporal does"
        )
    return split


def counted(rejected: pa.Table) -> dict[str, int]:
    """How many rows were left out for each reason."""
    return dict(Counter(rejected["reason"].to_pylist()))
