"""A click log summed up by query, item and position, without the rows that do not count."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.data.cleaning import DIGEST, digest_of
from sie_jax.data.sources import click_log, click_model
from sie_jax.data.sources.click_log import FIELDS, NEEDED, RULES, Bots, Table
from sie_jax.errors import UserError
from sie_jax.tables.spool import CHUNK_ROWS, hash_partitions

# The share of impressions that may lie at positions which cannot be compared with the rest.
STRAY_IMPRESSIONS = 0.05

_ODD = np.uint64(0x9E3779B97F4A7C15)  # so that the same texts in another order differ
_COUNTS = ["impressions", "clicks", "carts", "purchases"]


class Log(NamedTuple):
    """What `aggregate` gives: the sums, in an order that does not depend on that of the log.

    cells: one row per query, item and position: `query` as `normalise_query` gives it, `item_id`,
      `position`, and the numbers of rows `impressions`, `clicks`, `carts`, `purchases`.
    queries: `query` and `text`, its most frequent spelling.
    titles: `item_id` and `text`, its most frequent title; no rows where the log has no titles.
    read: rows of the log. removed: rows that `cells` leaves out, by reason.
    repeated: rows of `cells` whose session, query, item and position an earlier row has.
    sessions, bot_sessions: how many there are, and how many of them were left out.
    """

    cells: pa.Table
    queries: pa.Table
    titles: pa.Table
    read: int
    removed: dict[str, int]
    repeated: int
    sessions: int
    bot_sessions: int


class Arrays(NamedTuple):
    """What `as_arrays` gives: the cells as arrays, and what their numbers stand for.

    cells: of click_model. positions `[K]`: the position that each k stands for.
    pairs: `query`, `item_id` of each p. stray: impressions at positions left out.
    """

    cells: click_model.Cells
    positions: np.ndarray
    pairs: pa.Table
    stray: int


def aggregate(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    maximum_position: int = 100,
    maximum_session_impressions: int = 1000,
    maximum_session_clicks: int = 100,
    maximum_click_rate: float = 0.5,
) -> Log:
    """The log at `path` summed up by query, item and position.

    A row is left out for the first of these reasons that holds:

        unreadable_line       not a row of its file (a CSV line of another length, bad JSON)
        missing_query         empty under `normalise_query`
        missing_item          null or blank
        impossible_position   not a whole number, or below 1
        impossible_event      click neither 0 nor 1; cart or purchase neither 0, 1 nor empty
        bot_impressions       its session has more than `maximum_session_impressions` rows
        bot_clicks            ... more than `maximum_session_clicks` clicks
        bot_click_rate        ... at least CLICK_RATE_IMPRESSIONS rows, and more than
                              `maximum_click_rate` of them clicked
        position_too_deep     beyond `maximum_position`

    A row without a session belongs to no bot, and repeats no other. A session's rows and clicks are
    counted over the whole log, so that the order and the parts of the log make no difference.

    Raises UserError as `clicks.read` does.
    """
    log = click_log.find(path, columns or {}, FIELDS, NEEDED)
    bots = Bots(maximum_session_impressions, maximum_session_clicks, maximum_click_rate)
    sessions = _sessions(log)
    found = bots.found(sessions)
    cells = _Sums(["query", "item_id", "position"], _COUNTS)
    queries = _Sums(["query", "text"], ["impressions"])
    titles = _Sums(["item_id", "text"], ["impressions"])
    removed = Counter[str]()
    read = zeros = 0
    example: dict[str, Any] = {}
    with hash_partitions(DIGEST) as shown:
        for batch, unreadable in log.batches():
            read += batch.num_rows + unreadable
            removed["unreadable_line"] += unreadable
            if not batch.num_rows:
                continue
            example = example or batch.slice(0, 1).to_pylist()[0]
            rows, reason = click_log.judged(batch, found, maximum_position)
            zeros += pc.sum(pc.equal(rows["position"], 0)).as_py() or 0
            removed.update({rule: int((reason == at).sum()) for at, rule in enumerate(RULES)})
            rows = rows.filter(pa.array(reason < 0))
            cells.add(rows)
            queries.add(_texts(rows, "query", "spelling"))
            if "title" in rows.column_names:
                named = _texts(rows, "item_id", "title")
                titles.add(named.filter(pc.not_equal(named["text"], "")))
            if "session" in rows.column_names:
                digests = _digests(rows.filter(pc.not_equal(rows["session"], "")))
                shown.add(digests["high"], digests)
        repeated = sum(len(part) - len(np.unique(part)) for part in shown)
    _check_positions(log, read, zeros)
    _check_used(path, read, removed, cells.table(), example)
    return Log(
        cells=cells.table().sort_by(
            [(key, "ascending") for key in ("query", "item_id", "position")]
        ),
        queries=_most_common(queries.table(), "query"),
        titles=_most_common(titles.table(), "item_id"),
        read=read,
        removed=dict(removed),
        repeated=repeated,
        sessions=sessions.num_rows,
        bot_sessions=found.num_rows,
    )


def as_arrays(log: Log, *, cart_value: float = 1.0, purchase_value: float = 2.0) -> Arrays:
    """The cells of a log as arrays for `click_model`.

    Positions that cannot be compared with the others (`click_model.components`) are left out where
    they hold at most STRAY_IMPRESSIONS of the impressions. An example is one deep position at which
    a single pair was shown. Where they hold more they stay in, and `click_model.fit` refuses the
    log.
    """
    table = log.cells
    pairs = table.group_by(["query", "item_id"], use_threads=False).aggregate([])
    starts = np.ones(table.num_rows, bool)
    query, item = table["query"].to_numpy(), table["item_id"].to_numpy()
    starts[1:] = (query[1:] != query[:-1]) | (item[1:] != item[:-1])
    pair = np.cumsum(starts) - 1
    positions, position = np.unique(table["position"].to_numpy(), return_inverse=True)
    impressions, clicks, carts, purchases = (
        table[name].to_numpy().astype(np.float64) for name in _COUNTS
    )
    value = clicks + cart_value * carts + purchase_value * purchases
    cells = click_model.Cells(pair, position, impressions, clicks, value)

    group = click_model.components(cells)
    share = np.bincount(group[position], impressions) / impressions.sum()
    main = share.argmax()
    if share[main] == 1 or share[main] < 1 - STRAY_IMPRESSIONS:
        return Arrays(cells, positions, pairs, stray=0)
    keep = group[position] == main
    kept_pairs, pair = np.unique(pair[keep], return_inverse=True)
    _, place = np.unique(position[keep], return_inverse=True)
    cells = click_model.Cells(pair, place, impressions[keep], clicks[keep], value[keep])
    return Arrays(
        cells,
        positions[group == main],
        pairs.take(pa.array(kept_pairs)),
        stray=int(impressions[~keep].sum()),
    )


class _Sums:
    """Sums of columns by key, held as an Arrow table that rows are added to.

    New rows are merged once they are as many as the keys, so that n rows cost O(n log n) and memory
    stays within a constant factor of the distinct keys.
    """

    def __init__(self, keys: list[str], sums: list[str]):
        self._keys, self._sums = keys, sums
        self._parts: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        self._parts.append(self._grouped(rows))
        waiting = sum(part.num_rows for part in self._parts[1:])
        if waiting > max(self._parts[0].num_rows, CHUNK_ROWS):
            self._parts = [self.table()]

    def table(self) -> pa.Table:
        """One row per key met, none where nothing was added."""
        if not self._parts:
            kinds = [
                *[
                    (key, pa.int64() if key == "position" else pa.large_string())
                    for key in self._keys
                ],
                *[(name, pa.int64()) for name in self._sums],
            ]
            return pa.schema(kinds).empty_table()
        return self._grouped(pa.concat_tables(self._parts))

    def _grouped(self, rows: pa.Table) -> pa.Table:
        grouped = rows.group_by(self._keys, use_threads=False).aggregate(
            [(name, "sum") for name in self._sums]
        )
        grouped = grouped.select([*self._keys, *[f"{name}_sum" for name in self._sums]])
        return grouped.rename_columns([*self._keys, *self._sums])


def _sessions(log: Table) -> pa.Table:
    """`session`, `impressions`, `clicks` of every session of the log."""
    sums = _Sums(["session"], ["impressions", "clicks"])
    if "session" in log.names:
        for batch, _ in log.only("session", "click", "cart", "purchase").batches():
            sums.add(click_log.of_sessions(batch))
    return sums.table()


def _digests(rows: pa.Table) -> np.ndarray:
    """128 bits of each row that are equal where session, query, item and position are."""
    digests = np.zeros(rows.num_rows, DIGEST)
    for name in ("session", "query", "item_id", "position"):
        encoded = rows[name].combine_chunks().dictionary_encode()
        known = [digest_of(str(value)) for value in encoded.dictionary.to_pylist()]
        found = np.array(known, DIGEST)[encoded.indices.to_numpy()]
        for half in DIGEST.names or ():
            digests[half] = digests[half] * _ODD + found[half]  # as integers of 64 bits wrap
    return digests


def _texts(rows: pa.Table, key: str, text: str) -> pa.Table:
    """`key`, `text` and `impressions` of every row."""
    names = [key, "text", "impressions"]
    return rows.select([key, text, "impressions"]).rename_columns(names)


def _most_common(counts: pa.Table, key: str) -> pa.Table:
    """`key`, `text`: of each key the text with the most impressions, the first of equals."""
    ordered = counts.sort_by(
        [(key, "ascending"), ("impressions", "descending"), ("text", "ascending")]
    )
    keys = ordered[key].to_numpy()
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return ordered.filter(pa.array(first)).select([key, "text"])


def _check_positions(log: Table, read: int, zeros: int) -> None:
    if read == 0:
        raise UserError(f"clicks: {log.path} has no rows: give a log with rows")
    if zeros > 0.01 * read:
        raise UserError(
            f"clicks: {zeros} of {read} rows have position 0 in column {log.names['position']!r}; "
            "positions count from 1: add 1 to all of them"
        )


def _check_used(
    path: str, read: int, removed: Mapping[str, int], cells: pa.Table, example: Mapping[str, Any]
) -> None:
    if not cells.num_rows:
        found = ", ".join(f"{rule} {count}" for rule, count in removed.items() if count)
        first = ", ".join(f"{field} {value!r}" for field, value in example.items())
        raise UserError(
            f"clicks: none of the {read} rows of {path} can be used: {found}; the first row has "
            f"{first or 'nothing readable'}"
        )
