"""Token ids on disk: a TFDS builder that writes ArrayRecord files and reads them back at random."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sie_jax.errors import UserError


class TokenizedPairs(tfds.core.GeneratorBasedBuilder):
    """Query-item pairs as token ids, one record per pair, in the order they are given.

    Features: `row` int64 (position within the split), `input_ids` int32 `[T]`, `query_length` int32
    (the first so many tokens are segment 0), `label` int32. Texts, and the truth behind planted
    noise, are not here: training cannot see them.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, splits: Mapping[str, Mapping[str, Any]] | None = None, **options: Any
    ) -> None:
        """`splits` maps a split's name to its columns input_ids, query_length and label."""
        self._columns = splits or {}
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

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # nothing is downloaded
        return {name: self._records(columns) for name, columns in self._columns.items()}

    def _records(self, columns: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = zip(columns["input_ids"], columns["query_length"], columns["label"], strict=True)
        for row, (input_ids, query_length, label) in enumerate(rows):
            record = {"input_ids": input_ids, "query_length": query_length, "label": label}
            yield row, {"row": row, **record}

    def _generate_examples(self) -> Iterator[Any]:
        raise AssertionError("every split has its own generator")


def write(folder: Path, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes all splits below `folder`, replacing nothing that is there already."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # it announces a download, and there is none
        TokenizedPairs(splits, data_dir=str(folder)).download_and_prepare()


def read(folder: Path, split: str) -> "Records":
    """One split of what `write` left."""
    return Records(folder, split)


class Records:
    """Token ids read at random: `len`, `source[i]`, `source.__getitems__(rows)`.

    A file that is gone or cannot be read raises UserError, whenever that is noticed: files are
    opened at the first record that is asked of them.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder = folder
        with self._readable():
            self._source = TokenizedPairs(data_dir=str(folder)).as_data_source(split)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> Sequence[dict[str, Any]]:
        with self._readable():
            return self._source.__getitems__(rows)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, KeyError) as error:  # what TFDS and ArrayRecord raise
            raise UserError(
                f"{self._folder}: token ids cannot be read ({error}): restore the folder, or "
                "remove it and what is beside it: the same command makes them again from the source"
            ) from None
