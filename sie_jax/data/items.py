"""The section `data.items`: a catalogue whose titles and texts are joined to the pairs of a source.

A source knows items by their ids, and often by nothing else: a judgment list, an export of Quepid,
a log. What the catalogue has of an item is preferred to what the source has.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from sie_jax.data import readers
from sie_jax.data.cleaning import DIGEST, digest_of
from sie_jax.data.features import is_own
from sie_jax.data.readers import files, parquet, vectors
from sie_jax.data.readers.records import DecimalCommas, Wanted, cell, number, printable
from sie_jax.data.schema import ATTRIBUTE, CATALOGUE_SCHEMA, NUMERIC, Source, is_number
from sie_jax.errors import UserError
from sie_jax.tables.spool import CHUNK_ROWS, filtered, hash_partitions, pieces, spool

FLAG = "--config.data.items.columns."
FIX_VECTORS = "name the columns of vectors with --config.data.items.vectors"
_ENTRY = np.dtype([("row", np.int64), ("id", DIGEST), ("texts", DIGEST)])


@dataclasses.dataclass(slots=True, kw_only=True)
class ItemColumnsConfig:
    """The names of a catalogue's columns; empty where it has none."""

    item_id: str = "item_id"  # the column with the item's id
    title: str = "title"  # its title
    text: str = ""  # its further text, which `data.item_text` reads


@dataclasses.dataclass(slots=True, kw_only=True)
class ItemsConfig:
    """A catalogue, which any source can be joined with by the item's id."""

    path: str = ""  # a catalogue (file or folder) with the items' titles; empty: none
    columns: ItemColumnsConfig = dataclasses.field(default_factory=ItemColumnsConfig)
    attributes: tuple[str, ...] = ()  # its columns with texts such as brand, category
    features: tuple[str, ...] = ()  # its columns of numbers that are features of the pairs
    vectors: tuple[str, ...] = ()  # its columns of lists of numbers, likewise

    def check(self) -> None:
        """Raises UserError for needed columns without a name, and features with ours."""
        for field in ("item_id", "title"):
            if self.path and not getattr(self.columns, field):
                raise UserError(
                    f"data.items.columns.{field} is empty: name the column that holds it"
                )

        for name in (*self.features, *self.vectors):
            if not name or is_own(name) or vectors.element(name):
                raise UserError(
                    f"data.items names the numbers {name!r}, which is the name of a feature or a "
                    "column that is made here: rename the column"
                )

    def join(self, source: Source, path: str) -> Source:
        """The source with what the catalogue at `path` has of its items."""
        found = read(
            path,
            columns=dataclasses.asdict(self.columns),
            attributes=self.attributes,
            features=self.features,
            vectors_of=self.vectors,
        )
        return join(source, found)


class Catalogue(NamedTuple):
    """What `read` gives.

    table: columns of CATALOGUE_SCHEMA, then ATTRIBUTE and NUMERIC columns; a row for each id, on
      disk. What is empty is null.
    path: where it lies. counts: of lines, as `join` puts them into a source's summary.
    """

    table: pa.Table
    path: str
    counts: dict[str, Any]


def read(
    path: str,
    *,
    columns: Mapping[str, str],
    attributes: Sequence[str] = (),
    features: Sequence[str] = (),
    vectors_of: Sequence[str] = (),
    fix: str = FIX_VECTORS,
) -> Catalogue:
    """The items of a catalogue, each once: of entries with the same id the first counts.

    Args:
      path: a file or a folder, as `readers.files.find` takes them.
      columns: the column of `item_id` and, where there are such, of `title` and `text`.
      attributes, features: further columns, kept as ATTRIBUTE and NUMERIC columns.
      vectors_of: columns of vectors, whose elements are kept as NUMERIC columns.
      fix: what to do about a further column that is not there, if not by a run's flags.

    Returns:
      Catalogue. White space around ids is cut. Its counts: `read` lines; `unreadable`, by reason,
      that are no rows; `without_id`; `repeated` entries of an id that an earlier entry has, and
      `contradicting`, how many of these have another title or text than the first.

    Raises:
      UserError: the path or a column is wrong, a file cannot be read as a whole, there is no entry,
        a cell of a column of numbers or vectors holds none, or such a column has decimal points and
        decimal commas.
    """
    fields = {field: columns[field] for field in CATALOGUE_SCHEMA.names if columns.get(field)}
    fields |= {ATTRIBUTE + name: name for name in attributes}
    parts = files.find(path)
    elements = vectors.names(parts, vectors_of, fix) if vectors_of else []
    numbers = {NUMERIC + name: vectors.column(name) for name in (*features, *elements)}
    schema = pa.schema([
        *CATALOGUE_SCHEMA,
        *((ATTRIBUTE + name, pa.string()) for name in attributes),
        *((name, pa.float64()) for name in numbers),
    ])  # fmt: skip
    flags: dict[str, Sequence[str]] = {
        FLAG + field: (columns[field],) for field in CATALOGUE_SCHEMA.names if field in fields
    }
    if fix == FIX_VECTORS:
        flags["--config.data.items.attributes"] = attributes
        flags["--config.data.items.features"] = features
    names = dict.fromkeys([*fields.values(), *numbers.values()])
    wanted = Wanted(tuple(names), fix, flags=flags)
    at_once = max(1, 64 * CHUNK_ROWS // max(64, len(schema)))
    counts: dict[str, Any] = {"read": 0, "unreadable": Counter(), "without_id": 0}

    def chunks() -> Iterator[pa.RecordBatch]:
        for file in parts:
            commas = DecimalCommas(file) if numbers and readers.decimal_comma(file) else None
            for rows, broken in readers.columns(file, wanted, at_once):
                counts["read"] += rows.num_rows + len(broken)
                counts["unreadable"].update(record.reason for record in broken)
                found = {field: _text(rows[name]) for field, name in fields.items()}
                found["item_id"] = _trimmed(found["item_id"])
                found |= _numbers(file, rows, numbers, found["item_id"], commas)
                named = found["item_id"].is_valid()
                counts["without_id"] += rows.num_rows - (pc.sum(named).as_py() or 0)
                lacking = pa.nulls(rows.num_rows, pa.string())
                table = pa.table([found.get(name, lacking) for name in schema.names], schema.names)
                yield from table.filter(named).cast(schema).to_batches()

    table = spool(chunks(), schema)
    if not table.num_rows:
        raise UserError(
            f"data.items: none of the {counts['read']} lines of {path} is an entry with an id: "
            "give a catalogue with a header and rows"
        )
    first, contradicting = _first(table)
    counts |= {"repeated": int((~first).sum()), "contradicting": contradicting}
    counts["unreadable"] = dict(counts["unreadable"])
    if not first.all():
        table = filtered(table, pa.array(first))
    return Catalogue(table, path, counts)


def join(source: Source, catalogue: Catalogue) -> Source:
    """The source with what the catalogue has of its items, as `join_table` joins its table.

    A pair whose title is then missing stays; cleaning rejects it. The catalogue becomes the
    source's. `summary` gets `items`, the counts.
    """
    table, counts = join_table(source.table, catalogue, source.location)
    return dataclasses.replace(
        source,
        table=table,
        catalogue=catalogue.table.select(CATALOGUE_SCHEMA.names),
        summary={**source.summary, "items": counts},
    )


def join_table(
    pairs: pa.Table, catalogue: Catalogue, location: str
) -> tuple[pa.Table, dict[str, Any]]:
    """A table with a column `item_id` with what the catalogue has of these items.

    Title, text, attributes and numbers of a pair are the catalogue's, and the table's own where
    the catalogue has no such item or no such cell. Memory holds the items that occur.

    location: of the table, for the message.

    Returns the table, on disk, and the counts of `read`, then `joined` (ids of the table that have
    an entry), `ids_without_entry` and `pairs_without_entry`.

    Raises UserError where the table has ids and the catalogue has none of them.
    """
    ids = pc.unique(pc.utf8_trim_whitespace(pairs["item_id"].cast(pa.large_string())))
    known = pa.concat_tables(
        [
            piece.filter(pc.is_in(piece["item_id"].cast(pa.large_string()), ids))
            for _, piece in pieces(catalogue.table)
        ]
    )
    texts = {field.name: pa.large_string() for field in known.schema if not is_number(field.name)}
    known = known.cast(
        pa.schema([(field.name, texts.get(field.name, field.type)) for field in known.schema])
    ).combine_chunks()
    names = ids.drop_null()
    if len(names) and not known.num_rows:
        theirs = catalogue.table["item_id"].slice(0, 3).to_pylist()
        ours = ", ".join(printable(one) for one in names.slice(0, 3).to_pylist())
        raise UserError(
            f"data.items: none of the {len(names)} item ids of {location} ({ours}, …) is in "
            f"{catalogue.path} ({', '.join(map(printable, theirs))}, …): name the columns that "
            "hold the same ids"
        )
    lacking = 0
    schema = _schema(pairs.schema, catalogue.table.schema)

    def chunks() -> Iterator[pa.RecordBatch]:
        nonlocal lacking
        for _, piece in pieces(pairs):
            own = pc.utf8_trim_whitespace(piece["item_id"].cast(pa.large_string()))
            place = pc.index_in(own, known["item_id"].combine_chunks()).combine_chunks()
            lacking += place.null_count
            for name in catalogue.table.column_names[1:]:
                theirs = known[name].combine_chunks().take(place).cast(schema.field(name).type)
                if name in piece.column_names:
                    theirs = pc.coalesce(theirs, piece[name])
                    piece = piece.set_column(piece.column_names.index(name), name, theirs)
                else:
                    piece = piece.append_column(name, theirs)
            yield from piece.select(schema.names).cast(schema).to_batches()

    table = spool(chunks(), schema)
    counts = catalogue.counts | {
        "joined": known.num_rows,
        "ids_without_entry": len(names) - known.num_rows,
        "pairs_without_entry": lacking,
    }
    return table, counts


def _schema(source: pa.Schema, catalogue: pa.Schema) -> pa.Schema:
    further = [field for field in catalogue if field.name not in source.names]
    return pa.schema([*source, *further])


def _first(table: pa.Table) -> tuple[np.ndarray, int]:
    """Whether each row is the first of its id, and how many others have other texts than it."""
    first = np.zeros(table.num_rows, bool)
    contradicting = 0
    with hash_partitions(_ENTRY) as by_id:
        for start, piece in pieces(table):
            entries = np.empty(piece.num_rows, _ENTRY)
            entries["row"] = np.arange(start, start + piece.num_rows)
            cells = [piece[name].to_pylist() for name in CATALOGUE_SCHEMA.names]
            entries["id"] = [digest_of(one) for one in cells[0]]
            entries["texts"] = [
                digest_of(title or "", text or "") for title, text in zip(*cells[1:], strict=True)
            ]
            by_id.add(entries["id"]["high"], entries)
        for entries in by_id:
            _, at, of = np.unique(entries["id"], return_index=True, return_inverse=True)
            first[entries["row"][at]] = True
            contradicting += int((entries["texts"] != entries["texts"][at][of]).sum())
    return first, contradicting


def _numbers(
    file: epath.Path,
    rows: pa.Table,
    numbers: Mapping[str, str],
    ids: pa.ChunkedArray,
    commas: DecimalCommas | None,
) -> dict[str, pa.Array]:
    """The cells of columns of numbers and vectors; an error names the item."""
    found: dict[str, pa.Array] = {}
    several: dict[str, list[str]] = {}
    for field, column in numbers.items():
        several.setdefault(column, []).append(field)
    for column, fields in several.items():
        cells = [cell(value) for value in rows[column].to_pylist()]
        if commas and not vectors.element(fields[0]):
            cells = [
                commas.pointed(column, text or "", f"item {item}")
                for text, item in zip(cells, ids.to_pylist(), strict=True)
            ]
        values = np.full((len(cells), len(fields)), np.nan)
        for at, (text, item) in enumerate(zip(cells, ids.to_pylist(), strict=True)):
            place = f"{file}, item {item}"
            if vectors.element(fields[0]):
                values[at] = vectors.read(place, column, text, len(fields))
                continue
            try:
                values[at] = number(text)
            except ValueError as error:
                raise UserError(
                    f"{place}: the column {column!r} holds no number ({error}): correct it, or "
                    "leave the cell empty if the number is missing"
                ) from None
        found |= {name: pa.array(values[:, at], from_pandas=True) for at, name in enumerate(fields)}
    return found


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells as texts, null where they are empty."""
    texts = parquet.texts(column)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return _text(pc.utf8_trim_whitespace(column))
