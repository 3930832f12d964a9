"""The scale of labels that a source has: grades that are counted from 0, or numbers as they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.data.cleaning import MOST_LABELS
from sie_jax.data.readers.records import cell, number, printable
from sie_jax.data.schema import LabelScale
from sie_jax.errors import UserError
from sie_jax.tables.spool import pieces, spool

MOST_GRADES = 10  # of a scale that is read off the labels


class Numbers(NamedTuple):
    """That labels are numbers, such as click rates or the means of several raters.

    bins: above 0, into how many equally frequent grades they are divided.
    """

    bins: int = 0


def of_grades(
    labels: Sequence[str], gains: Sequence[float] | None, counts: Counter[str], path: str
) -> LabelScale:
    """The scale of a table at `path`: the named labels, or those found if they are 0, 1, ….

    counts: how often each label occurs in it; not used where `labels` names the scale.
    gains: one for each label; where it is None, grade k gains k/(K − 1).
    """
    names = tuple(labels)
    if not names:
        # the word is what some programs write where a label is missing: such a row is rejected
        found = sorted(label for label in counts if label and label.casefold() != "nan")
        names = tuple(str(grade) for grade in range(len(found)))
        if [label.casefold() for label in found] == ["false", "true"]:
            names = tuple(found)
        if not 2 <= len(names) <= MOST_GRADES or set(found) != set(names):
            common = ", ".join(
                f"{printable(label) or '(none)'} ({n})" for label, n in counts.most_common(10)
            )
            numbers = _are_numbers(found)
            raise UserError(
                f"{path}: the labels are not the grades 0, 1, …; there are {common}: "
                "name the scale with --config.data.table.labels=LOWEST,…,HIGHEST"
                + (", or say that they are numbers, --config.data.continuous" if numbers else "")
            )
    if gains is None:
        gains = [grade / max(len(names) - 1, 1) for grade in range(len(names))]
    return LabelScale(names, tuple(gains))


def as_number(label: str | None) -> str | None:
    """A label that is a number as every number is written; another, and none, as it is.

    >>> as_number("0.50"), as_number("2.0"), as_number("good")
    ('0.5', '2', 'good')
    """
    try:
        value = number(label)
    except ValueError:
        return label
    return label if value is None else cell(value)


def of_numbers(counts: Mapping[str, int], path: str) -> LabelScale:
    """The scale of all numbers that occur, each with a gain of itself over the greatest.

    counts: how often each label occurs, as `as_number` writes it. Those that are no numbers are not
    on the scale.

    Raises UserError where there are fewer than two numbers or more than MOST_LABELS, or one is
    negative.
    """
    values = sorted(float(name) for name in counts if name and _are_numbers([name]))
    if len(values) < 2:
        others = ", ".join(printable(name) or "(none)" for name in list(counts)[:10])
        raise UserError(
            f"{path}: the labels are to be numbers, and there are {len(values)} different ones "
            f"({others}): a ranker learns from several"
        )
    if values[0] < 0:
        raise UserError(
            f"{path} has the label {cell(values[0])}, and a gain is 0 or more: add a constant to "
            "all labels, or divide them into grades with --config.data.bins=5"
        )
    if len(values) > MOST_LABELS:
        raise UserError(
            f"{path} has {len(values):,} different labels, and at most {MOST_LABELS:,} are told "
            "apart: round them, or divide them into grades with --config.data.bins=5"
        )
    names = tuple(str(cell(value)) for value in values)
    return LabelScale(names, tuple(value / values[-1] for value in values))


def binned(
    table: pa.Table, counts: Mapping[str, int], bins: int, path: str
) -> tuple[pa.Table, LabelScale, list[dict[str, Any]]]:
    """The table with numbers as labels divided into grades that are equally frequent.

    Numbers such as click rates are crowded at the low end, where grades of equal width would have
    nearly all of them. Equal numbers are in one grade, so that there may be fewer grades than
    `bins`. The gain of a grade is what its place is of the highest's, k/(K − 1). Labels that are no
    numbers stay as they are.

    Returns the table, on disk; the scale "0", "1", …; and of each grade `from`, `to`, the least and
    the greatest number in it, and `rows`.

    Raises UserError where all numbers fall into one grade.
    """
    named = {float(name): name for name in counts if name and _are_numbers([name])}
    values = np.sort(np.array(list(named)))
    times = np.array([counts[named[value]] for value in values.tolist()])
    # the share of rows below each number, and half of those with it, is never that of an edge
    middle = (np.cumsum(times) - times / 2) / max(times.sum(), 1)
    _, grade = np.unique(np.floor(middle * bins).astype(int), return_inverse=True)
    grades = int(grade.max(initial=-1)) + 1
    if grades < 2:
        raise UserError(
            f"{path}: the labels make {grades} grade{'s' * (grades != 1)} of data.bins={bins}: "
            "give more bins, or labels that differ"
        )
    names = pa.array([named[value] for value in values.tolist()], pa.string())
    places = pa.array(grade.astype(str), pa.string())
    at = table.column_names.index("label")

    def chunks() -> Any:
        for _, piece in pieces(table):
            found = places.take(pc.index_in(piece["label"], names).combine_chunks())
            label = pc.coalesce(found, piece["label"].combine_chunks())
            yield from piece.set_column(at, table.schema.field(at), label).to_batches()

    found = [
        {
            "grade": str(one),
            "from": float(values[grade == one].min()),
            "to": float(values[grade == one].max()),
            "rows": int(times[grade == one].sum()),
        }
        for one in range(grades)
    ]
    scale = LabelScale(
        tuple(str(one) for one in range(grades)),
        tuple(one / (grades - 1) for one in range(grades)),
    )
    return spool(chunks(), table.schema), scale, found


def _are_numbers(labels: Sequence[str]) -> bool:
    try:
        return all(number(label) is not None for label in labels)
    except ValueError:
        return False
