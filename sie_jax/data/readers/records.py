"""What a reader gives: the records of a file, each with its place, as cells of text by column."""

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from etils import epath

from sie_jax.errors import UserError

Cells = dict[str, str | None]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class Record(NamedTuple):
    """One record of a file: its cells by column, or the reason why it has none."""

    line: int  # where it begins, from 1; in a Parquet file the row
    cells: Cells
    reason: str = ""
    text: str = ""


class Wanted(NamedTuple):
    """The columns that a source takes from its files, and what to do where one is missing.

    columns: their names. optional: those that JSON lines may leave out of every object.
    fix: the end of the message about a missing column.
    """

    columns: tuple[str, ...]
    fix: str
    optional: tuple[str, ...] = ()

    def check(self, file: epath.Path, present: Iterable[str]) -> None:
        """Raises UserError where the columns of a file lack one of these."""
        present = list(present)
        for name in self.columns:
            if name not in present:
                raise UserError(
                    f"{file} has no column {name!r}; it has {', '.join(present)}: {self.fix}"
                )


def rejected(file: epath.Path, record: Record) -> Cells:
    """A record without cells as cells of REJECTED_SCHEMA, as `Source.unreadable` holds them."""
    return {
        "example_id": f"{file.name}:{record.line}",
        "text": record.text,
        "reason": record.reason,
    }


def is_broken(text: str) -> bool:
    """Whether a text has surrogates in place of bytes that are not UTF-8 (PEP 383)."""
    return not text.isascii() and any("\udc80" <= one <= "\udcff" for one in text)


def shown(text: str) -> str:
    """A text without its line end, with U+FFFD in place of what is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").rstrip("\r\n")


def cell(value: Any) -> str | None:
    """A value of JSON or Parquet as a cell's text; whole numbers are written without a point."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Decimal):
        return str(int(value)) if value == value.to_integral_value() else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return json.dumps(value, ensure_ascii=False, default=str)


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
