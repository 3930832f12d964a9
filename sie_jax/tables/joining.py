"""Tables larger than memory put into another order, and joined, by their example ids."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sie_jax.errors import UserError
from sie_jax.files import whole_folder
from sie_jax.tables import hashing, parts

_NUMBERED = pa.schema({"example_id": pa.string(), "position": pa.int64()})
_MOST_PARTITIONS = 512  # files open at a time; systems allow 1024 and less
_ROWS = 1 << 17  # that get their numbers at a time
_SHOWN = 3  # example ids that an error names


def in_order(
    path: Path,
    example_ids: pa.ChunkedArray | Iterable[pa.Array],
    *,
    columns: Sequence[str],
    data_version: str | None = None,
    partition_rows: int | None = None,
) -> Iterator[pa.Table]:
    """The columns of a table in the order of `example_ids`, `partition_rows` rows at a time.

    Both sides are scattered over P files by a hash of the id, P = rows / partition_rows. Each pair
    of files is matched in memory, and the blocks are then put together by row number. The ids
    themselves are compared, not their hashes. Nothing is read before the first block is asked for.

    Memory: a few times the bytes of `partition_rows` rows, for up to 512 times as many rows; beyond
    that it grows with the rows. Disk: the ids and the columns, at most twice, in the folder for
    temporary files (TMPDIR says where) until the iterator ends. Time: linear in the rows.

    Args:
      example_ids: strings, in chunks of any size: each id of the table exactly once.
      columns: those to give; the ids are not repeated.
      data_version: checked with `parts.require` if given.
      partition_rows: 1,048,576 if None, and fewer where the rows hold vectors.

    Yields:
      Tables of `columns`, all of `partition_rows` rows but the last. If there are no rows, one
      empty table.

    Raises:
      UserError: an id is missing, left over, repeated on either side, or null. The line counts
        them over the whole table and names the first few. Or as `parts.require`.
    """
    if data_version is not None:
        parts.require(path, data_version)
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
    Each id must be on both sides exactly once, so that no row is lost or doubled. `out` appears
    when all of it is written, with the provenance of every column. Memory, disk and time: as
    `in_order`.

    Raises:
      UserError: an id is missing on one side, repeated, or null; the line counts them and names the
        first few. The data versions differ, or one side has none. Or as `parts.files_of`.
      ValueError: `out` is there already; a column is not a score of `right`, or is in `left` too.
    """
    if out.exists():
        raise ValueError(f"{out} is there already: remove it, or join to another folder")
    there, here = parts.provenance(right), parts.provenance(left)
    versions = [parts.version_of(path) for path in (left, right)]
    if versions[0] != versions[1]:
        raise UserError(
            f"{left} was computed on data {versions[0][:12]}, {right} on data {versions[1][:12]}: "
            "score both on the same data"
        )
    own, other = (pq.read_schema(parts.files_of(path)[0]) for path in (left, right))
    if unknown := [name for name in columns if name not in there]:
        raise ValueError(f"{right}: no scores {', '.join(unknown)}")
    if doubled := [name for name in columns if name in own.names]:
        raise ValueError(f"{left}: has a column {', '.join(doubled)} already")
    added = pa.schema([other.field(name) for name in columns])
    rows = partition_rows or min(parts.rows_in_memory(own), parts.rows_in_memory(added))
    ids = (batch["example_id"] for batch in parts.batches(left, columns=["example_id"]))
    blocks = _ordered(right, ids, columns, rows, asked=str(left))

    def joined() -> Iterator[pa.Table]:
        some = (pa.Table.from_batches([batch]) for batch in parts.batches(left))
        mine = parts.regrouped(chain([own.empty_table()], some), rows)
        # the blocks come first: they are matched, and errors found, before anything is written
        for block, (table, _) in zip(blocks, mine, strict=True):
            for name in columns:
                table = table.append_column(block.schema.field(name), block[name])
            yield table

    origin = {**here, **{name: there[name] for name in columns}}
    with whole_folder(out) as folder:
        parts.write_parts(folder, joined(), process_index=0, provenance=origin, part_rows=rows)


def _ordered(
    path: Path,
    example_ids: pa.ChunkedArray | Iterable[pa.Array],
    columns: Sequence[str],
    partition_rows: int | None,
    *,
    asked: str,
) -> Iterator[pa.Table]:
    files = parts.files_of(path)
    schema = pq.read_schema(files[0])
    if unknown := [name for name in columns if name not in schema.names]:
        raise ValueError(f"{path}: no column {', '.join(unknown)}")
    held = pa.schema([schema.field(name) for name in ("example_id", *columns)])
    rows = partition_rows or parts.rows_in_memory(held)
    count = sum(pq.read_metadata(file).num_rows for file in files)
    partitions = max(1, min(-(-count // rows), _MOST_PARTITIONS))
    with tempfile.TemporaryDirectory(prefix="sie_jax-") as name:
        wanted, given, matched = (Path(name, one) for one in ("wanted", "given", "matched"))
        total = _scatter(_numbered(example_ids), _NUMBERED, wanted, partitions, place=asked)
        some = parts.batches(path, columns=held.names)
        _scatter(some, held, given, partitions, place=str(path))
        blocks = max(1, -(-total // rows))
        faults = _Faults(str(path), asked)
        matched.mkdir()
        for i in range(partitions):
            left, right = _taken(wanted / str(i)), _taken(given / str(i))
            found = _match(left["example_id"], right["example_id"], faults)
            if found is None or faults.counts:
                continue  # only to count further faults
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
            opened = [
                stack.enter_context(pa.OSFile(str(matched / str(i)))) for i in range(partitions)
            ]
            readers = [stack.enter_context(pa.ipc.open_file(file)) for file in opened]
            for block in range(blocks):
                pieces = [reader.get_batch(block) for reader in readers]
                table = pa.Table.from_batches(pieces).combine_chunks()
                place = np.empty(table.num_rows, np.int64)
                place[table["position"].to_numpy() - block * rows] = np.arange(len(place))
                yield table.select(columns).take(pa.array(place))


class _Faults:
    """Counts the example ids that are not on both sides exactly once, and keeps the first few."""

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
        """Raises UserError if there are any."""
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
    """The place in `given` of every id of `wanted`; None if the ids differ."""
    # the places are those of first occurrences: they are a permutation exactly if no id is missing
    # or repeated on either side
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
    start, step = 0, _ROWS
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
    """Writes each row, in order, to the file of its id's partition; gives the number of rows."""
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
            partition = hashing.partition(ids, partitions)
            order = np.argsort(partition, kind="stable")
            batch = batch.take(pa.array(order))
            ends = np.cumsum(np.bincount(partition, minlength=partitions))
            for writer, start, end in zip(writers, [0, *ends[:-1]], ends, strict=True):
                if end > start:
                    writer.write_batch(batch.slice(start, end - start))
    return count


def _taken(path: Path) -> pa.RecordBatch:
    """The rows of one partition, in memory, and no longer on disk."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        table = reader.read_all().combine_chunks()
    path.unlink()
    chunks = table.to_batches()  # one, or none where there are no rows
    return chunks[0] if chunks else pa.RecordBatch.from_pylist([], table.schema)
