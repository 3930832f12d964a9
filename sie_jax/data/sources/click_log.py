"""The rows of a click log as columns by field, and the reason why a row does not count."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.data import readers
from sie_jax.data.readers import files, parquet
from sie_jax.data.readers.records import Wanted, without
from sie_jax.data.schema import normalise_query
from sie_jax.errors import UserError
from sie_jax.tables.spool import CHUNK_ROWS

# What a row of the log holds; the last four may be absent.
FIELDS = ("query", "item_id", "position", "click", "title", "session", "cart", "purchase")
NEEDED = FIELDS[:4]

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
_HEADER_LINES = 1000  # of JSON lines, in which a field occurs that the log has


class Table(NamedTuple):
    """A log: its files, and the columns that hold its fields.

    path: as the user gave it. names: field → column, of the fields that there are.
    """

    path: str
    names: dict[str, str]

    def only(self, *fields: str) -> "Table":
        """The same files with no other fields."""
        return Table(self.path, {one: self.names[one] for one in fields if one in self.names})

    def batches(self) -> Iterator[tuple[pa.Table, int]]:
        """The rows piece by piece as columns named by field, and how many lines are not rows.

        Raises UserError where a file cannot be read, is not UTF-8 or lacks a column.
        """
        wanted = Wanted(
            tuple(dict.fromkeys(self.names.values())),
            "give files that all have the same columns",
            optional=tuple(self.names[one] for one in self.names if one not in NEEDED),
        )
        for file in files.find(self.path):
            for columns, broken in readers.columns(file, wanted, CHUNK_ROWS):
                for record in broken:
                    if record.reason == "not_utf8":
                        raise UserError(
                            f"{file} cannot be read: line {record.line} is not UTF-8: "
                            "convert the file to UTF-8"
                        )
                named = {field: columns[name] for field, name in self.names.items()}
                yield pa.table(named), len(broken)


def find(
    path: str, columns: Mapping[str, str], fields: tuple[str, ...], needed: tuple[str, ...]
) -> Table:
    """The table at `path`, with the column of every field: the named one, else that of its name.

    Raises UserError where a column that is named or needed is not there.
    """
    parts = files.find(path)
    there = readers.column_names(parts, _HEADER_LINES)
    if not there:
        raise UserError(f"{parts[0]} is empty: give a file with columns and rows")
    held = ", ".join(there)
    for field, column in columns.items():
        if field not in fields:
            raise UserError(f"clicks: there is no field {field!r}: give {', '.join(fields)}")
        if column not in ("", field) and column not in there:
            raise UserError(
                f"clicks: {path} has no column {column!r} for {field}; it has {held}: "
                "name one of these"
            )
    names = {field: columns.get(field) or field for field in fields}
    if lacking := [field for field in needed if names[field] not in there]:
        raise UserError(
            f"clicks: {path} {without(lacking)}; it has {held}: name the one that holds it "
            f"({', '.join(f'columns.{field}=...' for field in lacking)})"
        )
    return Table(path, {field: column for field, column in names.items() if column in there})


class Bots(NamedTuple):
    """From where on a session is not a person's.

    A session is a bot's with more rows or clicks than these, and with at least
    CLICK_RATE_IMPRESSIONS rows of which a larger share than `click_rate` is clicked.
    """

    impressions: int
    clicks: int
    click_rate: float

    def found(self, sessions: pa.Table) -> pa.Table:
        """`session` and `rule`, a place in BOT_RULES, of the sessions of bots.

        sessions: `session`, `impressions`, `clicks`.
        """
        impressions, clicks = sessions["impressions"].to_numpy(), sessions["clicks"].to_numpy()
        rules = [
            impressions > self.impressions,
            clicks > self.clicks,
            (impressions >= CLICK_RATE_IMPRESSIONS) & (clicks > self.click_rate * impressions),
        ]
        rule = np.select(rules, range(len(rules)), default=-1).astype(np.int8)
        table = pa.table({"session": sessions["session"], "rule": pa.array(rule)})
        return table.filter(pa.array(rule >= 0))


def judged(batch: pa.Table, bots: pa.Table, maximum_position: int) -> tuple[pa.Table, np.ndarray]:
    """The batch with its fields read, and of each row the place in RULES of its fault, or -1.

    The columns are `query` as `normalise_query` gives it, `spelling`, `item_id`, `position`,
    `impressions` (1), `clicks`, `carts`, `purchases`, and `title` and `session` where the log has
    them.
    """
    reason = np.full(batch.num_rows, -1)

    def blame(rule: str, mask: pa.ChunkedArray) -> None:
        guilty = pc.fill_null(mask, True).to_numpy() & (reason < 0)
        reason[guilty] = RULES.index(rule)

    spelling = text(batch, "query")
    query = _normalised(spelling)
    item = text(batch, "item_id")
    position = _whole(batch["position"])
    events = {name: _flag(batch, name) for name in ("click", "cart", "purchase")}
    blame("missing_query", pc.equal(query, ""))
    blame("missing_item", pc.equal(item, ""))
    blame("impossible_position", pc.less(position, 1))
    for event in events.values():
        blame("impossible_event", pc.is_null(event))
    if "session" in batch.column_names:
        rule = bots["rule"].take(pc.index_in(text(batch, "session"), bots["session"]))
        for at, name in enumerate(BOT_RULES):
            blame(name, pc.fill_null(pc.equal(rule, at), False))
    blame("position_too_deep", pc.greater(position, maximum_position))

    clicked = pc.max_element_wise(events["click"], events["cart"], events["purchase"])
    columns = {
        "query": query,
        "spelling": spelling,
        "item_id": item,
        "position": position,
        "impressions": _ones(batch),
        "clicks": clicked,
        "carts": events["cart"],
        "purchases": events["purchase"],
    }
    for name in ("title", "session"):
        if name in batch.column_names:
            columns[name] = text(batch, name)
    return pa.table(columns), reason


def of_sessions(batch: pa.Table) -> pa.Table:
    """`session`, `impressions` (1) and `clicks` of the rows of a batch that name a session."""
    clicked = pc.max_element_wise(*[_flag(batch, name) for name in ("click", "cart", "purchase")])
    rows = pa.table(
        {
            "session": text(batch, "session"),
            "impressions": _ones(batch),
            "clicks": pc.fill_null(clicked, 0),
        }
    )
    return rows.filter(pc.not_equal(rows["session"], ""))


def text(batch: pa.Table, field: str) -> pa.ChunkedArray:
    """The column as text without space around it; "" where it is null."""
    return pc.fill_null(pc.utf8_trim_whitespace(_strings(batch[field])), "")


def _ones(batch: pa.Table) -> pa.ChunkedArray:
    return pa.chunked_array([np.ones(batch.num_rows, np.int64)])


def _strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return parquet.texts(column)
    except pa.ArrowException as error:
        raise UserError(
            f"clicks: a column of type {column.type} cannot be read as text: give text or numbers"
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
