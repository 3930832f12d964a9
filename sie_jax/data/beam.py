"""Preparing on Apache Beam: the rows that `preparing` would leave, made on any runner's machines.

The driver knows where the rows lie, how many there are, and the counts; texts it does not see. What
is decided of a row alone, of the rows of one query and item, and of a query is decided by the
functions that `cleaning` and `splitting` decide it by.
"""

import functools
import itertools
import shutil
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
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, TypeOptions
from transformers import PreTrainedTokenizerFast

from sie_jax.data import batches, builders, cleaning, preparing, splitting, tokenization
from sie_jax.data.schema import (
    ATTRIBUTE,
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    SPLITS,
    LabelScale,
    as_rejected,
    normalise_query,
)
from sie_jax.data.sources import table
from sie_jax.errors import UserError
from sie_jax.files import read_json, whole_folder, write_json
from sie_jax.tables.spool import CHUNK_ROWS, spool, write_parquet

# rejected rows stand in the order of the rules that reject them, as in `preparing.select`
STAGES = ("unreadable", "cleaning", "splitting", "tokenising")


class Part(NamedTuple):
    """Rows that one worker reads: how many, which is the first, and what reads them.

    `read` gives, at most CHUNK_ROWS rows at a time, a table with the columns of RAW_SCHEMA and one
    of REJECTED_SCHEMA with what was no row; of `rows` rows both together.
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
    groups: Sequence[table.RowGroup], *, columns: Mapping[str, str], attributes: Sequence[str]
) -> list[Part]:
    """The row groups of a team's own table, read as `table.read` reads them, without raters."""
    further = {ATTRIBUTE + name: name for name in attributes}
    return [
        Part(group.first, group.rows, functools.partial(_table_rows, group, columns, further))
        for group in groups
    ]


def store(
    sources: Sequence[Part],
    workdir: Path,
    *,
    scale: LabelScale,
    location: str,
    unreadable: pa.Table,
    catalogue: pa.Table | None,
    summary: Mapping[str, Any],
    max_query_characters: int,
    max_title_characters: int,
    validation: float,
    test: float,
    seed: int,
    tokenizer_folder: str,
    item_text: bool,
    max_length: int,
    buckets: int,
    options: Sequence[str] = (),
) -> None:
    """Leaves in the workdir what `preparing.select` and `preparing.store` leave, row for row.

    The workdir is a folder that all workers see. What lies in between is below workdir/.data.tmp,
    some twice the size of the texts, and is removed. Of `TokenizedPairs` there are more files than
    `preparing.store` writes, of the same records; TFDS's builder writes them on the same runner,
    one split after the other, and keeps one pipeline for all: what it writes before the last split
    it writes again, so that the largest split is the last.

    Args:
      sources: where the rows are.
      scale, location, unreadable, catalogue, summary: as in `Source`; no catalogue is kept where
        it is None.
      tokenizer_folder: of a Hugging Face tokenizer; it goes to the workers with the work.
      options: Beam's flags, as in ["--runner=FlinkRunner", "--flink_master=HOST:8081"]; those that
        Beam does not know are left out with a warning.
      others: as in `preparing`.

    Raises:
      UserError: as `preparing`; and where hashing leaves a split without a query, which happens
        with few queries, and which `splitting.split` mends by moving one.
    """
    cleaning.check_limits(max_query_characters, max_title_characters)
    splitting.check_shares(validation, test)
    tokenizer = tokenization.load(tokenizer_folder)
    with whole_folder(workdir / "data") as temporary:
        folder = temporary / "parts"
        for name in ("pairs", "tokens", *STAGES):
            (folder / name).mkdir(parents=True)
        write_parquet(folder / "unreadable" / f"{0:015d}.parquet", unreadable)
        with _pipeline(options) as pipeline:
            _rows(
                pipeline,
                sources,
                folder,
                cleaner=_Cleaner(scale, max_query_characters, max_title_characters, seed),
                finisher=_Finisher(
                    folder, scale, tokenizer, item_text, max_length, validation, test
                ),
                groups=max(1, sum(part.rows for part in sources) // CHUNK_ROWS),
            )
        reports = sorted(read_json(folder / "reports.json"), key=lambda report: report["start"])
        total = _total(reports)
        _check(total, read_json(folder / "repeated.json"), scale)
        builders.write(
            temporary / "tokens",
            {name: _shards(reports, folder, name) for name in ("validation", "test", "train")},
            beam_runner=_options(options).view_as(StandardOptions).runner or "DirectRunner",
            beam_options=_options(options),
        )
        _concatenate(folder / "pairs", temporary / "pairs.parquet")
        rejected = _spooled(
            [path for stage in STAGES for path in sorted((folder / stage).iterdir())]
        )
        lengths = [int(length) for length in total["lengths"]]
        if catalogue is not None:
            repaired = cleaning.repair_catalogue(catalogue)
            write_parquet(temporary / "catalogue.parquet", repaired)
        queries = dict(read_json(folder / "queries.json"))
        shutil.rmtree(folder)  # before the files that stay are listed
        preparing.describe(
            temporary,
            tokenizer=tokenizer,
            scale=scale,
            boundaries=batches.bucket_lengths(
                np.repeat(lengths, list(total["lengths"].values())),
                buckets=buckets,
                max_length=max_length,
            ),
            rejected=rejected,
            counts={
                "source": location,
                "summary": dict(summary),
                "read": unreadable.num_rows + sum(part.rows for part in sources),
                "kept": sum(total["splits"].values()),
                "repaired": {name: total["repaired"][name] for name in cleaning.REPAIRS},
                "splits": {name: total["splits"][name] for name in SPLITS},
                "queries": {name: queries[name] for name in SPLITS},
            },
        )


# ---------------------------------------------------------------------------- on the workers


class _Piece(NamedTuple):
    """What others must be compared with, of some rows of the chunk that begins at `start`."""

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


def _rows(
    pipeline: beam.Pipeline,
    sources: Sequence[Part],
    folder: Path,
    *,
    cleaner: "_Cleaner",
    finisher: "_Finisher",
    groups: int,
) -> None:
    """Files of prepared rows below `folder`, and what they amount to as JSON.

    Rows travel in chunks with the place of their first row as key; what has to be compared
    travels without the texts, in as many groups as there are chunks, about.
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
    reports = finished | "Counts" >> beam.Map(lambda one: one["report"])
    for name, found in (("reports", reports), ("queries", queries), ("repeated", repeated)):
        _ = (
            found
            | f"All {name}" >> beam.combiners.ToList()
            | f"Leave {name}" >> beam.Map(_leave, folder / f"{name}.json")
        )


class _Cleaner(NamedTuple):
    scale: LabelScale
    max_query_characters: int
    max_title_characters: int
    seed: int

    def chunks(self, part: Part, folder: Path) -> Iterator[tuple[int, _Chunk]]:
        start = part.first
        for raw, unreadable in part.read():
            if unreadable.num_rows:
                write_parquet(folder / "unreadable" / _name(start), unreadable)
            if raw.num_rows:
                yield start, self._chunk(start, cleaning.in_schema(raw))
            start += raw.num_rows + unreadable.num_rows

    def _chunk(self, start: int, raw: pa.Table) -> _Chunk:
        found = cleaning.inspect(
            raw,
            self.scale,
            max_query_characters=self.max_query_characters,
            max_title_characters=self.max_title_characters,
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
        places = np.array([splitting.uniform(text, self.seed) for text in normal])[query]
        packed = _packed(raw), _packed(found.repaired)
        return _Chunk(*packed, found.reasons, found.changes, places, piece)


def _dealt(piece: _Piece, digests: np.ndarray, groups: int) -> Iterator[tuple[int, _Piece]]:
    """The piece's rows in groups, the same digests in the same group wherever they come from."""
    group = digests["high"] % np.uint64(groups)
    for number in np.unique(group):
        yield int(number), piece.only(group == number)


def _compared(group: tuple[int, Iterable[_Piece]]) -> Iterator[tuple[_Piece, np.ndarray]]:
    """The pieces of one group again, each with its rows' `Inspected.reasons`."""
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
    """For each chunk its rows in one group, and the place in SPLITS that their query has."""
    pieces = list(group[1])
    _, query = np.unique(np.concatenate([piece.queries for piece in pieces]), return_inverse=True)
    given = np.concatenate([piece.given for piece in pieces])
    heaviest = np.zeros(query.max() + 1, given.dtype)
    np.maximum.at(heaviest, query, given)
    ends = np.cumsum([len(piece.rows) for piece in pieces])
    for piece, found in zip(pieces, np.split(heaviest[query], ends[:-1]), strict=True):
        yield piece.start, (piece.rows, found)


class _Finisher(NamedTuple):
    folder: Path
    scale: LabelScale
    tokenizer: PreTrainedTokenizerFast
    item_text: bool
    max_length: int
    validation: float
    test: float

    def finish(self, keyed: tuple[int, dict[str, list]], given: list[int]) -> dict[str, Any]:
        """Writes the files of one chunk and gives what they amount to."""
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
            [SPLITS[place] for place in given], validation=self.validation, test=self.test
        )
        names = [
            SPLITS[held] if held else splitting.carved(place, wanted)
            for held, place in zip(heaviest[keep], chunk.places[keep], strict=True)
        ]
        split = pa.array(names, pa.string())
        kept = clean.set_column(clean.column_names.index("split"), "split", split)
        kept = kept.filter(pa.array(~leaked))
        encoded = preparing.encoded(
            kept, self.tokenizer, item_text=self.item_text, max_length=self.max_length
        )
        tokens = pa.Table.from_batches(encoded, builders.TOKENS_SCHEMA)
        lengths = pc.list_value_length(tokens["input_ids"])
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
                write_parquet(self.folder / stage / _name(start), dropped)
        tokens = tokens.append_column("split", kept["split"]).filter(fits)
        kept = kept.append_column("length", lengths).filter(fits)
        write_parquet(self.folder / "pairs" / _name(start), kept)
        write_parquet(self.folder / "tokens" / _name(start), tokens)
        return {
            "ids": clean["example_id"].to_pylist(),
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
                    for place, rule in enumerate(cleaning.REPAIRS)
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
    """The id of one group that most rows have, where they are several."""
    counts = Counter(one for ids in group[1] for one in ids)
    yield from (found for found in counts.most_common(1) if found[1] > 1)


def _row_group(file: str, group: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    for batch in pq.ParquetFile(file).iter_batches(CHUNK_ROWS, row_groups=[group]):
        yield pa.Table.from_batches([batch]), REJECTED_SCHEMA.empty_table()


def _table_rows(
    group: table.RowGroup, columns: Mapping[str, str], further: Mapping[str, str]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    schema = pa.schema([*RAW_SCHEMA, *(pa.field(name, pa.string()) for name in further)])
    rows = table.rows_of(group, columns=columns, further=further)
    while piece := list(itertools.islice(rows, CHUNK_ROWS)):
        readable = [row for row in piece if "reason" not in row]
        unreadable = [row for row in piece if "reason" in row]
        yield (
            pa.Table.from_pylist(readable, schema=schema),
            pa.Table.from_pylist(unreadable, schema=REJECTED_SCHEMA),
        )


def _packed(rows: pa.Table) -> bytes:
    """The rows as bytes: pickle would take along all that a slice is cut from."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _unpacked(packed: bytes) -> pa.Table:
    return pa.ipc.open_stream(packed).read_all()


def _name(start: int) -> str:
    return f"{start:015d}.parquet"


def _leave(found: list[Any], path: Path) -> None:
    write_json(path, found)


# ----------------------------------------------------------------------------- on the driver


def _options(flags: Sequence[str]) -> PipelineOptions:
    options = PipelineOptions(list(flags))
    # Beam guesses types of what it cannot see into, and TFDS's own transforms fail by its guesses
    options.view_as(TypeOptions).pipeline_type_check = False
    return options


def _pipeline(flags: Sequence[str]) -> beam.Pipeline:
    try:
        return beam.Pipeline(options=_options(flags))
    except ValueError as error:  # a runner that is none, or a flag that its runner needs
        raise UserError(f"Beam's flags {' '.join(flags)}: {error}") from None


def _total(reports: Sequence[dict[str, Any]]) -> dict[str, Counter[str]]:
    """The counts of all chunks together."""
    names = ("read", "labels", "broken", "repaired", "splits", "lengths")
    return {
        name: sum((Counter(report[name]) for report in reports), Counter()) for name in names
    } | {"given": Counter(split for report in reports for split in report["given"])}


def _check(
    total: Mapping[str, Counter[str]],
    repeated: Sequence[tuple[str, int]],
    scale: LabelScale,
) -> None:
    """Raises UserError for what cannot be used, in the order in which `preparing` finds it."""
    rows = total["read"]["rows"]
    cleaning.check_read(total["labels"], scale)
    cleaning.check_kept({rule: total["broken"][rule] for rule in cleaning.RULES}, rows)
    if repeated:
        raise cleaning.repeated_id(*max(repeated, key=lambda found: found[1]))
    splitting.check_given(total["given"])
    if lacking := [name for name in SPLITS if not total["splits"][name]]:
        raise UserError(
            f"splitting: {' and '.join(lacking)} would have no query; with so few queries prepare "
            "on one machine, with train.py"
        )


def _shards(reports: Sequence[dict[str, Any]], folder: Path, split: str) -> list[builders.Shard]:
    """A shard for each chunk that has rows of this split."""
    shards, first = [], 0
    for report in reports:
        if rows := report["splits"].get(split):
            path = folder / "tokens" / _name(report["start"])
            shards.append(builders.Shard(first, functools.partial(_tokens, path, split)))
            first += rows
    return shards


def _tokens(path: Path, split: str) -> pa.Table:
    tokens = pq.read_table(path)
    return tokens.filter(pc.equal(tokens["split"], split)).select(builders.TOKENS_SCHEMA.names)


def _concatenate(folder: Path, path: Path) -> None:
    """The Parquet files of a folder as one, in the order of their names."""
    files = sorted(folder.iterdir())
    with pq.ParquetWriter(path, pq.read_schema(files[0])) as writer:
        for file in files:
            writer.write_table(pq.read_table(file))


def _spooled(files: Sequence[Path]) -> pa.Table:
    """The rejected rows of Parquet files as one table on disk, the columns of all in it."""
    schema = pa.unify_schemas([REJECTED_SCHEMA, *map(pq.read_schema, files)])
    return spool(
        (
            batch
            for file in files
            for batch in pa.concat_tables(
                [schema.empty_table(), pq.read_table(file)], promote_options="default"
            ).to_batches()
        ),
        schema,
    )
