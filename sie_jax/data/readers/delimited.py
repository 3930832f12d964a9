"""CSV and TSV files as records."""

import csv
from collections import Counter
from collections.abc import Iterator

from etils import epath

from sie_jax.data.readers import files
from sie_jax.data.readers.records import Record, is_broken, shown
from sie_jax.errors import UserError

LONGEST_CELL = 10_000_000  # characters

_MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def read(file: epath.Path, *, delimiter: str) -> tuple[list[str], Iterator[Record]]:
    """The header of a file of delimited fields, and its records in order, read as they are taken.

    The file is UTF-8, with or without a byte order mark, and fields are quoted as in RFC 4180. A
    quote inside a field that does not begin with one stands for itself. Blank lines are left out.

    Args:
      file: the file.
      delimiter: what stands between two fields: a comma, a semicolon, a bar or a tab.

    Returns:
      The names of the columns, which all differ, and a Record for each record. It has a cell for
      each column; or no cells, its text and a reason: `unparsable_line` (text follows a closing
      quote), `not_utf8` or `wrong_field_count`.

    Raises:
      UserError: the file is empty, is UTF-16, has a header that cannot be read, names a column
        twice, or has another delimiter. The iterator raises it for a quote that does not close, and
        for a field of more than LONGEST_CELL characters.
    """
    taken: list[str] = []  # the lines of the record that the parser is reading

    def remembered() -> Iterator[str]:
        for line in files.lines(file):
            taken.append(line)
            yield line

    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(remembered(), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UserError(
            f"the header of {file} cannot be read ({error}): write a quote inside a name twice"
        ) from None
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
