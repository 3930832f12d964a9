"""What a reader gives: the records of a file, each with its place, as cells of text by column."""

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from etils import epath

from sie_jax.errors import UserError

Cells = dict[str, str | None]

_COMMA = re.compile(r"\s*[+-]?\d+,\d+(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


# what to do about records that are not rows, by reason
FIXES = {
    "wrong_field_count": "separate a .csv file by commas and a .tsv file by tabs",
    "not_utf8": "convert it to UTF-8",
    "unparsable_line": "give one JSON object a line, or, of CSV and TSV, quotes as in RFC 4180",
}


# what tables call a query, a title and a label besides
OTHER_WORDS = {
    "query": ("keyword", "keywords", "search", "q"),
    "title": ("name", "product"),
    "label": ("rating", "grade", "relevance", "judgment", "judgement"),
}


class Record(NamedTuple):
    """One record of a file: its cells by column, or the reason why it has none."""

    line: int  # where it begins, from 1; in a Parquet file the row
    cells: Cells
    reason: str = ""
    text: str = ""


class Wanted(NamedTuple):
    """The columns that a source takes from its files, and what to do where one is missing.

    columns: their names. optional: those that JSON lines may leave out of every object.
    flags: the columns that each flag names, in their order. The message about a missing column
    gives every flag that names it, with a column of the file whose name is near.
    fix: the end of that message where a missing column has no flag.
    """

    columns: tuple[str, ...]
    fix: str
    optional: tuple[str, ...] = ()
    flags: Mapping[str, Sequence[str]] = MappingProxyType({})

    def check(self, file: epath.Path | str, present: Iterable[str]) -> None:
        """Raises UserError where the columns of a file lack some of these; it names them all."""
        present = list(present)
        lacking = dict.fromkeys(name for name in self.columns if name not in present)
        if lacking:
            named = {name for names in self.flags.values() for name in names}
            others = [name for name in present if name not in named]
            fixes = [self._named(lacking, others)] if lacking.keys() & named else []
            fixes += [] if lacking.keys() <= named else [self.fix]
            raise UserError(
                f"{file} {without(lacking)}; it has {', '.join(present)}: {'; '.join(fixes)}"
            )

    def _named(self, lacking: Collection[str], others: Sequence[str]) -> str:
        """The flags of the missing columns, each with what it could name."""
        near = {name: nearest(name, others) for name in lacking}
        flags = {flag: names for flag, names in self.flags.items() if near.keys() & set(names)}
        given = " ".join(
            f"{flag}={','.join(near.get(name, name) or 'COLUMN' for name in names)}"
            for flag, names in flags.items()
        )
        known = any(near.get(name) for names in flags.values() for name in names)
        return (
            f"perhaps {given}"
            if known
            else f"name {'them' if len(flags) > 1 else 'it'} with {given}"
        )


def nearest(name: str, columns: Sequence[str]) -> str:
    """The column that seems to hold what `name` should; "" where none does.

    It has the word among its words, or another word for it, or is spelt nearly so.
    """
    parts = {one: re.findall(r"[A-Z]*[a-z]+|[A-Z]+", one) for one in columns}
    words = {one: [part.casefold() for part in several] for one, several in parts.items()}
    for word in (name, *OTHER_WORDS.get(name, ())):
        if found := [one for one in columns if word in words[one]]:
            return found[0]
    return next(iter(difflib.get_close_matches(name, columns, n=1, cutoff=0.75)), "")


def without(names: Collection[str]) -> str:
    """What a message says of a table that lacks columns of these names."""
    return f"has no column{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"


def check_distinct(file: epath.Path, names: Iterable[str]) -> None:
    """Raises UserError where two columns of a file have one name."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise UserError(f"{file} has the column {twice[0]!r} more than once: rename one")


def rejected(file: epath.Path, record: Record) -> Cells:
    """A record without cells as cells of REJECTED_SCHEMA, as `Source.unreadable` holds them."""
    return {
        "example_id": f"{file.name}:{record.line}",
        "text": record.text,
        "reason": record.reason,
    }


def not_rows(rows: Sequence[Mapping[str, str | None]]) -> str:
    """What a message says of records that `rejected` gave: the reasons, the first, and the fix."""
    reasons = Counter(row["reason"] or "" for row in rows).most_common()
    found = ", ".join(f"{times} {reason}" for reason, times in reasons)
    return f"({found}); the first is {rows[0]['example_id']}: {FIXES[reasons[0][0]]}"


def besides(message: str, left_out: Iterable[Mapping[str, str | None]]) -> str:
    """A message about the rows of a table, with the records that are not rows, if there are any."""
    rows = [row for row in left_out if row["reason"] in FIXES]
    if not rows:
        return message
    return f"{message}; besides, {len(rows)} lines are not rows {not_rows(rows)}"


def printable(text: str) -> str:
    """A cell's text within a message of one line."""
    return text if text.isprintable() else repr(text)


def is_broken(text: str) -> bool:
    """Whether a text has surrogates in place of bytes that are not UTF-8 (PEP 383)."""
    return not text.isascii() and any("\udc80" <= one <= "\udcff" for one in text)


def shown(text: str) -> str:
    """A text without its line end, with U+FFFD in place of what is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").rstrip("\r\n")


def cell(value: Any) -> str | None:
    """A value of JSON or Parquet as a cell's text.

    A number is written in digits, a whole one without a point. `true` and `false` are in small
    letters, lists and objects are JSON, and what is neither is written as it writes itself. NaN is
    a sign for what is missing: it has no text.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Decimal):
        return str(int(value)) if value == value.to_integral_value() else f"{value:f}"
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


class DecimalCommas:
    """The cells of one file with decimal commas: numbers with their points, and others as they are.

    Where a column has decimal points too, `1,234` may be either number, so it is refused.

    >>> cells = DecimalCommas("pairs.csv")
    >>> [cells.pointed("price", text, "line 2") for text in ("-0,5", "1.234,50", "a,5")]
    ['-0.5', '1.234,50', 'a,5']
    """

    def __init__(self, file: epath.Path | str) -> None:
        self._file = file
        self._first: dict[str, dict[str, str]] = {}  # by column and mark, where it first occurs

    def pointed(self, column: str, text: str, place: str) -> str:
        """The cell at a place of a column.

        Raises UserError where numbers of the column have commas, and others points.
        """
        comma = _COMMA.fullmatch(text) is not None
        if comma or ("." in text and _NUMBER.fullmatch(text.strip())):
            first = self._first.setdefault(column, {})
            first.setdefault("," if comma else ".", f"{place} holds {text.strip()[:80]!r}")
            if len(first) > 1:
                raise UserError(
                    f"{self._file}: the column {column!r} has decimal commas ({first[',']}) and "
                    f"decimal points ({first['.']}): write all its numbers in one of the two ways"
                )
        return text.replace(",", ".") if comma else text


def number(text: str | None) -> float | None:
    """The number that a cell holds; None where it holds none: it is null, blank or NaN.

    `true` and `false` are 1 and 0, in capitals too. White space around a number is cut. Raises
    ValueError for anything else, for infinity, and for what is beyond a 64-bit float.

    >>> number("1.50"), number(" 2e3"), number("True"), number(""), number("NaN")
    (1.5, 2000.0, 1.0, None, None)
    """
    word = (text or "").strip().casefold()
    if word in ("", "nan"):
        return None
    if word in ("true", "false"):
        return float(word == "true")
    value = float(word) if _NUMBER.fullmatch(word) else math.inf
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value
