"""Text files as records: CSV and TSV, the lines of any, and what is no record with its place."""

import csv
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from sie_jax.errors import UserError

LONGEST_CELL = 10_000_000  # characters

_MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

Cells = dict[str, str | None]


class Record(NamedTuple):
    """One record of a file: its cells by column, or the reason why it has none."""

    line: int  # where it begins, from 1; of a Parquet file the row
    cells: Cells
    reason: str = ""
    text: str = ""


def read(file: epath.Path, *, delimiter: str) -> tuple[list[str], Iterator[Record]]:
    """The header of a file of delimited fields, and its records in order, read as they are taken.

    The file is UTF-8, with or without a byte order mark, and fields are quoted as in RFC 4180; a
    quote inside a field that does not begin with one stands for itself. Blank lines are no records.

    Args:
      file: the file. delimiter: between two fields, one of , ; | and the tab.

    Returns:
      The names of the columns, all different, and a Record for each record: with a cell for each
      column, or with no cells, its text and a reason: `unparsable_line` (more after a closing
      quote), `not_utf8` or `wrong_field_count`.

    Raises:
      UserError: the file is empty, is UTF-16, has a header that cannot be read, names a column
        twice or is separated by another delimiter; and, from the iterator, a quote that does not
        close, or a field of more than LONGEST_CELL characters.
    """
    taken: list[str] = []  # the lines of the record that is being read

    def remembered() -> Iterator[str]:
        for line in lines(file):
            taken.append(line)
            yield line

    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(remembered(), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UserError(f"the header of {file} cannot be read: {error}") from None
    _check_header(file, header, delimiter)

    def records() -> Iterator[Record]:
        while True:
            taken.clear()
            begins = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end of data" in str(error) or "field limit" in str(error):
                    raise UserError(
                        f"{file}, line {begins}: a quote opens that does not close ({error}): "
                        "close it, or write a quote inside a cell twice"
                    ) from None
                yield Record(begins, {}, "unparsable_line", shown("".join(taken)))
                continue
            if not fields:
                continue
            text = "".join(taken)
            if is_broken(text):
                yield Record(begins, {}, "not_utf8", shown(text))
            elif len(fields) != len(header):
                yield Record(begins, {}, "wrong_field_count", shown(text))
            else:
                yield Record(begins, dict(zip(header, fields, strict=True)))

    return header, records()


def rejected(file: epath.Path, record: Record) -> Cells:
    """What is told of a record that has a reason: cells of REJECTED_SCHEMA, as `Source` says."""
    return {
        "example_id": f"{file.name}:{record.line}",
        "text": record.text,
        "reason": record.reason,
    }


def lines(file: epath.Path) -> Iterator[str]:
    """The lines as texts, bytes that are not UTF-8 as surrogates (PEP 383).

    Raises UserError where the file is UTF-16.
    """
    with file.open("rb") as stream:
        for number, line in enumerate(stream):
            if number == 0:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise UserError(f"{file} is UTF-16: convert it to UTF-8")
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield line.decode("utf-8", "surrogateescape")


def is_broken(text: str) -> bool:
    """Whether a text has surrogates for bytes that are not UTF-8, as those of `lines` may."""
    return not text.isascii() and any("\udc80" <= one <= "\udcff" for one in text)


def shown(text: str) -> str:
    """A text of `lines` without its line end, with U+FFFD for what is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").rstrip("\r\n")


def _check_header(file: epath.Path, header: list[str], delimiter: str) -> None:
    if not header:
        raise UserError(f"{file} is empty: give a file with a header and rows")
    if any(is_broken(name) for name in header):
        raise UserError(f"the header of {file} is not UTF-8: convert the file to UTF-8")
    if any("\0" in name for name in header):
        raise UserError(
            f"the header of {file} has zero bytes, as UTF-16 has: convert the file to UTF-8"
        )
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise UserError(f"{file} has the column {twice[0]!r} more than once: rename one")
    if len(header) == 1 and (marks := [mark for mark in _MARKS if mark in header[0]]):
        raise UserError(
            f"the header of {file} is a single field, {header[0][:80]!r}, with {marks[0]!r} in it: "
            f"separate the fields by {_MARKS[delimiter]}"
        )
