"""ImportanceTable: one row per training pair with its scores and weight, kept as Parquet.

Columns: example_id, query_id, item_id (strings), label (int32), one float32 column per score, and
`weight` (float32, mean 1: N times the normalised weight). A table of scores that is to be joined to
another needs example_id and its scores alone.

A table is a file, or a folder of parts `part-<process>-<number>.parquet`, read in the order of
their names. Each part is there whole or not at all, and a folder that a process has not finished
is refused. What is larger than memory is read with `batches`, put into another order with
`in_order`, and put together with `join`: all three hold a bounded number of rows at a time.

Each score carries its `Provenance` in the Parquet metadata, under the key `sie_jax.provenance`, as
JSON by column: every Parquet reader shows it. Scores of other data than those at hand are refused.
"""

import dataclasses
import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sie_jax.errors import UserError
from sie_jax.files import whole, whole_folder

IDENTITY = ("example_id", "query_id", "item_id", "label")
DATA = ("example_id", "query", "title", "text", "label")
"""The columns of the pairs that decide what their scores are."""

_TYPES = {name: pa.int32() if name == "label" else pa.string() for name in IDENTITY}
_PROVENANCE, _PART = b"sie_jax.provenance", b"sie_jax.part"
_NUMBERED = pa.schema({"example_id": pa.string(), "position": pa.int64()})
_NAME = re.compile(r"part-(\d+)-(\d+)\.parquet")
# what is held in memory at a time: few rows where a row is a long vector
_MOST_ROWS, _MOST_BYTES = 1 << 20, 256 << 20
_MOST_PARTITIONS = 512  # files open at a time; systems allow 1024 and less
_SHOWN = 3  # example ids that an error names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a column of scores (or weights, or vectors) comes from.

    score: the name of the estimator (or policy), whatever the column is called.
    checkpoint: the parameters that were scored: their digest, or the checkpoint's path and step.
    seed: the seed of the pass or of the training before it.
    data_version: `data_version` of the pairs that were scored.
    config: a digest of the configuration.
    """

    score: str
    checkpoint: str
    seed: int
    data_version: str
    config: str


def build(
    identity: pa.Table,
    scores: dict[str, np.ndarray],
    weights: np.ndarray,
    *,
    provenance: Mapping[str, Provenance] | None = None,
) -> pa.Table:
    """Joins identity columns `[N]`, scores `[N]` and normalised weights `[N]` (sum 1) to one table.

    The weight column holds N · w_i. Scores keep the sign of their estimator. `provenance` has an
    entry for every score and for `weight`; it stays with the table when that is written.

    Raises:
      ValueError: the lengths differ, or `provenance` is not of exactly these columns and one data
        version.
    """
    rows = identity.num_rows
    for name, values in {**scores, "weights": weights}.items():
        if values.shape != (rows,):
            raise ValueError(f"{name} has shape {values.shape}, expected ({rows},)")
    table = identity.select(IDENTITY)
    for name, values in scores.items():
        table = table.append_column(name, pa.array(values.astype(np.float32)))
    table = table.append_column("weight", pa.array((weights * rows).astype(np.float32)))
    return table if provenance is None else table.replace_schema_metadata(_kept(table, provenance))


def read(path: Path, *, data_version: str | None = None) -> pa.Table:
    """Reads a table into memory: a Parquet file, or a folder of parts in the order of their names.

    Raises:
      UserError: there is no table, a process has not finished it, or (where `data_version` is
        given) its scores are not of that data, as `require` says.
    """
    if data_version is not None:
        require(path, data_version)
    table = pa.concat_tables([pq.read_table(part) for part in _parts(path)])
    metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k != _PART}
    return table.replace_schema_metadata(metadata)


def batches(
    path: Path, *, columns: Sequence[str] | None = None, rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a table in their order, at most `rows` at a time: the memory of one batch.

    Args:
      columns: those to read, in this order; all where None.
      rows: 131,072 where None, and less where the rows hold vectors.

    Raises:
      UserError: as `read`.
    """
    parts = _parts(path)
    rows = rows or _rows_in_memory(pq.read_schema(parts[0])) // 8
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                yield batch if columns is None else batch.select(columns)


def write_parts(
    folder: Path,
    tables: Iterable[pa.Table],
    *,
    process_index: int,
    process_count: int = 1,
    provenance: Mapping[str, Provenance],
    part_rows: int | None = None,
) -> None:
    """Writes the rows of one process as the parts `part-<process>-<number>.parquet` of `folder`.

    Rows of `tables` are regrouped: each part has `part_rows` rows, the last one less. What this
    process wrote there before is removed first. Every process writes to the same folder, the order
    does not matter. The table can be read once the last part of every process is there.

    Memory: one part and one of `tables`.

    Args:
      tables: at least one, of one schema: example_id, any of the other identity columns, and
        columns of float32, or of fixed-size lists of float32. Without rows, one empty table.
      process_index, process_count: as `jax.process_index()` and `jax.process_count()`.
      provenance: of every column but the identity, all of one data version.
      part_rows: 1,048,576 where None, and less where the rows hold vectors.

    Raises:
      ValueError: a column has another type, an example_id is null, the schemas differ, there is no
        table, the process is none of the processes, or `provenance` is not of these columns.
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f"process {process_index} is none of {process_count} processes")
    for old in folder.glob(f"part-{process_index:05}-*.parquet"):
        old.unlink()
    remaining = iter(tables)
    first = next(remaining, None)
    if first is None:
        raise ValueError(f"no tables for {folder}: give an empty one where there are no rows")
    _check_types(first.schema)
    kept = _kept(first, provenance)
    part_rows = part_rows or _rows_in_memory(first.schema)
    groups = _regrouped(chain([first], remaining), part_rows)
    for number, (part, last) in enumerate(groups):
        if part["example_id"].null_count:
            raise ValueError(f"{part['example_id'].null_count} rows of a part have no example_id")
        about = json.dumps({"processes": process_count, "last": last})
        part = part.replace_schema_metadata({**kept, _PART: about.encode()})
        with whole(folder / f"part-{process_index:05}-{number:05}.parquet") as temporary:
            # a reader holds a row group at a time
            pq.write_table(part, temporary, row_group_size=-(-part_rows // 8))


def in_order(
    path: Path,
    example_ids: pa.ChunkedArray | Iterable[pa.Array],
    *,
    columns: Sequence[str],
    data_version: str | None = None,
    partition_rows: int | None = None,
) -> Iterator[pa.Table]:
    """The columns of a table in the order of `example_ids`, `partition_rows` rows at a time.

    Both sides are scattered over P files by a hash of the id, P = rows / partition_rows; each pair
    of files is matched in memory; the blocks are then put together by row number. Equal ids, never
    equal hashes alone, match. Nothing is read before the first block is asked for.

    Memory: a few times the bytes of `partition_rows` rows, whatever the number of rows (up to 512
    times `partition_rows`; beyond that it grows with the rows). Disk: the ids and the columns,
    twice at most, in the folder for temporary files (TMPDIR says where), gone with the iterator.
    Time: linear in the rows.

    Args:
      example_ids: strings, in chunks of any size. Each id of the table exactly once.
      columns: those to give; the ids are not repeated.
      data_version: checked with `require` where given.
      partition_rows: 1,048,576 where None, and less where the rows hold vectors.

    Yields:
      Tables of `columns`, all of `partition_rows` rows but the last. One empty table for no rows.

    Raises:
      UserError: an id is missing, left over, repeated on either side, or null: the line counts
        them, over the whole table, and names the first few. Or as `require` and `read`.
    """
    if data_version is not None:
        require(path, data_version)
    yield from _ordered(path, example_ids, columns, partition_rows, asked="the rows asked for")


def join(
    left: Path,
    right: Path,
    out: Path,
    *,
    columns: Sequence[str],
    partition_rows: int | None = None,
) -> None:
    """Writes to the folder `out` the table `left` with `columns` of the table `right` beside it.

    Rows are matched by example_id and keep the order of `left`, in parts of `partition_rows` rows.
    Each id must be on both sides, once; so no row is lost or doubled. `out` appears when all is
    written. Provenance comes along. Memory, disk and time: as `in_order`.

    Raises:
      UserError: an id is missing on one side, repeated, or null: the line counts them and names the
        first few. The data versions differ, or one side has none. Or as `read`.
      ValueError: `out` is there already; a column is not a score of `right`, or is in `left` too.
    """
    if out.exists():
        raise ValueError(f"{out} is there already: remove it, or join to another folder")
    there, here = provenance(right), provenance(left)
    versions = [_version(left, here), _version(right, there)]
    if versions[0] != versions[1]:
        raise UserError(
            f"{left} was computed on data {versions[0][:12]}, {right} on data {versions[1][:12]}: "
            "score both on the same data"
        )
    own, other = (pq.read_schema(_parts(path)[0]) for path in (left, right))
    if unknown := [name for name in columns if name not in there]:
        raise ValueError(f"{right}: no scores {', '.join(unknown)}")
    if doubled := [name for name in columns if name in own.names]:
        raise ValueError(f"{left}: has a column {', '.join(doubled)} already")
    added = pa.schema([other.field(name) for name in columns])
    rows = partition_rows or min(_rows_in_memory(own), _rows_in_memory(added))
    ids = (batch["example_id"] for batch in batches(left, columns=["example_id"]))
    blocks = _ordered(right, ids, columns, rows, asked=str(left))

    def joined() -> Iterator[pa.Table]:
        some = (pa.Table.from_batches([batch]) for batch in batches(left))
        mine = _regrouped(chain([own.empty_table()], some), rows)
        # the blocks first: they are matched, and errors found, before anything is written
        for block, (table, _) in zip(blocks, mine, strict=True):
            for name in columns:
                table = table.append_column(block.schema.field(name), block[name])
            yield table

    origin = {**here, **{name: there[name] for name in columns}}
    with whole_folder(out) as folder:
        write_parts(folder, joined(), process_index=0, provenance=origin, part_rows=rows)


def provenance(path: Path) -> dict[str, Provenance]:
    """Where each column of scores of a table comes from; empty where the table does not say.

    Raises:
      UserError: the parts of a folder say different things; or as `read`.
    """
    texts = {(pq.read_metadata(part).metadata or {}).get(_PROVENANCE) for part in _parts(path)}
    if len(texts) > 1:
        raise UserError(f"{path}: its parts are of different runs: remove it and score again")
    (text,) = texts
    return {name: Provenance(**value) for name, value in json.loads(text or "{}").items()}


def require(path: Path, data_version: str) -> None:
    """Raises UserError where the scores of a table were not computed on the data of this version.

    So too where the table does not say on what data they were computed.
    """
    found = _version(path, provenance(path))
    if found != data_version:
        raise UserError(
            f"{path}: was computed on data {found[:12]}, but this is data {data_version[:12]}: "
            "remove it and score again, or go back to the data it was computed on"
        )


def data_version(
    pairs: pa.Table | Iterable[pa.RecordBatch], *, columns: Sequence[str] = DATA
) -> str:
    """The SHA-256 of the rows of `columns` in their order, 64 hexadecimal digits.

    Any other text, label, id or order of the rows gives another version. How the rows are cut into
    batches, the order of `columns`, and the widths of integers and of string offsets do not matter.
    Null and "" are different. Memory: one batch. Time: some 0.2 s for a million short pairs.

    Args:
      pairs: the columns of strings or integers, in memory, mapped, or as batches.

    Raises:
      ValueError: a column is missing or of another type.
    """
    rows = 0
    hashes = {name: [hashlib.sha256() for _ in range(3)] for name in sorted(columns)}
    kinds: dict[str, str] = {}
    if isinstance(pairs, pa.Table):
        pairs = pairs.to_batches(max_chunksize=_MOST_ROWS // 8)
    for batch in pairs:
        rows += batch.num_rows
        for name, (nulls, lengths, values) in hashes.items():
            if name not in batch.schema.names:
                raise ValueError(f"no column {name} to take the data version of")
            column = batch[name]
            nulls.update(column.is_null().cast(pa.uint8()).to_numpy().tobytes())
            if pa.types.is_integer(column.type):
                kinds[name] = "integer"
                numbers = column.fill_null(0).cast(pa.int64()).to_numpy()
                values.update(numbers.astype("<i8").tobytes())
            elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                kinds[name] = "string"
                offsets, data = _bytes(column.fill_null(""))
                lengths.update(np.diff(offsets).astype("<i8").tobytes())
                values.update(data.tobytes())
            else:
                raise ValueError(f"column {name} is {column.type}, expected strings or integers")
    digests = {
        name: [kinds.get(name), *(one.hexdigest() for one in several)]
        for name, several in hashes.items()
    }
    return hashlib.sha256(json.dumps([rows, digests]).encode()).hexdigest()


def _parts(path: Path) -> list[Path]:
    """The files of a table in the order of their rows; UserError where some are not there."""
    if path.is_file():
        return [path]
    parts = sorted(path.glob("*.parquet"))
    if not parts:
        raise UserError(f"{path}: no table is here: score first, or name another path")
    written: dict[int, list[tuple[int, bool]]] = {}
    counts = set()
    for part in parts:
        match, about = _NAME.fullmatch(part.name), pq.read_metadata(part).metadata or {}
        if match and _PART in about:  # else a table that others wrote
            facts = json.loads(about[_PART])
            counts.add(facts["processes"])
            written.setdefault(int(match[1]), []).append((int(match[2]), facts["last"]))
    if len(counts) > 1 or (counts and max(written) >= max(counts)):
        raise UserError(f"{path}: its parts are of different runs: remove it and score again")
    for process in range(max(counts, default=0)):
        found = written.get(process, [])
        if found != [(i, i == len(found) - 1) for i in range(len(found))] or not found:
            raise UserError(
                f"{path}: process {process} of {max(counts)} has not finished writing: "
                "run it again to its end"
            )
    return parts


def _version(path: Path, origin: Mapping[str, Provenance]) -> str:
    if not origin:
        raise UserError(f"{path}: does not say on what data it was computed: score again")
    return next(iter(origin.values())).data_version  # `_kept` lets one version in


def _kept(table: pa.Table, origin: Mapping[str, Provenance]) -> dict[bytes, bytes]:
    """The metadata that hold the provenance of a table's columns."""
    scores = [name for name in table.column_names if name not in IDENTITY]
    if set(origin) != set(scores):
        raise ValueError(f"provenance is of {sorted(origin)}, the columns are {sorted(scores)}")
    if len({one.data_version for one in origin.values()}) > 1:
        raise ValueError("the columns of one table are computed on one version of the data")
    facts = {name: dataclasses.asdict(origin[name]) for name in scores}
    return {_PROVENANCE: json.dumps(facts).encode()}


def _check_types(schema: pa.Schema) -> None:
    if "example_id" not in schema.names:
        raise ValueError("a table needs a column example_id")
    for field in schema:
        kind = field.type
        if (expected := _TYPES.get(field.name, pa.float32())) == kind:
            continue
        if field.name not in _TYPES and pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        if kind != expected:
            raise ValueError(f"column {field.name} is {field.type}, expected {expected}")


def _rows_in_memory(schema: pa.Schema) -> int:
    """How many rows of these columns may be held at a time."""
    lists = [kind for kind in schema.types if pa.types.is_fixed_size_list(kind)]
    width = sum(kind.list_size * kind.value_type.byte_width for kind in lists)
    return max(8, min(_MOST_ROWS, _MOST_BYTES // max(width, 1)))


def _regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[tuple[pa.Table, bool]]:
    """The same rows in tables of `rows` rows, the last of 0 to `rows`; and whether it is that."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        if held and not table.schema.equals(held[0].schema):
            raise ValueError(f"tables of different columns: {table.schema}; {held[0].schema}")
        while count + table.num_rows > rows:  # more follows: this one is not the last
            yield pa.concat_tables([*held, table.slice(0, rows - count)]), False
            table = table.slice(rows - count)
            held, count = [], 0
        held.append(table)
        count += table.num_rows
    yield pa.concat_tables(held), True


def _ordered(
    path: Path,
    example_ids: pa.ChunkedArray | Iterable[pa.Array],
    columns: Sequence[str],
    partition_rows: int | None,
    *,
    asked: str,
) -> Iterator[pa.Table]:
    parts = _parts(path)
    schema = pq.read_schema(parts[0])
    if unknown := [name for name in columns if name not in schema.names]:
        raise ValueError(f"{path}: no column {', '.join(unknown)}")
    held = pa.schema([schema.field(name) for name in ("example_id", *columns)])
    rows = partition_rows or _rows_in_memory(held)
    count = sum(pq.read_metadata(part).num_rows for part in parts)
    partitions = max(1, min(-(-count // rows), _MOST_PARTITIONS))
    with tempfile.TemporaryDirectory(prefix="sie_jax-") as name:
        wanted, given, matched = (Path(name, one) for one in ("wanted", "given", "matched"))
        total = _scatter(_numbered(example_ids), _NUMBERED, wanted, partitions, place=asked)
        some = batches(path, columns=held.names)
        _scatter(some, held, given, partitions, place=str(path))
        blocks = max(1, -(-total // rows))
        faults = _Faults(str(path), asked)
        matched.mkdir()
        for i in range(partitions):
            left, right = _taken(wanted / str(i)), _taken(given / str(i))
            found = _match(left["example_id"], right["example_id"], faults)
            if found is None or faults.counts:
                continue  # only count on
            values = right.select(columns).take(found)
            values = values.append_column("position", left["position"])
            # rows are in the order of their positions: those of a block are one slice
            edges = np.arange(blocks + 1) * rows
            cuts = np.searchsorted(left["position"].to_numpy(), edges)
            with pa.ipc.new_file(matched / str(i), values.schema) as writer:
                for start, end in pairwise(cuts):
                    writer.write_batch(values.slice(start, end - start))
        faults.check()
        with ExitStack() as stack:
            files = [
                stack.enter_context(pa.OSFile(str(matched / str(i)))) for i in range(partitions)
            ]
            readers = [stack.enter_context(pa.ipc.open_file(file)) for file in files]
            for block in range(blocks):
                pieces = [reader.get_batch(block) for reader in readers]
                table = pa.Table.from_batches(pieces).combine_chunks()
                place = np.empty(table.num_rows, np.int64)
                place[table["position"].to_numpy() - block * rows] = np.arange(len(place))
                yield table.select(columns).take(pa.array(place))


class _Faults:
    """Example ids that are not on both sides once: how many of each kind, and the first few."""

    def __init__(self, given: str, wanted: str) -> None:
        self.given, self.wanted = given, wanted  # the two sides, as an error calls them
        self.counts: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}

    def add(self, kind: str, ids: pa.Array) -> None:
        if len(ids):
            self.counts[kind] += len(ids)
            first = self._first.setdefault(kind, [])
            first += map(repr, ids.slice(0, _SHOWN - len(first)).to_pylist())

    def check(self) -> None:
        """Raises UserError where there are any."""
        if self.counts:
            found = "; ".join(
                f"{count} {kind} (first {', '.join(self._first[kind])})"
                for kind, count in self.counts.items()
            )
            raise UserError(
                f"{self.given}: every example_id must be there once, and once in {self.wanted}: "
                f"{found}: score the same rows, each once"
            )


def _match(wanted: pa.Array, given: pa.Array, faults: _Faults) -> pa.Array | None:
    """The place in `given` of every id of `wanted`; None where the ids differ.

    The places are those of first occurrences. So they are a permutation exactly where no id is
    missing or repeated on either side.
    """
    found = pc.index_in(wanted, value_set=given)
    if len(wanted) == len(given) and not found.null_count:
        times = np.bincount(found.to_numpy(), minlength=len(given))
        if (times == 1).all():
            return found
    faults.add(f"missing in {faults.given}", wanted.filter(found.is_null()).unique())
    left_over = pc.is_null(pc.index_in(given, value_set=wanted))
    faults.add(f"missing in {faults.wanted}", given.filter(left_over).unique())
    for ids, side in ((given, faults.given), (wanted, faults.wanted)):
        counted = ids.value_counts()
        several = pc.greater(counted.field("counts"), 1)
        faults.add(f"more than once in {side}", counted.field("values").filter(several))
    return None


def _numbered(example_ids: pa.ChunkedArray | Iterable[pa.Array]) -> Iterator[pa.RecordBatch]:
    """The ids and their positions, in batches."""
    chunks = example_ids.chunks if isinstance(example_ids, pa.ChunkedArray) else example_ids
    start, step = 0, _MOST_ROWS // 8
    for chunk in chunks:
        for piece in (chunk.slice(i, step) for i in range(0, len(chunk), step)):
            positions = pa.array(np.arange(start, start + len(piece)))
            yield pa.record_batch([piece.cast(pa.string()), positions], schema=_NUMBERED)
            start += len(piece)


def _scatter(
    rows: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    folder: Path,
    partitions: int,
    *,
    place: str,
) -> int:
    """Writes each row to the file of its id's partition, in their order; gives their number."""
    folder.mkdir()
    count = 0
    with ExitStack() as stack:
        writers: list[Any] = [
            stack.enter_context(pa.ipc.new_stream(folder / str(i), schema))
            for i in range(partitions)
        ]
        for batch in rows:
            ids = batch["example_id"]
            if ids.null_count:
                raise UserError(f"{ids.null_count} rows of {place} have no example_id: give ids")
            count += batch.num_rows
            partition = _partition(ids, partitions)
            order = np.argsort(partition, kind="stable")
            batch = batch.take(pa.array(order))
            ends = np.cumsum(np.bincount(partition, minlength=partitions))
            for writer, start, end in zip(writers, [0, *ends[:-1]], ends, strict=True):
                if end > start:
                    writer.write_batch(batch.slice(start, end - start))
    return count


def _partition(ids: pa.Array, partitions: int) -> np.ndarray:
    """A number below `partitions` for each string, uint16: a hash of its bytes, alike everywhere.

    Σ_k byte_k · M^k mod 2³² over the bytes k of the string, its bits mixed as MurmurHash3 ends.
    """
    offsets, data = _bytes(ids)
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    powers = np.full(int(lengths.max(initial=0)) + 1, 0x9E3779B1, np.uint32)
    powers = np.multiply.accumulate(powers, dtype=np.uint32)
    within = np.arange(len(data)) - np.repeat(starts, lengths)
    terms = data * powers[within]
    hashes = np.zeros(len(ids), np.uint32)
    filled = lengths > 0  # reduceat has no empty sums
    if len(data):
        hashes[filled] = np.add.reduceat(terms, starts[filled], dtype=np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        hashes = (hashes ^ (hashes >> np.uint32(shift))) * np.uint32(factor)
    return ((hashes.astype(np.uint64) * np.uint64(partitions)) >> np.uint64(32)).astype(np.uint16)


def _bytes(strings: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The offsets `[N + 1]` of an array of strings, and the bytes from the first to the last."""
    _, offsets, data = strings.buffers()
    wide = pa.types.is_large_string(strings.type)
    if not len(strings) or data is None:
        return np.zeros(len(strings) + 1, np.int64), np.zeros(0, np.uint8)
    all_offsets = np.frombuffer(offsets, np.int64 if wide else np.int32)
    own = all_offsets[strings.offset : strings.offset + len(strings) + 1]
    return own, np.frombuffer(data, np.uint8)[own[0] : own[-1]]


def _taken(path: Path) -> pa.RecordBatch:
    """The rows of one partition, in memory, and no longer on disk."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        table = reader.read_all().combine_chunks()
    path.unlink()
    chunks = table.to_batches()  # one, or none where there are no rows
    return chunks[0] if chunks else pa.RecordBatch.from_pylist([], table.schema)
