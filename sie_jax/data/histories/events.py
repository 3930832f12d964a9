"""Events of users and items from a team's own files: who met what, when, and how it went."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.data import readers
from sie_jax.data.readers import files, parquet
from sie_jax.data.readers.records import FIXES, Record, Wanted, number, rejected
from sie_jax.data.schema import REJECTED_SCHEMA
from sie_jax.errors import UserError
from sie_jax.tables.spool import CHUNK_ROWS

SCHEMA = pa.schema(
    [
        ("user", pa.large_string()),
        ("item", pa.large_string()),
        ("time", pa.int64()),
        ("event", pa.large_string()),
        ("value", pa.float64()),
        ("text", pa.large_string()),
        ("basket", pa.large_string()),
        ("split", pa.large_string()),
    ]
)
"""Of events. time: microseconds since 1970 in UTC, or the place in the order where there is none.
What the source does not have is null."""

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Microseconds of a time that is a number, by its unit."""
FIX = "name columns that are there with --config.data.columns.FIELD=COLUMN"
FLAG = "--config.data.columns."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LINES = (".txt",)


@dataclasses.dataclass(slots=True, kw_only=True)
class EventColumnsConfig:
    """The names of a table's columns; empty where it has none."""

    user: str = "user"  # the column with the user's id
    item: str = "item"  # the item's id
    time: str = "time"  # when: ISO 8601, or a number in data.time_unit; empty: the rows' order
    event: str = ""  # what happened, such as view or purchase; empty: all events are alike
    value: str = ""  # a number such as a quantity: below 0 the event is a return
    text: str = ""  # the item's text, where the table has it in every row
    basket: str = ""  # what events belong together, such as the invoice; empty: by time
    split: str = ""  # train, validation or test; empty: as data.split says


class Events(NamedTuple):
    """What was read. table: of SCHEMA. unreadable: of REJECTED_SCHEMA. location: for messages."""

    table: pa.Table
    unreadable: pa.Table
    location: str


def read_table(path: str, columns: EventColumnsConfig, *, time_unit: str) -> Events:
    """The events of a table: CSV, TSV, JSON lines or Parquet, one file or a folder of its parts.

    White space around ids is cut. A time is ISO 8601, or a number in `time_unit`. Without a column
    of times the rows are in the order of time.

    What is left out, with the reason: `no_user`, `no_item`, `no_time`, `unparsable_time`,
    `value_not_a_number`, and records that are not rows.

    Raises:
      UserError: the path or a column is wrong, a file cannot be read as a whole, or some times have
        a zone and others have none, so that their order is not known.
    """
    named = dataclasses.asdict(columns)
    needed = ("user", "item")
    for field in needed:
        if not named[field]:
            raise UserError(f"data.columns.{field} is empty: name the column that holds it")
    fields = {field: name for field, name in named.items() if name}
    wanted = Wanted(
        tuple(fields.values()), FIX, flags={FLAG + field: (name,) for field, name in fields.items()}
    )
    times, tables, left_out = _Times(path, columns.time, time_unit), [], []
    first = 0
    for file in files.find(path):
        for piece, broken in readers.columns(file, wanted, CHUNK_ROWS):
            left_out += [rejected(file, record) for record in broken]
            table, refused = _events(piece, fields, times, first)
            tables.append(table)
            left_out += [
                {"example_id": f"{file.name}:{first + row}", "text": text, "reason": reason}
                for row, text, reason in refused
            ]
            first += piece.num_rows
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    if not table.num_rows:
        raise UserError(_nothing(path, left_out))
    return Events(table, pa.Table.from_pylist(left_out, schema=REJECTED_SCHEMA), path)


def read_lines(path: str) -> Events:
    """The events of lines `user item item …`, separated by blanks, a user's items in their order.

    It is the form in which the 5-core Amazon reviews of S3-Rec and its successors are handed on. A
    line of fewer than two words is left out as `unparsable_line`; so is one whose user came before.
    """
    users, items, counts, left_out = list[str](), list[str](), list[int](), []
    seen = set[str]()
    for file in files.find(path, _LINES):
        for line_number, line in enumerate(files.lines(file), 1):
            words = line.split()
            if not words:
                continue
            if len(words) < 2 or words[0] in seen:
                record = Record(line_number, {}, "unparsable_line", line.rstrip())
                left_out.append(rejected(file, record))
                continue
            seen.add(words[0])
            users.append(words[0])
            items += words[1:]
            counts.append(len(words) - 1)
    if not items:
        raise UserError(_nothing(path, left_out))
    columns: dict[str, Any] = {
        "user": np.repeat(np.array(users, object), counts),
        "item": items,
        "time": np.concatenate([np.arange(count) for count in counts]),
    }
    return Events(of_columns(columns), pa.Table.from_pylist(left_out, schema=REJECTED_SCHEMA), path)


def of_columns(columns: Mapping[str, Any]) -> pa.Table:
    """A table of SCHEMA of some of its columns, the others null."""
    rows = len(columns["user"])
    return pa.table(
        [
            pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(rows, field.type)
            for field in SCHEMA
        ],
        schema=SCHEMA,
    )


def _nothing(path: str, left_out: Sequence[Mapping[str, Any]]) -> str:
    reasons = Counter(row["reason"] for row in left_out).most_common()
    found = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    if not left_out:
        return f"{path} has no events: give a table with a header and rows"
    fix = FIXES.get(reasons[0][0], "mend them, or name other columns")
    return f"{path} has no event that can be used ({found}): {fix}"


def _events(
    piece: pa.Table, fields: Mapping[str, str], times: "_Times", first: int
) -> tuple[pa.Table, list[tuple[int, str, str]]]:
    """The rows of a piece as events, and row, text and reason of each that is none."""
    texts = {
        field: pc.utf8_trim_whitespace(parquet.texts(piece[name]))
        for field, name in fields.items()
        if field not in ("time", "value")
    }
    rows = piece.num_rows
    reasons = np.full(rows, "", object)
    columns: dict[str, Any] = {}
    for field in SCHEMA.names:
        if field in texts:
            empty = pc.equal(texts[field], "").fill_null(True)
            columns[field] = pc.if_else(empty, pa.scalar(None, pa.large_string()), texts[field])
    for field in ("item", "user"):
        reasons[columns[field].is_null().to_numpy()] = f"no_{field}"
    if "time" in fields:
        columns["time"], faults = times.read(piece[fields["time"]])
    else:
        columns["time"], faults = np.arange(first, first + rows), np.full(rows, "", object)
    reasons = np.where(reasons == "", faults, reasons)
    if "value" in fields:
        values, wrong = _numbers(piece[fields["value"]])
        columns["value"] = values
        reasons[wrong & (reasons == "")] = "value_not_a_number"
    good = reasons == ""
    table = of_columns({**columns, "user": columns["user"]})
    refused = [
        (int(row), str({name: piece[name][int(row)].as_py() for name in fields.values()}), reason)
        for row, reason in zip(np.flatnonzero(~good), reasons[~good], strict=True)
    ]
    return table.filter(pa.array(good)), refused


def _numbers(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a column, NaN where it has none, and which cells are no number."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.cast(pa.float64()).to_numpy(), np.zeros(len(column), bool)
    values, wrong = np.full(len(column), np.nan), np.zeros(len(column), bool)
    for row, text in enumerate(parquet.texts(column).to_pylist()):
        try:
            found = number(text)
            values[row] = np.nan if found is None else found
        except ValueError:
            wrong[row] = True
    return values, wrong


class _Times:
    """Reads the times of one table, and notices where some have a zone and others have none."""

    def __init__(self, path: str, column: str, unit: str) -> None:
        self._path, self._column, self._factor = path, column, UNITS[unit]
        self._example: dict[bool, str] = {}  # by whether there is a zone

    def read(self, column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """Microseconds of each cell, 0 where there is none; and the reason where there is none."""
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            missing = column.is_null().to_numpy()
            values = column.cast(pa.float64()).fill_null(0.0).to_numpy()
            times = np.rint(values * self._factor).astype(np.int64)
            return times, np.where(missing, "no_time", "").astype(object)
        encoded = parquet.texts(column).combine_chunks().dictionary_encode()
        known = [self._one(text) for text in encoded.dictionary.to_pylist()]
        times = np.array([time for time, _ in known] or [0], np.int64)
        reasons = np.array([reason for _, reason in known] or [""], object)
        missing = encoded.is_null().to_numpy(zero_copy_only=False)
        places = encoded.indices.fill_null(0).to_numpy()
        return times[places], np.where(missing, "no_time", reasons[places]).astype(object)

    def _one(self, text: str) -> tuple[int, str]:
        text = text.strip()
        if not text:
            return 0, "no_time"
        try:
            return self._number(text), ""
        except ValueError:
            pass
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            return 0, "unparsable_time"
        zoned = time.tzinfo is not None
        self._example.setdefault(zoned, text)
        if len(self._example) > 1:
            raise UserError(
                f"{self._path}: in the column {self._column!r} {self._example[True]!r} has a zone "
                f"and {self._example[False]!r} has none, so that their order is not known: write "
                "all times with a zone, or none"
            )
        since = (time if zoned else time.replace(tzinfo=UTC)) - _EPOCH
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds, ""

    def _number(self, text: str) -> int:
        found = number(text)
        if found is None:
            raise ValueError(text)
        return round(found * self._factor)


def iso(time: int) -> str:
    """A time in microseconds as ISO 8601 to the second, in UTC."""
    return datetime.fromtimestamp(time / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def moment(field: str, text: str) -> int:
    """The microseconds of a moment that a config names; UserError where it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{field} is {text!r}: give a date or a time as in 2011-10-09 or 2011-10-09T12:00:00"
        ) from None
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
