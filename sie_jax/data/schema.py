"""The columns of a table of judged query–item pairs, and the scale of its labels."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.errors import UserError

MARKS = 30
# marks are neither letters nor white space; so are other signs, which `_apart` tells from them
_MANY_MARKS = re.compile(rf"[^\w\s\x00-\u02ff]{{{MARKS + 1},}}")
SPLITS = ("train", "validation", "test")
MOST_CLASSES = 32  # above so many labels they are numbers, and none is a class of its own

# One row is one judgment. `text` is further item text and may be "". `split` is one of SPLITS, or
# "" where the source gives none. `truth` is the label before planted noise, null where unknown.
RAW_SCHEMA = pa.schema([
    ("example_id", pa.string()),
    ("query_id", pa.string()),
    ("query", pa.string()),
    ("item_id", pa.string()),
    ("title", pa.string()),
    ("text", pa.string()),
    ("label", pa.string()),
    ("split", pa.string()),
    ("truth", pa.string()),
])  # fmt: skip
RAW_COLUMNS = tuple(RAW_SCHEMA.names)

# As above, with `label` and `truth` as positions on the label scale; `truth` is -1 where unknown.
CLEAN_SCHEMA = pa.schema(
    [
        (field.name, pa.int32() if field.name in ("label", "truth") else field.type)
        for field in RAW_SCHEMA
    ]
)

# of a pair without a label
PAIR_FIELDS = ("query", "title", "text", "example_id", "query_id", "item_id")

CATALOGUE_SCHEMA = pa.schema([(name, pa.string()) for name in ("item_id", "title", "text")])

COMPLETE_SCHEMA = pa.schema([(name, pa.string()) for name in ("query_id", "item_id", "label")])

REJECTED_SCHEMA = RAW_SCHEMA.append(pa.field("reason", pa.string()))

# A table may have further columns of strings, whose names begin with one of these: what else is
# known of the item (attribute:brand), and the labels that single people gave (rater:rating_1).
ATTRIBUTE, RATER = "attribute:", "rater:"
# And further columns of numbers (float64, finite, null where missing): a feature of the pair
# (numeric:price) for each name that begins with NUMERIC, and the score that ranks the pair today.
NUMERIC, CURRENT = "numeric:", "current"


@dataclass(frozen=True)
class LabelScale:
    """The grades of a judgment, lowest first, and what each is worth in nDCG.

    names: what a source may write as a label; at least two, all different, none empty.
    gains: one finite number >= 0 per name; they never fall, and the last is above the first.

    Raises UserError where these do not hold.
    """

    names: tuple[str, ...]
    gains: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise UserError(f"label scale {list(self.names)}: give at least two labels")
        if len(set(self.names)) < len(self.names) or "" in self.names:
            raise UserError(
                f"label scale {list(self.names)}: give labels that are different and not empty"
            )
        if len(self.gains) != len(self.names):
            raise UserError(
                f"gains {list(self.gains)}: give one gain for each of the {len(self.names)} labels"
            )
        if not all(math.isfinite(gain) and gain >= 0 for gain in self.gains):
            raise UserError(f"gains {list(self.gains)}: give finite gains that are 0 or more")
        if list(self.gains) != sorted(self.gains) or self.gains[0] == self.gains[-1]:
            raise UserError(f"gains {list(self.gains)}: give gains that rise with the labels")


# Irrelevant, Complement, Substitute, Exact, with the gains of Reddy et al., "Shopping Queries
# Dataset" (arXiv:2206.06588).
ESCI_SCALE = LabelScale(names=("I", "C", "S", "E"), gains=(0.0, 0.01, 0.1, 1.0))
ESCI_MEANINGS = {"I": "irrelevant", "C": "complement", "S": "substitute", "E": "exact"}


@dataclass(frozen=True)
class Source:
    """What reading a source gives.

    table: columns of RAW_SCHEMA, then any number of string columns whose names begin with ATTRIBUTE
      or RATER, and of number columns (`is_number`).
    scale: of the labels. location: where the source lies.
    unreadable: what could not be read as a row, in REJECTED_SCHEMA, with the reason. Where a line
      cannot be taken apart into fields, `example_id` is "<file>:<line>" and `text` is the line.
    catalogue: all items of the source, judged or not, in CATALOGUE_SCHEMA; empty where it has no
      others than the judged ones.
    summary: counts from before there were pairs, as plain JSON values.
    complete: gives the truth about every item of the catalogue for the validation and test queries,
      in COMPLETE_SCHEMA, where it is known: items that it does not name are of the lowest grade.
    """

    table: pa.Table
    scale: LabelScale
    location: str
    unreadable: pa.Table = field(default_factory=REJECTED_SCHEMA.empty_table)
    catalogue: pa.Table = field(default_factory=CATALOGUE_SCHEMA.empty_table)
    summary: Mapping[str, Any] = field(default_factory=dict)
    complete: Callable[[], pa.Table] | None = None


def check_labels(field: str, names: Sequence[str]) -> None:
    """Raises UserError, which names the field, where names cannot be those of a scale."""
    try:
        LabelScale(tuple(names), tuple(range(len(names))))
    except UserError as error:
        raise UserError(f"{field}: {error}") from None


def is_number(name: str) -> bool:
    """Whether a table's further column of this name holds numbers."""
    return name == CURRENT or name.startswith(NUMERIC)


def nfc(text: str) -> str:
    """Canonical composition of the text, in Unicode's stream-safe form (UAX 15).

    In it no more than MARKS combining marks follow one another: U+034F, which is not seen, stands
    after them. Without that the time grows as the square of their number.
    """
    return unicodedata.normalize("NFC", _MANY_MARKS.sub(_apart, text))


def _apart(many: re.Match[str]) -> str:
    parts, marks = [], 0
    for one in many[0]:
        marks = marks + 1 if unicodedata.combining(one) else 0
        if marks > MARKS:
            parts.append("\u034f")
            marks = 1
        parts.append(one)
    return "".join(parts)


def normalise_query(query: str) -> str:
    """The form in which equal queries count as one: NFC, case folded, white space collapsed.

    >>> normalise_query("  Red\\tSHOES ")
    'red shoes'
    """
    # Folding can take a text out of NFC, so NFC is applied on both sides of it.
    return " ".join(nfc(nfc(query).casefold()).split())


def as_rejected(table: pa.Table, scale: LabelScale) -> pa.Table:
    """Clean rows as raw rows, with labels by name again; a column `reason` stays as it is."""
    names = pa.array(scale.names, pa.string())
    for at, name in enumerate(table.column_names):
        if name in ("label", "truth") or name.startswith(RATER):
            places = table[name].combine_chunks()
            known = pc.if_else(pc.greater_equal(places, 0), places, None)
            table = table.set_column(at, name, names.take(known))
    return table
