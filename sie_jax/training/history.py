"""What training itself shows of every example: its margin and loss at each visit, at no pass."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.errors import UserError
from sie_jax.files import digest
from sie_jax.tables.spool import write_parquet

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("row", pa.int64()),
        ("margin", pa.float32()),
        ("loss", pa.float32()),
    ]
)


class Visits(NamedTuple):
    """Of E epochs and N examples, float64 `[E, N]`: NaN where an epoch did not visit an example."""

    margins: np.ndarray
    losses: np.ndarray


class History:
    """The visits of one training run, one Parquet file in `folder` for each of its checkpoints.

    A file is written before the checkpoint of the same step: what `rewind` leaves after a resume is
    what training had shown up to that checkpoint, and what it does again is shown once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[pa.Table] = []
        self._digests: dict[str, str] = {}

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each file, by its name: a checkpoint keeps them, `rewind` checks them."""
        return dict(self._digests)

    def rewind(self, step: int, digests: Mapping[str, str]) -> None:
        """Drops the visits after `step`, where `digests` are those of the files up to there.

        Raises UserError where one of these files is not what was written.
        """
        self._waiting, self._digests = [], dict(digests)
        processes.alone(self._rewind, step)

    def _rewind(self, step: int) -> None:
        for path in self._parts():
            if int(path.stem) > step:
                path.unlink()
        for name, written in self._digests.items():
            path = self._folder / name
            if not path.is_file() or digest(path) != written:
                raise UserError(
                    f"{path} is missing or not what was written: remove {self._folder.parent}, and "
                    "the same command trains the run again"
                )

    def add(self, step: int, rows: np.ndarray, margins: np.ndarray, losses: np.ndarray) -> None:
        """One step's examples `[n]`, with the logit margins and losses that it computed anyway."""
        columns = [np.full(len(rows), step), rows, margins, losses]
        arrays = [
            pa.array(np.asarray(values, kind.to_pandas_dtype()))
            for values, kind in zip(columns, SCHEMA.types, strict=True)
        ]
        self._waiting.append(pa.table(arrays, schema=SCHEMA))

    def flush(self, step: int) -> None:
        """Writes down everything up to `step`."""
        if self._waiting:
            file = self._folder / f"{step:010d}.parquet"
            processes.alone(write_parquet, file, pa.concat_tables(self._waiting))
            self._digests[file.name] = digest(file)
            self._waiting = []

    def read(self, examples: int, *, steps_per_epoch: int) -> Visits:
        """The visits by epoch and example; an example visited twice in an epoch keeps the last."""
        table = pa.concat_tables([pq.read_table(path) for path in self._parts()])
        epoch = (table["step"].to_numpy() - 1) // steps_per_epoch
        visits = np.full((2, int(epoch.max()) + 1, examples), np.nan)
        for place, name in enumerate(("margin", "loss")):
            visits[place, epoch, table["row"].to_numpy()] = table[name].to_numpy()
        return Visits(*visits)

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.parquet"))
