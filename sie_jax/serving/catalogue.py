"""The rows to score with what a catalogue has of their items."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from sie_jax.data import items, readers
from sie_jax.data.readers import files, vectors
from sie_jax.data.schema import ATTRIBUTE, NUMERIC, is_number
from sie_jax.errors import UserError
from sie_jax.tables.spool import pieces, spool_rows

FIX = "attributes and numbers keep their names"
_TEXTS = ("example_id", "query_id", "query", "item_id", "title", "text", "reason")


class Joined(NamedTuple):
    """Rows with what the catalogue has of their items.

    table: on disk; iterating over `rows` gives them as `data.sources.table.rows` does. counts: of
      the catalogue, as `data.items.join` counts.
    """

    table: pa.Table
    counts: Mapping[str, Any]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows in their order; one with a `reason` has nothing but its place and text."""
        for _, piece in pieces(self.table):
            for row in piece.to_pylist():
                if row["reason"]:
                    yield {name: row[name] for name in ("example_id", "text", "reason")}
                else:
                    del row["reason"]
                    yield row


def column_names(path: str) -> list[str]:
    """The columns of a catalogue; raises UserError where it cannot be read."""
    return readers.column_names(files.find(path))


def read(path: str, columns: Mapping[str, str], further: Mapping[str, str]) -> items.Catalogue:
    """The items of a catalogue.

    columns: its column of `item_id` and, if there are such, of `title` and `text`. further: the
    attributes and numbers that are read too, each with its column; image[0] is of `image`.

    Raises UserError as `data.items.read`, and where the catalogue has no column of the ids.
    """
    numbers = [name for name in further if name.startswith(NUMERIC)]
    of_vectors = [further[name] for name in numbers if vectors.element(name)]
    try:
        return items.read(
            path,
            columns=columns,
            attributes=[column for name, column in further.items() if name.startswith(ATTRIBUTE)],
            features=[further[name] for name in numbers if not vectors.element(name)],
            vectors_of=list(dict.fromkeys(of_vectors)),
            fix=FIX,
        )
    except UserError as error:
        raise _in_flags(error) from None


def join(rows: Iterable[Mapping[str, Any]], further: Iterable[str], catalogue: items.Catalogue,
         path: str) -> Joined:  # fmt: skip
    """The rows of the table at `path`, as `data.sources.table.rows` gives them, joined.

    Texts and further cells are the catalogue's, and the row's own where it has none of the item.

    further: the rows' cells that are no field. Raises UserError where no id is in the catalogue.
    """
    names = (*_TEXTS, *further)
    types = (pa.float64() if is_number(name) else pa.string() for name in names)
    table = spool_rows(rows, pa.schema(list(zip(names, types, strict=True))))
    try:
        return Joined(*items.join_table(table, catalogue, path))
    except UserError as error:
        raise _in_flags(error) from None


def left_out(counts: Mapping[str, Any]) -> str:
    """Which lines of a catalogue are not used, by the counts of `data.items.read`, or ""."""
    found = {
        **{f"unreadable ({why})": number for why, number in counts["unreadable"].items()},
        "without an id": counts["without_id"],
        "of an id that came before": counts["repeated"],
        "of these with another title or text": counts["contradicting"],
    }
    said = ", ".join(f"{number:,} {what}" for what, number in found.items() if number)
    return said and f"lines left out: {said}"


def _in_flags(error: UserError) -> UserError:
    return UserError(str(error).replace("data.items: ", "--items: ").replace(items.FLAG, "--"))
