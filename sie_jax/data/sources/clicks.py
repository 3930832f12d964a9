"""Search logs: clicks turned into graded query–item pairs, position bias taken out."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from sie_jax.data.schema import RAW_SCHEMA, REJECTED_SCHEMA, LabelScale, Source, normalise_query
from sie_jax.data.sources import click_model
from sie_jax.errors import UserError
from sie_jax.tables.spool import CHUNK_ROWS

# What a row of the log tells; the last four may be absent.
FIELDS = ("query", "item_id", "position", "click", "title", "session", "cart", "purchase")
NEEDED = FIELDS[:4]
# What a row of the catalogue tells; `text` may be absent.
ITEM_FIELDS = ("item_id", "title", "text")

BOT_RULES = ("bot_impressions", "bot_clicks", "bot_click_rate")
# Why a row of the log does not count, in the order in which the reasons are looked for.
RULES = (
    "unreadable_line",
    "missing_query",
    "missing_item",
    "impossible_position",
    "impossible_event",
    *BOT_RULES,
    "position_too_deep",
    "position_not_comparable",
    "too_little_evidence",
)
# A session's click rate says something from this many impressions on.
CLICK_RATE_IMPRESSIONS = 20
# The share of impressions that may lie at positions which cannot be compared with the rest.
STRAY_IMPRESSIONS = 0.05

_COUNTS = ["impressions", "clicks", "carts", "purchases"]


class Log(NamedTuple):
    """What `aggregate` gives: the log summed up, in an order that does not depend on its own.

    cells: one row per query, item and position: `query` as `normalise_query` gives it, `item_id`,
      `position`, and the numbers of rows `impressions`, `clicks`, `carts`, `purchases`.
    queries: `query`, `text`: how it was written most often. titles: `item_id`, `text`: likewise its
      title; empty where the log has none.
    read: rows of the log. removed: rows that `cells` leaves out, by reason.
    sessions, bot_sessions: how many there are, and how many of them were left out.
    """

    cells: pa.Table
    queries: pa.Table
    titles: pa.Table
    read: int
    removed: dict[str, int]
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


class ClickSummary(NamedTuple):
    """What became of the log.

    impressions_read = impressions_used + Σ impressions_removed.values().
    impressions_removed: rows by each of RULES, 0 included.
    sessions, bot_sessions: 0 where the log has no sessions.
    pairs, pairs_kept: query-item pairs seen, and those with enough evidence to be graded.
    clicks, clicks_compared: all that the position model saw, and those on pairs shown at more than
      one position; the propensities rest on the latter alone.
    positions: for each "position", "impressions", "clicks" and "propensity", first position first.
    iterations, converged: of the position model.
    """

    impressions_read: int
    impressions_used: int
    impressions_removed: dict[str, int]
    sessions: int
    bot_sessions: int
    pairs: int
    pairs_kept: int
    clicks: int
    clicks_compared: int
    positions: list[dict[str, float]]
    iterations: int
    converged: bool


class ClickLog(NamedTuple):
    """What `read` gives: the graded pairs, what became of the log, and every pair's evidence.

    evidence: one row per row of `source.table`, in its order: `example_id`, `impressions`,
      `examinations` (expected), `clicks`, `relevance`.
    """

    source: Source
    summary: ClickSummary
    evidence: pa.Table


def read(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    items: str = "",
    item_columns: Mapping[str, str] | None = None,
    minimum_impressions: int = 10,
    minimum_examinations: float = 1.0,
    maximum_position: int = 100,
    maximum_session_impressions: int = 1000,
    maximum_session_clicks: int = 100,
    maximum_click_rate: float = 0.5,
    cart_value: float = 1.0,
    purchase_value: float = 2.0,
    smoothing: float = 5.0,
    grades: int = 4,
) -> ClickLog:
    """A search log, one row per shown item, as graded pairs: one row per query and item.

    1. Rows that cannot be, and sessions that no person had, are left out (`aggregate`).
    2. What is left is summed up by query (under `normalise_query`), item and position.
    3. The position-based model tells how often each position is looked at (`click_model.fit`).
    4. A pair's relevance is its value over its expected examinations, smoothed
       (`click_model.relevance`). A row is worth 1 for the click, `cart_value` more for a cart and
       `purchase_value` more for a purchase.
    5. Pairs with enough evidence are graded "0" to "<grades - 1>" (`click_model.grade`).

    Memory grows with the distinct pairs and positions, and with the sessions where the log names
    them, not with the rows. A log with sessions is read twice.

    Args:
      path: a file or a folder of files, all of one layout: .csv, .tsv, .parquet, .jsonl (or
        .ndjson); of the text files also compressed as .gz.
      columns: which column holds a field of FIELDS, where it has another name. `title`, `session`,
        `cart` and `purchase` may be absent. `position` counts from 1; `click`, `cart` and
        `purchase` are 0 or 1 (or false, true), and an empty cart or purchase is 0. A row with a
        cart or a purchase counts as clicked.
      items: a catalogue in the same formats, one row per item, with `item_id`, `title` and perhaps
        `text`; its titles go before the log's. An item that it lacks keeps the log's title, or
        none, and then cleaning rejects the pair.
      item_columns: which column of the catalogue holds a field of ITEM_FIELDS.
      minimum_impressions: fewer, and a pair is not graded; >= 1.
      minimum_examinations: the same for its expected examinations, Σ_k impressions_k θ_k; >= 0.
      maximum_position: rows beyond it are left out; >= 2.
      maximum_session_impressions, maximum_session_clicks, maximum_click_rate: a session beyond one
        of them is no person's (see `aggregate`).
      cart_value, purchase_value: >= 0.
      smoothing: examinations that went as expected, added to every pair; > 0.
      grades: at least 2.

    Returns:
      ClickLog. Its source's table has RAW_SCHEMA and is sorted by query and item; `example_id` is
      "<query_id>:<item_id>", `query_id` is "q" and 16 hexadecimal digits of the query's BLAKE2b
      hash, `query` and `title` are as written most often, `split` is "", `truth` null. The scale's
      gains are grade / (grades - 1). `unreadable` holds the pairs with too little evidence.

    Raises:
      UserError: a file or a needed column is missing or cannot be read, an argument is out of its
        range, positions count from 0, no row is usable, there is no click, position bias cannot be
        told from relevance (see `click_model.fit`), or no pair has enough evidence.
    """
    _check_limits(
        minimum_impressions=(minimum_impressions, 1),
        minimum_examinations=(minimum_examinations, 0),
        cart_value=(cart_value, 0),
        purchase_value=(purchase_value, 0),
        grades=(grades, 2),
    )
    if not smoothing > 0:
        raise UserError(f"clicks: smoothing is {smoothing}; give more than 0")
    log = aggregate(
        path,
        columns=columns,
        maximum_position=maximum_position,
        maximum_session_impressions=maximum_session_impressions,
        maximum_session_clicks=maximum_session_clicks,
        maximum_click_rate=maximum_click_rate,
    )
    catalogue = _catalogue(items, item_columns or {}, log) if items else None
    found = as_arrays(log, cart_value=cart_value, purchase_value=purchase_value)
    cells = found.cells
    model = click_model.fit(cells)
    relevance = click_model.relevance(cells, model.propensities, smoothing=smoothing)
    enough = (relevance.impressions >= minimum_impressions) & (
        relevance.examinations >= minimum_examinations
    )
    if not enough.any():
        raise UserError(
            f"clicks: no query-item pair of {path} has {minimum_impressions} impressions and "
            f"{minimum_examinations:g} expected examinations; the most that one has is "
            f"{relevance.impressions.max():.0f} and {relevance.examinations.max():.2g}: lower "
            "minimum_impressions or minimum_examinations, or give a longer log"
        )
    grade = click_model.grade(relevance.estimate[enough], grades=grades)

    label = np.full(len(enough), None, dtype=object)
    label[enough] = [str(value) for value in grade.tolist()]
    table = _pair_table(found.pairs, label, log, catalogue)
    rejected = table.filter(pa.array(~enough)).append_column(
        "reason", pa.array(["too_little_evidence"] * int((~enough).sum()), pa.string())
    )
    table = table.filter(pa.array(enough))
    source = Source(
        table=table,
        scale=LabelScale(
            names=tuple(str(value) for value in range(grades)),
            gains=tuple(value / (grades - 1) for value in range(grades)),
        ),
        location=str(path),
        unreadable=rejected.cast(REJECTED_SCHEMA),
    )
    return ClickLog(
        source,
        _summary(log, found, model, relevance, enough),
        _evidence_table(log, found, relevance, enough, table["example_id"]),
    )


def aggregate(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    maximum_position: int = 100,
    maximum_session_impressions: int = 1000,
    maximum_session_clicks: int = 100,
    maximum_click_rate: float = 0.5,
) -> Log:
    """The log summed up by query, item and position, without the rows that do not count.

    A row is left out for the first of these that holds:

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

    Rows without a session are nobody's, and kept. A session's rows and clicks are counted over the
    whole log, so that the order and the parts of the log make no difference.

    Raises UserError as `read` does.
    """
    _check_limits(
        maximum_position=(maximum_position, 2),
        maximum_session_impressions=(maximum_session_impressions, 1),
        maximum_session_clicks=(maximum_session_clicks, 1),
    )
    if not 0 < maximum_click_rate <= 1:
        raise UserError(
            f"clicks: maximum_click_rate is {maximum_click_rate}; give a share above 0, at most 1"
        )
    names = _mapping(path, columns or {}, FIELDS, NEEDED)
    bots = pa.table({"session": pa.array([], pa.large_string()), "rule": pa.array([], pa.int8())})
    sessions = 0
    if "session" in names:
        of_session = _sessions(path, names)
        sessions = of_session.num_rows
        bots = _bots(
            of_session,
            maximum_session_impressions,
            maximum_session_clicks,
            maximum_click_rate,
        )

    cells = _Sums(["query", "item_id", "position"], _COUNTS)
    queries = _Sums(["query", "text"], ["impressions"])
    titles = _Sums(["item_id", "text"], ["impressions"])
    removed = Counter[str]()
    read = zeros = 0
    example: dict[str, Any] = {}
    for batch, unreadable in _batches(path, names):
        read += batch.num_rows + unreadable
        removed["unreadable_line"] += unreadable
        if not batch.num_rows:
            continue
        example = example or batch.slice(0, 1).to_pylist()[0]
        rows, reason = _judged(batch, bots, maximum_position)
        zeros += pc.sum(pc.equal(rows["position"], 0)).as_py() or 0
        removed.update({rule: int((reason == at).sum()) for at, rule in enumerate(RULES)})
        rows = rows.filter(pa.array(reason < 0))
        cells.add(rows)
        queries.add(
            rows.select(["query", "spelling", "impressions"]).rename_columns(
                ["query", "text", "impressions"]
            )
        )
        if "title" in names:
            named = rows.select(["item_id", "title", "impressions"]).rename_columns(
                ["item_id", "text", "impressions"]
            )
            titles.add(named.filter(pc.not_equal(named["text"], "")))
    _check_rows(path, names, read, zeros, removed, cells.table(), example)
    return Log(
        cells=cells.table().sort_by(
            [(key, "ascending") for key in ("query", "item_id", "position")]
        ),
        queries=_most_common(queries.table(), "query"),
        titles=_most_common(titles.table(), "item_id"),
        read=read,
        removed=dict(removed),
        sessions=sessions,
        bot_sessions=bots.num_rows,
    )


def as_arrays(log: Log, *, cart_value: float = 1.0, purchase_value: float = 2.0) -> Arrays:
    """The cells of a log as arrays for `click_model`.

    Positions that cannot be compared with the others (`click_model.components`) are left out where
    they hold at most STRAY_IMPRESSIONS of the impressions, such as one deep position that a single
    pair was seen at. Where they hold more they stay in, and `click_model.fit` will refuse the log.
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
    cells = click_model.Cells(
        pair, _dense(position[keep]), impressions[keep], clicks[keep], value[keep]
    )
    return Arrays(
        cells,
        positions[group == main],
        pairs.take(pa.array(kept_pairs)),
        stray=int(impressions[~keep].sum()),
    )


class _Sums:
    """Sums of columns by key, held as an Arrow table that rows are added to.

    What comes in waits until it is as much as what is there, so that n rows cost O(n log n) and
    memory stays within a constant of the distinct keys.
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


def _judged(batch: pa.Table, bots: pa.Table, maximum_position: int) -> tuple[pa.Table, np.ndarray]:
    """The batch with its fields read, and of each row the place in RULES of its fault, or -1."""
    reason = np.full(batch.num_rows, -1)

    def blame(rule: str, mask: pa.ChunkedArray) -> None:
        guilty = pc.fill_null(mask, True).to_numpy() & (reason < 0)
        reason[guilty] = RULES.index(rule)

    spelling = _text(batch, "query")
    query = _normalised(spelling)
    item = _text(batch, "item_id")
    position = _whole(batch["position"])
    events = {name: _flag(batch, name) for name in ("click", "cart", "purchase")}
    blame("missing_query", pc.equal(query, ""))
    blame("missing_item", pc.equal(item, ""))
    blame("impossible_position", pc.less(position, 1))
    for event in events.values():
        blame("impossible_event", pc.is_null(event))
    if "session" in batch.column_names:
        rule = bots["rule"].take(pc.index_in(_text(batch, "session"), bots["session"]))
        for at, name in enumerate(BOT_RULES):
            blame(name, pc.fill_null(pc.equal(rule, at), False))
    blame("position_too_deep", pc.greater(position, maximum_position))

    clicked = pc.max_element_wise(events["click"], events["cart"], events["purchase"])
    columns = {
        "query": query,
        "spelling": spelling,
        "item_id": item,
        "position": position,
        "impressions": pa.chunked_array([np.ones(batch.num_rows, np.int64)]),
        "clicks": clicked,
        "carts": events["cart"],
        "purchases": events["purchase"],
    }
    if "title" in batch.column_names:
        columns["title"] = _text(batch, "title")
    return pa.table(columns), reason


def _sessions(path: str, names: Mapping[str, str]) -> pa.Table:
    """`session`, `impressions`, `clicks` of every session of the log."""
    sums = _Sums(["session"], ["impressions", "clicks"])
    events = ("click", "cart", "purchase")
    wanted = {field: names[field] for field in ("session", *events) if field in names}
    for batch, _ in _batches(path, wanted):
        clicked = pc.max_element_wise(*[_flag(batch, name) for name in events])
        rows = pa.table(
            {
                "session": _text(batch, "session"),
                "impressions": pa.chunked_array([np.ones(batch.num_rows, np.int64)]),
                "clicks": pc.fill_null(clicked, 0),
            }
        )
        sums.add(rows.filter(pc.not_equal(rows["session"], "")))
    return sums.table()


def _bots(
    sessions: pa.Table, maximum_impressions: int, maximum_clicks: int, maximum_rate: float
) -> pa.Table:
    """`session` and `rule`, the place in BOT_RULES, of the sessions that no person had."""
    impressions, clicks = sessions["impressions"].to_numpy(), sessions["clicks"].to_numpy()
    rules = [
        impressions > maximum_impressions,
        clicks > maximum_clicks,
        (impressions >= CLICK_RATE_IMPRESSIONS) & (clicks > maximum_rate * impressions),
    ]
    rule = np.select(rules, range(len(rules)), default=-1).astype(np.int8)
    table = pa.table({"session": sessions["session"], "rule": pa.array(rule)})
    return table.filter(pa.array(rule >= 0))


def _text(batch: pa.Table, field: str) -> pa.ChunkedArray:
    """The column as text without space around it; "" where it is null."""
    return pc.fill_null(pc.utf8_trim_whitespace(_strings(batch[field])), "")


def _strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.large_string())
    except pa.ArrowException as error:
        raise UserError(
            f"clicks: a column of type {column.type} cannot be read as text; give text or numbers"
        ) from error


def _normalised(spelling: pa.ChunkedArray) -> pa.ChunkedArray:
    """`normalise_query` of every text, called once for each different one of a chunk."""
    chunks = []
    for chunk in spelling.chunks:
        encoded = chunk.dictionary_encode()
        texts = [normalise_query(text) for text in encoded.dictionary.to_pylist()]
        chunks.append(pa.array(texts, pa.large_string()).take(encoded.indices))
    return pa.chunked_array(chunks, pa.large_string())


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as int64; null where it is no whole number, and where it is null."""
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return column.cast(pa.int64())
    # 7.0 is how a column of whole numbers is written by what knows no missing integers.
    texts = pc.replace_substring_regex(_strings(column), r"^\s*(-?\d{1,15})(\.0*)?\s*$", r"\1")
    numbers = pc.match_substring_regex(texts, r"^-?\d{1,15}$")
    return pc.if_else(numbers, texts, pa.scalar(None, pa.large_string())).cast(pa.int64())


def _flag(batch: pa.Table, field: str) -> pa.ChunkedArray:
    """0 or 1 as int64, null where it is neither. An optional field is 0 where null or absent."""
    if field not in batch.column_names:
        return pa.chunked_array([np.zeros(batch.num_rows, np.int64)])
    column = batch[field]
    if not (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
        column = pc.utf8_lower(pc.utf8_trim_whitespace(_strings(column)))
        for word, digit in (("true", "1"), ("false", "0")):
            column = pc.if_else(pc.equal(column, word), digit, column)
        if field not in NEEDED:
            column = pc.if_else(pc.equal(column, ""), "0", column)
    numbers = _whole(column)
    if field not in NEEDED:
        numbers = pc.if_else(pc.is_null(column), 0, numbers)
    possible = pc.and_(pc.greater_equal(numbers, 0), pc.less_equal(numbers, 1))
    return pc.if_else(possible, numbers, pa.scalar(None, pa.int64()))


def _most_common(counts: pa.Table, key: str) -> pa.Table:
    """`key`, `text`: of each key the text with the most impressions, the first of equals."""
    ordered = counts.sort_by(
        [(key, "ascending"), ("impressions", "descending"), ("text", "ascending")]
    )
    keys = ordered[key].to_numpy()
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return ordered.filter(pa.array(first)).select([key, "text"])


def _check_rows(
    path: str,
    names: Mapping[str, str],
    read: int,
    zeros: int,
    removed: Mapping[str, int],
    cells: pa.Table,
    example: Mapping[str, Any],
) -> None:
    if read == 0:
        raise UserError(f"clicks: {path} has no rows")
    if zeros > 0.01 * read:
        raise UserError(
            f"clicks: {zeros} of {read} rows have position 0 in column {names['position']!r}; "
            "positions count from 1: add 1 to all of them"
        )
    if not cells.num_rows:
        found = ", ".join(f"{rule} {count}" for rule, count in removed.items() if count)
        first = ", ".join(f"{field} {value!r}" for field, value in example.items())
        raise UserError(
            f"clicks: none of the {read} rows of {path} can be used: {found}; the first row has "
            f"{first or 'nothing readable'}"
        )


def _check_limits(**limits: tuple[float, float]) -> None:
    for name, (value, lowest) in limits.items():
        if not value >= lowest:
            raise UserError(f"clicks: {name} is {value}; give at least {lowest}")


def _dense(values: np.ndarray) -> np.ndarray:
    """Equal values as equal numbers 0..n-1."""
    return np.unique(values, return_inverse=True)[1]


def _catalogue(path: str, columns: Mapping[str, str], log: Log) -> dict[str, tuple[str, str]]:
    """Title and text of the items of the log that the catalogue has; the first row of each."""
    names = _mapping(path, columns, ITEM_FIELDS, ITEM_FIELDS[:2])
    wanted = pc.unique(log.cells["item_id"])
    found: dict[str, tuple[str, str]] = {}
    for batch, _ in _batches(path, names):
        texts = pa.table({field: _text(batch, field) for field in names})
        texts = texts.filter(pc.is_in(texts["item_id"], wanted))
        for row in texts.to_pylist():
            found.setdefault(row["item_id"], (row["title"], row.get("text", "")))
    return found


def _pair_table(
    pairs: pa.Table,
    label: np.ndarray,
    log: Log,
    catalogue: Mapping[str, tuple[str, str]] | None,
) -> pa.Table:
    """The pairs as rows of RAW_SCHEMA."""
    spelling = dict(
        zip(*(log.queries[name].to_pylist() for name in ("query", "text")), strict=True)
    )
    titles = dict(zip(*(log.titles[name].to_pylist() for name in ("item_id", "text")), strict=True))
    queries, items = pairs["query"].to_pylist(), pairs["item_id"].to_pylist()
    ids = {query: _query_id(query) for query in spelling}
    described = catalogue or {}
    texts = [described.get(item, ("", "")) for item in items]
    columns = {
        "example_id": [f"{ids[query]}:{item}" for query, item in zip(queries, items, strict=True)],
        "query_id": [ids[query] for query in queries],
        "query": [spelling[query] for query in queries],
        "item_id": items,
        "title": [title or titles.get(item) for (title, _), item in zip(texts, items, strict=True)],
        "text": [text for _, text in texts],
        "label": label.tolist(),
        "split": [""] * len(items),
        "truth": [None] * len(items),
    }
    return pa.table(columns, schema=RAW_SCHEMA)


def _query_id(query: str) -> str:
    return "q" + hashlib.blake2b(query.encode(), digest_size=8).hexdigest()


def _summary(
    log: Log,
    found: Arrays,
    model: click_model.PositionModel,
    relevance: click_model.Relevance,
    enough: np.ndarray,
) -> ClickSummary:
    cells = found.cells
    clicks = np.bincount(cells.pair, cells.clicks)
    several = np.bincount(cells.pair) > 1
    at_position = {
        "position": found.positions,
        "impressions": np.bincount(cells.position, cells.impressions).astype(int),
        "clicks": np.bincount(cells.position, cells.clicks).astype(int),
        "propensity": model.propensities,
    }
    removed = {rule: log.removed.get(rule, 0) for rule in RULES}
    removed["position_not_comparable"] = found.stray
    removed["too_little_evidence"] = int(relevance.impressions[~enough].sum())
    used = int(relevance.impressions[enough].sum())
    if used + sum(removed.values()) != log.read:
        raise AssertionError(f"clicks lost rows: read {log.read}, used {used}, removed {removed}")
    return ClickSummary(
        impressions_read=log.read,
        impressions_used=used,
        impressions_removed=removed,
        sessions=log.sessions,
        bot_sessions=log.bot_sessions,
        pairs=len(enough),
        pairs_kept=int(enough.sum()),
        clicks=int(clicks.sum()),
        clicks_compared=int(clicks[several].sum()),
        positions=[
            dict(zip(at_position, values, strict=True))
            for values in zip(*(column.tolist() for column in at_position.values()), strict=True)
        ],
        iterations=len(model.log_likelihoods),
        converged=model.converged,
    )


def _evidence_table(
    log: Log,
    found: Arrays,
    relevance: click_model.Relevance,
    enough: np.ndarray,
    example_id: pa.ChunkedArray,
) -> pa.Table:
    return pa.table(
        {
            "example_id": example_id,
            "impressions": relevance.impressions[enough].astype(np.int64),
            "examinations": relevance.examinations[enough],
            "clicks": np.bincount(found.cells.pair, found.cells.clicks)[enough].astype(np.int64),
            "relevance": relevance.estimate[enough],
        }
    )


# Reading of files. `_columns` and `_batches` are all that the above uses of it.

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LINES = (".jsonl", ".ndjson")
_BLOCK_BYTES = 1 << 24


def _mapping(
    path: str, columns: Mapping[str, str], fields: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, str]:
    """The column of every field there is: the one named, else the one with the field's name."""
    there = _columns(path)
    if not there:
        raise UserError(f"clicks: {_files(path)[0]} is empty: give a file with columns and rows")
    held = ", ".join(there)
    for field, column in columns.items():
        if field not in fields:
            raise UserError(f"clicks: there is no field {field!r}; give {', '.join(fields)}")
        if column and column not in there:
            raise UserError(f"clicks: {path} has no column {column!r} for {field}; it has {held}")
    names = {field: columns.get(field) or field for field in fields}
    for field in needed:
        if names[field] not in there:
            raise UserError(
                f"clicks: {path} has no column {field!r}; it has {held}: name the one that holds "
                f"it (columns.{field}=...)"
            )
    return {field: column for field, column in names.items() if column in there}


def _columns(path: str) -> list[str]:
    """The columns of the first file."""
    file = _files(path)[0]
    kind = _kind(file)
    try:
        if kind == ".parquet":
            return list(pq.read_schema(file).names)
        with pa.input_stream(file, compression="detect") as raw:
            lines = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            if kind in _LINES:
                names: dict[str, None] = {}
                for line in islice(lines, 1000):
                    names.update(dict.fromkeys(_parsed(line) or {}))
                return list(names)
            return next(csv.reader(lines, delimiter=_DELIMITERS[kind]), [])
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise _unreadable(file, error) from error


def _batches(path: str, names: Mapping[str, str]) -> Iterator[tuple[pa.Table, int]]:
    """The rows of all files piece by piece, as columns named by field, and the lines skipped."""
    for file in _files(path):
        kind = _kind(file)
        try:
            if kind == ".parquet":
                yield from _parquet_batches(file, names)
            elif kind in _LINES:
                yield from _json_batches(file, names)
            else:
                yield from _delimited_batches(file, names, _DELIMITERS[kind])
        except (pa.ArrowException, OSError, UnicodeError, KeyError) as error:
            raise _unreadable(file, error) from error


def _parquet_batches(file: Path, names: Mapping[str, str]) -> Iterator[tuple[pa.Table, int]]:
    with pq.ParquetFile(file) as parquet:
        lacking = [column for column in names.values() if column not in parquet.schema_arrow.names]
        if lacking:
            raise UserError(f"clicks: {file} lacks the column {', '.join(lacking)}")
        for batch in parquet.iter_batches(CHUNK_ROWS, columns=list(dict.fromkeys(names.values()))):
            yield pa.table({field: _decoded(batch[column]) for field, column in names.items()}), 0


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _delimited_batches(
    file: Path, names: Mapping[str, str], delimiter: str
) -> Iterator[tuple[pa.Table, int]]:
    skipped = 0

    def skip(row: pa_csv.InvalidRow) -> str:
        nonlocal skipped
        skipped += 1
        return "skip"

    columns = list(dict.fromkeys(names.values()))
    with (
        pa.input_stream(file, compression="detect") as stream,
        pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
            ),
        ) as reader,
    ):
        for batch in reader:
            yield pa.table({field: batch[column] for field, column in names.items()}), skipped
            skipped = 0
    if skipped:
        yield pa.table({field: pa.array([], pa.string()) for field in names}), skipped


def _json_batches(file: Path, names: Mapping[str, str]) -> Iterator[tuple[pa.Table, int]]:
    with (
        pa.input_stream(file, compression="detect") as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig") as lines,
    ):
        while chunk := list(islice(lines, CHUNK_ROWS)):
            found = [_parsed(line) for line in chunk if line.strip()]
            rows = [row for row in found if row is not None]
            values = {
                field: [None if row.get(name) is None else str(row[name]) for row in rows]
                for field, name in names.items()
            }
            table = {field: pa.array(texts, pa.string()) for field, texts in values.items()}
            yield pa.table(table), len(found) - len(rows)


def _parsed(line: str) -> dict[str, Any] | None:
    """The object that a line of JSON holds, None where it holds none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _files(path: str) -> list[Path]:
    """The file, or the files of the folder in the order of their names."""
    place = Path(path)
    if not path or not place.exists():
        raise UserError(f"clicks: {path!r} does not exist; give the log's file or folder")
    if place.is_file():
        return [place]
    files = sorted(file for file in place.iterdir() if file.is_file() and file.name[0] not in "._")
    if not files:
        raise UserError(f"clicks: the folder {path} holds no files")
    return files


def _kind(file: Path) -> str:
    kind = Path(file.name.removesuffix(".gz")).suffix.lower()
    known = [*_DELIMITERS, *_LINES, ".parquet"]
    if kind not in known:
        raise UserError(f"clicks: {file} is of no known kind; give {', '.join(known)}")
    return kind


def _unreadable(file: Path, error: Exception) -> UserError:
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"clicks: {file} cannot be read: {first_line}")
