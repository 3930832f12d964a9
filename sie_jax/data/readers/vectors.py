"""A column of vectors as columns of numbers: the elements of `image` are image[0], image[1], …."""

import contextlib
import functools
import json
import math
import re
from collections.abc import Iterable, Sequence

from etils import epath

from sie_jax.data import readers
from sie_jax.data.readers.records import Wanted, number
from sie_jax.errors import UserError

MOST_ELEMENTS = 4096  # each becomes a column of numbers

_ELEMENT = re.compile(r"(.+)\[(\d+)\]")


@functools.cache  # it is asked for every number of every row
def element(name: str) -> tuple[str, int] | None:
    """The column and the place that the name of an element stands for; None of another name.

    >>> element("image[3]"), element("price")
    (('image', 3), None)
    """
    match = _ELEMENT.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def column(name: str) -> str:
    """The column that holds what a name stands for: a vector's own, or the one of this name."""
    found = element(name)
    return found[0] if found else name


def vector(text: str | None) -> list[float | None]:
    """The numbers of a cell, None for each that is missing; none where the cell is null or blank.

    They stand in brackets, with commas or spaces between them. Raises ValueError for anything else.

    >>> vector("[0.5, null]"), vector("[1 2.5]"), vector("[]"), vector(None)
    ([0.5, None], [1.0, 2.5], [], [])
    """
    text = (text or "").strip()
    if not text or text.casefold() in ("nan", "null"):
        return []
    with contextlib.suppress(ValueError):  # nearly all are JSON, which is read at once
        values = json.loads(text)
        numbers = isinstance(values, list) and all(type(one) in (int, float) for one in values)
        if numbers and all(map(math.isfinite, values)):
            return list(map(float, values))
    if text[0] + text[-1] not in ("[]", "()"):
        raise ValueError(f"{text[:80]!r} is no list of numbers")
    words = [word for word in re.split(r"[\s,]+", text[1:-1]) if word]
    return [None if word.casefold() in ("null", "none") else number(word) for word in words]


def text(numbers: Sequence[float | None]) -> str | None:
    """The cell that `vector` reads these numbers from; None where all are missing."""
    return json.dumps(list(numbers)) if any(one is not None for one in numbers) else None


def names(parts: Sequence[epath.Path], columns: Iterable[str], fix: str) -> list[str]:
    """The names of the elements of columns, as many as the first vector of each has.

    Raises UserError where a column is not there, has no vector or one that cannot be read, and
    where there are more than MOST_ELEMENTS elements.
    """
    wanted = Wanted(tuple(columns), fix)
    sizes = dict.fromkeys(wanted.columns, 0)
    for file in parts:
        for record in readers.records(file, wanted):
            for name in [name for name, size in sizes.items() if not size]:
                if not record.reason:
                    sizes[name] = len(
                        read(f"{file}, record {record.line}", name, record.cells[name])
                    )
            if all(sizes.values()):
                break
    for name, size in sizes.items():
        if not size:
            raise UserError(f"{parts[0]}: the column {name!r} has no vector: leave it out")
    if sum(sizes.values()) > MOST_ELEMENTS:
        raise UserError(
            f"{parts[0]}: the vectors have {sum(sizes.values()):,} numbers, and at most "
            f"{MOST_ELEMENTS:,} can be features: reduce them"
        )
    return [f"{name}[{at}]" for name, size in sizes.items() for at in range(size)]


def read(place: str, name: str, text: str | None, size: int | None = None) -> list[float | None]:
    """The vector of a cell, of `size` numbers where it is given; all missing where there is none.

    place: the file and the row, for the message. name: of the column.

    Raises UserError, which names the cell, where it holds none, or one of another length.
    """
    try:
        found = vector(text)
    except ValueError as error:
        raise UserError(
            f"{place}: the column {name!r} holds no vector ({error}): give a list of "
            "numbers as [0.1, 0.2], or leave the cell empty if it is missing"
        ) from None
    if size is not None and not found:
        return [None] * size
    if size is not None and len(found) != size:
        raise UserError(
            f"{place}: the column {name!r} holds {len(found)} numbers, and {size} "
            "elsewhere: give vectors of one length, or leave the cell empty if it is missing"
        )
    return found
