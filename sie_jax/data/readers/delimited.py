"""CSV and TSV files as records."""

import csv
from collections import deque
from collections.abc import Iterator

from etils import epath

from sie_jax.data.readers import files
from sie_jax.data.readers.records import Record, check_distinct, is_broken, shown
from sie_jax.errors import UserError

LONGEST_CELL = 10_000_000  # characters

_MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def read(file: epath.Path, *, delimiter: str) -> tuple[list[str], Iterator[Record]]:
    """The header of a file of delimited fields, and its records in order, read as they are taken.

    The file is UTF-8, with or without a byte order mark, and fields are quoted as in RFC 4180. A
    quote inside a field that does not begin with one stands for itself. Blank lines are left out.
    Where commas would separate the fields, but the header has semicolons and no comma, semicolons
    do: spreadsheets write so where numbers have a decimal comma.

    Between tabs a quote may also stand for itself where a field begins, since many programs write
    such files without quoting. So the fields of a line are taken as they stand where quoting does
    not give as many as the header has. They are too where it would join lines each of which has as
    many fields as the header.

    Args:
      file: the file.
      delimiter: what stands between two fields: a comma, a semicolon, a bar or a tab.

    Returns:
      The names of the columns, which all differ, and a Record for each record. It has a cell for
      each column; or no cells, its text and a reason: `unparsable_line` (text follows a closing
      quote), `not_utf8` or `wrong_field_count`.

    Raises:
      UserError: the file is empty, is UTF-16, has a header that cannot be read, names a column
        twice, or has another delimiter. The iterator raises it for a quote that does not close, for
        a field of more than LONGEST_CELL characters, and between tabs where a quoted field of
        several lines may as well be lines of the table.
    """
    csv.field_size_limit(LONGEST_CELL)
    lines = _Lines(file, delimiter)
    header: list[str] | None = []
    try:
        while header == []:
            header = lines.record()
    except csv.Error as error:
        raise UserError(
            f"the header of {file} cannot be read ({error}): write a quote inside a name twice"
        ) from None
    _check_header(file, header or [], delimiter)
    return header or [], _records(file, lines, header or [])


def separator(file: epath.Path, delimiter: str) -> str:
    """What stands between the fields of a file that `read` reads with this delimiter."""
    return _Lines(file, delimiter).delimiter


class _Lines:
    """The lines of a file, read as records, which can be given back.

    taken: the lines of the last record. begins: the number of the first of them, from 1.
    """

    def __init__(self, file: epath.Path, delimiter: str) -> None:
        self.taken: list[str] = []
        self.begins = 1
        self._lines = files.lines(file)
        self._given_back: deque[str] = deque()
        first = self._first()
        semicolons = delimiter == "," and ";" in first and "," not in first
        self.delimiter = ";" if semicolons else delimiter
        self._reader = self._parse()

    def record(self) -> list[str] | None:
        """The fields of the next record, [] of a blank line, None at the end.

        Raises csv.Error where it cannot be read; it may have taken lines of others then.
        """
        self.begins += len(self.taken)
        self.taken = []
        return next(self._reader, None)

    def alone(self) -> list[str]:
        """The fields of the first taken line, quotes as they stand; gives the others back."""
        self._given_back.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]
        self._reader = self._parse()  # the one before may have come to the end
        return self.taken[0].rstrip("\r\n").split(self.delimiter)

    def _first(self) -> str:
        """The first line that is not blank, "" if there is none; all are given back."""
        for line in self._lines:
            self._given_back.append(line)
            if line.strip():
                return line
        return ""

    def _parse(self) -> Iterator[list[str]]:
        return csv.reader(self._take(), delimiter=self.delimiter, strict=True)

    def _take(self) -> Iterator[str]:
        while line := self._given_back.popleft() if self._given_back else next(self._lines, ""):
            self.taken.append(line)
            yield line


def _records(file: epath.Path, lines: _Lines, header: list[str]) -> Iterator[Record]:
    while True:
        fields: list[str] | None = []
        error = ""
        try:
            fields = lines.record()
        except csv.Error as caught:
            error = str(caught)
        if fields is None:
            return
        too_long = "field limit" in error
        if too_long and len(lines.taken) == 1:
            raise UserError(
                f"{file}, line {lines.begins}: a cell has more than {LONGEST_CELL:,} characters: "
                "shorten it"
            )
        if _stand_for_themselves(file, lines, fields, len(header)):
            fields, error = lines.alone(), ""
        text = "".join(lines.taken)
        if error:
            if too_long or "unexpected end of data" in error:
                raise UserError(
                    f"{file}, line {lines.begins}: a quote opens that does not close ({error}): "
                    "close it, or write a quote inside a cell twice"
                )
            yield Record(lines.begins, {}, "unparsable_line", shown(text))
        elif not fields:
            continue
        elif is_broken(text):
            yield Record(lines.begins, {}, "not_utf8", shown(text))
        elif len(fields) != len(header):
            yield Record(lines.begins, {}, "wrong_field_count", shown(text))
        else:
            yield Record(lines.begins, dict(zip(header, fields, strict=True)))


def _stand_for_themselves(file: epath.Path, lines: _Lines, fields: list[str], columns: int) -> bool:
    """Whether the quotes of a record between tabs do; `fields` are what quoting makes of it."""
    if lines.delimiter != "\t" or not any('"' in line for line in lines.taken):
        return False
    tabs = [line.count("\t") for line in lines.taken if line.strip()]
    if len(fields) != columns:
        return len(lines.taken) > 1 or tabs[0] + 1 == columns
    whole = [number + 1 == columns for number in tabs]
    if len(whole) == 1 or sum(tabs) + 1 == columns or not any(whole):
        return False  # no tab is inside a quoted field of several lines, or no line is a record
    if not all(whole):
        raise UserError(
            f"{file}, line {lines.begins}: a quote opens that closes in line "
            f"{lines.begins + len(lines.taken) - 1}, but some lines between have as many fields as "
            "the header: take out quotes that are not around a whole field, or give a .csv file"
        )
    return True


def _check_header(file: epath.Path, header: list[str], delimiter: str) -> None:
    if not header:
        raise UserError(f"{file} is empty: give a file with a header and rows")
    if any(is_broken(name) for name in header):
        raise UserError(f"the header of {file} is not UTF-8: convert the file to UTF-8")
    if any("\0" in name for name in header):
        raise UserError(
            f"the header of {file} has zero bytes, as UTF-16 has: convert the file to UTF-8"
        )
    check_distinct(file, header)
    if len(header) == 1 and (marks := [mark for mark in _MARKS if mark in header[0]]):
        raise UserError(
            f"the header of {file} is a single field, {header[0][:80]!r}, with {marks[0]!r} in it: "
            f"separate the fields by {_MARKS[delimiter]}"
        )
