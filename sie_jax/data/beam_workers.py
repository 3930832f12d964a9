"""What Beam's workers do to rows: read, clean, compare, split, tokenise and write them.

What depends on a row alone, on the rows of one query and item, and on a query is decided by the
functions by which `cleaning` and `splitting` decide it.
"""

import functools
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from sie_jax.data import builders, cleaning, preparing, repairs, splitting
from sie_jax.data.preparing import Encoding, Rules
from sie_jax.data.readers.parquet import RowGroup
from sie_jax.data.schema import (
    REJECTED_SCHEMA,
    SPLITS,
    LabelScale,
    as_rejected,
    normalise_query,
)
from sie_jax.data.sources import table
from sie_jax.errors import UserError
from sie_jax.files import write_json
from sie_jax.tables.spool import CHUNK_ROWS, write_parquet

REFUSED = "refused"
"""The folder of what workers found that the user has to mend; it tells this to the first process,
since of an exception a runner may keep only a part of the text."""


class Part(NamedTuple):
    """Rows that one worker reads: the place of the first, how many they are, and what reads them.

    `read` gives two tables for at most CHUNK_ROWS rows at a time: one with the columns of
    RAW_SCHEMA, and one of REJECTED_SCHEMA with what is not a row. `rows` counts the rows of both.
    """

    first: int
    rows: int
    read: Callable[[], Iterator[tuple[pa.Table, pa.Table]]]


def parts(files: Sequence[str | Path]) -> list[Part]:
    """The row groups of Parquet files with the columns of RAW_SCHEMA, in order."""
    found, first = [], 0
    for file in files:
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            found.append(Part(first, rows, functools.partial(_row_group, str(file), group)))
            first += rows
    return found


def table_parts(
    groups: Sequence[RowGroup], *, columns: Mapping[str, str], further: Mapping[str, str]
) -> list[Part]:
    """The row groups of a team's own table, read as `table.read` reads them, without raters."""
    return [
        Part(group.first, group.rows, functools.partial(_table_rows, group, columns, further))
        for group in groups
    ]


class _Piece(NamedTuple):
    """What rows are compared by, for some rows of the chunk that begins at `start`."""

    start: int
    rows: np.ndarray  # places within the chunk
    pairs: np.ndarray
    judgments: np.ndarray
    labels: np.ndarray
    queries: np.ndarray
    given: np.ndarray

    def only(self, mask: np.ndarray) -> "_Piece":
        return _Piece(self.start, *(column[mask] for column in self[1:]))


class _Chunk(NamedTuple):
    raw: bytes
    repaired: bytes
    reasons: np.ndarray
    changes: np.ndarray
    places: np.ndarray  # of the rows' queries, `splitting.uniform`
    piece: _Piece


def write_rows(
    pipeline: beam.Pipeline,
    sources: Sequence[Part],
    folder: Path,
    *,
    cleaner: "Cleaner",
    finisher: "Finisher",
    groups: int,
) -> None:
    """Adds to the pipeline what writes prepared rows below `folder`, and their counts as JSON.

    Rows travel in chunks, with the place of their first row as key. What is compared travels
    without the texts, in `groups` groups.
    """
    chunks = (
        pipeline
        | "Parts" >> beam.Create(sources)
        | "Spread" >> beam.Reshuffle()
        | "Read and clean" >> beam.FlatMap(cleaner.chunks, folder=folder)
    )
    compared = (
        chunks
        | "By pair" >> beam.FlatMap(lambda one: _dealt(one[1].piece, one[1].piece.pairs, groups))
        | "Pairs" >> beam.GroupByKey()
        | "Compare" >> beam.FlatMap(_compared)
    )
    heaviest = (
        compared
        | "By query" >> beam.FlatMap(_surviving, groups)
        | "Queries" >> beam.GroupByKey()
        | "Splits" >> beam.FlatMap(_heaviest)
    )
    given = (
        heaviest
        | "Given splits" >> beam.FlatMap(lambda one: np.unique(one[1][1]).tolist())
        | "Each once" >> beam.Distinct()
        | "All of them" >> beam.combiners.ToList()
    )
    finished = (
        {
            "chunk": chunks,
            "compared": compared | beam.Map(lambda one: (one[0].start, (one[0].rows, one[1]))),
            "heaviest": heaviest,
        }
        | "Together" >> beam.CoGroupByKey()
        | "Tokenise and write" >> beam.Map(finisher.finish, given=beam.pvalue.AsSingleton(given))
    )
    queries = (
        finished
        | "Query ids" >> beam.FlatMap(lambda one: one["queries"])
        | "Once" >> beam.Distinct()
        | "Splits of queries" >> beam.Map(lambda one: one[0])
        | "Count" >> beam.combiners.Count.PerElement()
    )
    repeated = (
        finished
        | "Example ids" >> beam.FlatMap(_ids_dealt, groups)
        | "Ids" >> beam.GroupByKey()
        | "Repeated" >> beam.FlatMap(_repeated)
    )
    shared = (
        finished
        | "Texts of query ids" >> beam.FlatMap(lambda one: one["texts"])
        | "Texts by id" >> beam.GroupByKey()
        | "Two of each" >> beam.MapTuple(lambda query_id, texts: (query_id, sorted(set(texts))[:2]))
        | "Shared" >> beam.Filter(lambda one: len(one[1]) > 1)
    )
    reports = finished | "Counts" >> beam.Map(lambda one: one["report"])
    left = {"reports": reports, "queries": queries, "repeated": repeated, "shared": shared}
    for name, found in left.items():
        listed = found | f"All {name}" >> beam.combiners.ToList()
        _ = listed | f"Leave {name}" >> beam.Map(_leave, folder / f"{name}.json")


class Cleaner(NamedTuple):
    """Reads and repairs rows, and checks what depends on each alone."""

    scale: LabelScale
    rules: Rules

    def chunks(self, part: Part, folder: Path) -> Iterator[tuple[int, _Chunk]]:
        """The rows of a part by the place of each chunk's first row.

        Where the part cannot be read, the reason is left in REFUSED, and rows may be lacking.
        """
        start = part.first
        try:
            for raw, unreadable in part.read():
                if unreadable.num_rows:
                    write_parquet(folder / "unreadable" / file_name(start), unreadable)
                if raw.num_rows:
                    yield start, self._chunk(start, cleaning.in_schema(raw))
                start += raw.num_rows + unreadable.num_rows
        except UserError as error:
            write_json(folder / REFUSED / f"{part.first:015d}.json", str(error))

    def _chunk(self, start: int, raw: pa.Table) -> _Chunk:
        found = cleaning.inspect(
            raw,
            self.scale,
            max_query_characters=self.rules.max_query_characters,
            max_title_characters=self.rules.max_title_characters,
        )
        encoded = found.repaired["query"].combine_chunks().dictionary_encode()
        normal = [normalise_query(query) for query in encoded.dictionary.to_pylist()]
        query = encoded.indices.to_numpy()
        rows = np.flatnonzero(found.reasons == 0)
        piece = _Piece(
            start,
            rows,
            found.pairs[rows],
            found.judgments[rows],
            found.labels[rows],
            np.array([cleaning.digest_of(text) for text in normal], cleaning.DIGEST)[query[rows]],
            splitting.given_places(found.repaired)[rows],
        )
        places = np.array([splitting.uniform(text, self.rules.seed) for text in normal])[query]
        packed = _packed(raw), _packed(found.repaired)
        return _Chunk(*packed, found.reasons, found.changes, places, piece)


def _dealt(piece: _Piece, digests: np.ndarray, groups: int) -> Iterator[tuple[int, _Piece]]:
    """The piece's rows in groups; equal digests of all pieces come into the same group."""
    group = digests["high"] % np.uint64(groups)
    for number in np.unique(group):
        yield int(number), piece.only(group == number)


def _compared(group: tuple[int, Iterable[_Piece]]) -> Iterator[tuple[_Piece, np.ndarray]]:
    """The pieces of one group, each with the `Inspected.reasons` of its rows."""
    pieces = sorted(group[1], key=lambda piece: piece.start)
    reasons = cleaning.compare(
        *(
            np.concatenate([getattr(piece, name) for piece in pieces])
            for name in ("pairs", "judgments", "labels")
        )
    )
    ends = np.cumsum([len(piece.rows) for piece in pieces])
    yield from zip(pieces, np.split(reasons, ends[:-1]), strict=True)


def _surviving(compared: tuple[_Piece, np.ndarray], groups: int) -> Iterator[tuple[int, _Piece]]:
    piece = compared[0].only(compared[1] == 0)
    return _dealt(piece, piece.queries, groups)


def _heaviest(
    group: tuple[int, Iterable[_Piece]],
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """For each chunk its rows in one group, and the place in SPLITS of their query."""
    pieces = list(group[1])
    _, query = np.unique(np.concatenate([piece.queries for piece in pieces]), return_inverse=True)
    given = np.concatenate([piece.given for piece in pieces])
    heaviest = np.zeros(query.max() + 1, given.dtype)
    np.maximum.at(heaviest, query, given)
    ends = np.cumsum([len(piece.rows) for piece in pieces])
    for piece, found in zip(pieces, np.split(heaviest[query], ends[:-1]), strict=True):
        yield piece.start, (piece.rows, found)


class Finisher(NamedTuple):
    """Splits, tokenises and writes the rows of a chunk once all that they depend on is known."""

    folder: Path
    scale: LabelScale
    tokenizer: PreTrainedTokenizerFast
    rules: Rules
    encoding: Encoding

    def finish(self, keyed: tuple[int, dict[str, list]], given: list[int]) -> dict[str, Any]:
        """Writes the files of one chunk and gives their counts."""
        start, found = keyed
        (chunk,) = found["chunk"]
        reasons, heaviest = np.array(chunk.reasons), np.zeros(len(chunk.reasons), np.int64)
        for rows, values in found["compared"]:
            reasons[rows] = values
        for rows, values in found["heaviest"]:
            heaviest[rows] = values
        raw, repaired, keep = _unpacked(chunk.raw), _unpacked(chunk.repaired), reasons == 0
        clean = cleaning.graded(repaired.filter(pa.array(keep)), self.scale)
        leaked = splitting.given_places(clean) != heaviest[keep]
        wanted = splitting.to_carve(
            [SPLITS[place] for place in given],
            validation=self.rules.validation,
            test=self.rules.test,
        )
        names = [
            SPLITS[held] if held else splitting.carved(place, wanted)
            for held, place in zip(heaviest[keep], chunk.places[keep], strict=True)
        ]
        split = pa.array(names, pa.string())
        kept = clean.set_column(clean.column_names.index("split"), "split", split)
        kept = kept.filter(pa.array(~leaked))
        encoded = preparing.encoded(kept, self.tokenizer, self.encoding)
        tokens = pa.Table.from_batches(encoded, builders.TOKENS_SCHEMA)
        lengths = pa.array(preparing.places(tokens, self.encoding), pa.int32())
        fits = pc.greater(lengths, 0)
        rejected = {
            "cleaning": cleaning.with_reasons(raw.filter(pa.array(~keep)), reasons[~keep]),
            "splitting": as_rejected(
                splitting.with_reasons(clean.filter(pa.array(leaked)), heaviest[keep][leaked]),
                self.scale,
            ),
            "tokenising": preparing.without_room(kept.filter(pc.invert(fits)), self.scale),
        }
        for stage, dropped in rejected.items():
            if dropped.num_rows:
                write_parquet(self.folder / stage / file_name(start), dropped)
        tokens = tokens.append_column("split", kept["split"]).filter(fits)
        kept = kept.append_column("length", lengths).filter(fits)
        write_parquet(self.folder / "pairs" / file_name(start), kept)
        write_parquet(self.folder / "tokens" / file_name(start), tokens)
        return {
            "ids": clean["example_id"].to_pylist(),
            "texts": sorted(
                (one["query_id"], normalise_query(one["query"]))
                for one in clean.group_by(["query_id", "query"]).aggregate([]).to_pylist()
            ),
            "queries": sorted(
                {
                    (one["split"], one["query_id"])
                    for one in kept.select(["split", "query_id"]).to_pylist()
                }
            ),
            "report": {
                "start": start,
                "read": {"rows": raw.num_rows},
                "labels": dict(Counter(raw["label"].to_pylist()).most_common(100)),
                "given": clean["split"].unique().to_pylist(),
                "broken": {
                    rule: int((reasons == place).sum())
                    for place, rule in enumerate(cleaning.RULES, 1)
                },
                "repaired": {
                    rule: int(chunk.changes[keep, place].sum())
                    for place, rule in enumerate(repairs.REPAIRS)
                },
                "splits": dict(Counter(kept["split"].to_pylist())),
                "lengths": dict(Counter(kept["length"].to_pylist())),
            },
        }


def _ids_dealt(finished: dict[str, Any], groups: int) -> Iterator[tuple[int, list[str]]]:
    dealt: dict[int, list[str]] = {}
    for one in finished["ids"]:
        dealt.setdefault(zlib.crc32(one.encode()) % groups, []).append(one)
    yield from dealt.items()


def _repeated(group: tuple[int, Iterable[list[str]]]) -> Iterator[tuple[str, int]]:
    """The most frequent id of one group, if it has several rows."""
    counts = Counter(one for ids in group[1] for one in ids)
    yield from (found for found in counts.most_common(1) if found[1] > 1)


def _row_group(file: str, group: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    for batch in pq.ParquetFile(file).iter_batches(CHUNK_ROWS, row_groups=[group]):
        yield pa.Table.from_batches([batch]), REJECTED_SCHEMA.empty_table()


def _table_rows(
    group: table.RowGroup, columns: Mapping[str, str], further: Mapping[str, str]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    schema = table.schema_of(columns, further)
    rows = table.rows_of(group, columns=columns, further=further)
    while piece := list(itertools.islice(rows, CHUNK_ROWS)):
        readable = [row for row in piece if "reason" not in row]
        unreadable = [row for row in piece if "reason" in row]
        yield (
            pa.Table.from_pylist(readable, schema=schema),
            pa.Table.from_pylist(unreadable, schema=REJECTED_SCHEMA),
        )


def _packed(rows: pa.Table) -> bytes:
    """The rows as bytes: pickle would take along the whole table that a slice is cut from."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _unpacked(packed: bytes) -> pa.Table:
    return pa.ipc.open_stream(packed).read_all()


def file_name(start: int) -> str:
    return f"{start:015d}.parquet"


def _leave(found: list[Any], path: Path) -> None:
    write_json(path, found)
