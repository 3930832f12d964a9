"""Token ids on disk: a TFDS builder that writes ArrayRecord files and reads them back at random."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from sie_jax.errors import UserError
from sie_jax.tables.spool import CHUNK_ROWS, pieces

TOKENS_SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("query_length", pa.int32()),
        ("label", pa.int32()),
    ]
)

MOST_FILES = 16
_FEATURES = ("row", *TOKENS_SCHEMA.names)


def _serialized(self: tfds.core.ExampleSerializer, example: Any) -> bytes:
    serialized: bytes = self.get_tf_example(example).SerializeToString(deterministic=True)
    return serialized


# Else protobuf writes the fields of a record in an order that differs between processes, and equal
# pairs would be other files. Here and not in `write`, so that it holds on Beam's machines too.
tfds.core.ExampleSerializer.serialize_example = _serialized


class Shard(NamedTuple):
    """Rows of one file: the place of the first within the split, and what reads them.

    `read` gives a table with the columns of TOKENS_SCHEMA. With Beam, another machine calls it.
    """

    first: int
    read: Callable[[], pa.Table]


class TokenizedPairs(tfds.core.ShardBasedBuilder):
    """Query-item pairs as token ids, one record per pair, in the order they are given.

    Features: `row` int64 (position within the split), `input_ids` int32 `[T]`, `query_length` int32
    (how many of the first tokens are segment 0), `label` int32. The records hold no texts and not
    the truth behind planted noise: training cannot see them.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, splits: Mapping[str, Sequence[Shard]] | None = None, **options: Any) -> None:
        """`splits` maps a split's name to its shards, in order; each becomes a file."""
        self._shards = splits or {}
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "row": np.int64,
            "input_ids": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "query_length": np.int32,
            "label": np.int32,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Tokenised query-item pairs.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # record i is row i: scores and weights are joined by position
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        del dl_manager  # nothing is downloaded
        return {
            name: [functools.partial(_records, shard) for shard in shards]
            for name, shards in self._shards.items()
        }


def shards(table: pa.Table) -> list[Shard]:
    """The rows of a table with the columns of TOKENS_SCHEMA, in files of CHUNK_ROWS rows or more.

    There are at most MOST_FILES files: rows that are read together at random come from all files,
    and asking a file takes time.
    """
    rows = max(CHUNK_ROWS, -(-table.num_rows // MOST_FILES))
    starts = range(0, max(table.num_rows, 1), rows)
    return [Shard(start, functools.partial(table.slice, start, rows)) for start in starts]


def write(folder: Path, splits: Mapping[str, Sequence[Shard]], **options: Any) -> None:
    """Writes all splits below `folder`, and replaces nothing that is there already.

    `options` are those of `tfds.download.DownloadConfig`. With `beam_runner` (and `beam_options`)
    the machines of that runner write the files; all of them must see `folder`.
    """
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(
        io.StringIO()
    ):  # it announces a download, but downloads nothing
        TokenizedPairs(splits, data_dir=str(folder)).download_and_prepare(
            download_config=tfds.download.DownloadConfig(**options)
        )


class Records:
    """The records of one split in any order: `len`, `source[i]`, `source.__getitems__(rows)`.

    TFDS's own source reads them. They are parsed here, because TFDS walks through the nested
    features of every record and takes several times as long.

    UserError is raised where a file is missing or cannot be read. It can come at any record: a file
    is opened when a record of it is first asked for.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder = folder
        with self._readable():
            self._source = TokenizedPairs(data_dir=str(folder)).as_data_source(
                split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        with self._readable():
            return [_parsed(record) for record in self._source.__getitems__(rows)]

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, KeyError) as error:  # what TFDS and ArrayRecord raise
            raise UserError(
                f"{self._folder}: token ids cannot be read ({error}): restore the folder, or "
                "rerun the same command, which makes it again from the source"
            ) from None


def read(folder: Path, split: str) -> Records:
    """One split of what `write` wrote."""
    return Records(folder, split)


def _parsed(record: bytes) -> dict[str, Any]:
    feature = tf_example_pb2.Example.FromString(record).features.feature
    numbers = {name: feature[name].int64_list.value for name in _FEATURES}
    return {
        "row": numbers["row"][0],
        "input_ids": np.array(numbers["input_ids"], np.int32),
        "query_length": numbers["query_length"][0],
        "label": numbers["label"][0],
    }


def _records(shard: Shard) -> Iterator[tuple[int, dict[str, Any]]]:
    for start, piece in pieces(shard.read()):
        ids = piece["input_ids"].combine_chunks()
        values, offsets = ids.values.to_numpy(), ids.offsets.to_numpy()
        query_lengths, labels = (piece[name].to_numpy() for name in ("query_length", "label"))
        for i in range(piece.num_rows):
            row = shard.first + start + i
            yield (
                row,
                {
                    "row": row,
                    "input_ids": values[offsets[i] : offsets[i + 1]],
                    "query_length": query_lengths[i],
                    "label": labels[i],
                },
            )
