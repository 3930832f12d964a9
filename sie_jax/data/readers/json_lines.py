"""JSON lines as records: one object a line; an object may leave out what is null."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from etils import epath

from sie_jax.data.readers import files
from sie_jax.data.readers.records import Record, Wanted, cell, is_broken, shown


def read(file: epath.Path, wanted: Wanted) -> Iterator[Record]:
    """A Record for each line that is not blank, with a cell for each wanted column.

    A line without cells has its text and a reason: `not_utf8`, or `unparsable_line` where it is not
    a JSON object whose keys differ.

    Raises UserError, after the last line, where no object has a column that is not optional.
    """
    seen: dict[str, None] = {}
    for record, value in objects(file):
        if not record.reason:
            seen |= dict.fromkeys(value)
            record = record._replace(cells={name: cell(value.get(name)) for name in wanted.columns})
        yield record
    if seen:
        wanted.check(file, [*seen, *wanted.optional])


def objects(file: epath.Path) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Each line that is not blank, as a Record without cells, and its object.

    A line that is no object has a reason, as in `read`, and an empty one.
    """
    for number, line in enumerate(files.lines(file), 1):
        if not line.strip():
            continue
        if is_broken(line):
            yield Record(number, {}, "not_utf8", shown(line)), {}
            continue
        try:
            value = _parsed(line)
            if "\\u" in line:  # half a surrogate pair is not text
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            yield Record(number, {}), value
        else:
            yield Record(number, {}, "unparsable_line", shown(line)), {}


def keys(parts: Sequence[epath.Path], most_lines: int | None = None) -> list[str]:
    """The keys of the objects of all files, or of the first `most_lines` lines."""
    names: dict[str, None] = {}
    lines = itertools.chain.from_iterable(map(files.lines, parts))
    for line in itertools.islice(lines, most_lines):
        with contextlib.suppress(ValueError, RecursionError):
            value = _parsed(line)
            names |= dict.fromkeys(value) if isinstance(value, dict) else {}
    return list(names)


def types(file: epath.Path) -> dict[str, pa.DataType]:
    """The type of each key's cells in a file.

    int64, float64 or bool where all values that are not null are such; otherwise string.
    """
    found: dict[str, set[pa.DataType]] = {}
    for line in files.lines(file):
        with contextlib.suppress(ValueError, RecursionError):
            value = _parsed(line)
            for name, one in value.items() if isinstance(value, dict) else ():
                found.setdefault(name, set()).update([] if one is None else [_type(one)])
    numbers = {pa.int64(), pa.float64()}
    return {
        name: kinds.pop() if len(kinds) == 1 else pa.float64() if kinds == numbers else pa.string()
        for name, kinds in found.items()
    }


def _type(value: Any) -> pa.DataType:
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int) and abs(value) < 2**63:
        return pa.int64()
    return pa.float64() if isinstance(value, float) else pa.string()


def _parsed(line: str) -> Any:
    """The value of a line of JSON; raises ValueError where an object has a key twice."""
    return json.loads(line, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found
