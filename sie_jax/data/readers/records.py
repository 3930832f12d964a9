"""What a reader gives: the records of a file, each with its place, as cells of text by column."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from etils import epath

from sie_jax.errors import UserError

Cells = dict[str, str | None]


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
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return json.dumps(value, ensure_ascii=False, default=str)
