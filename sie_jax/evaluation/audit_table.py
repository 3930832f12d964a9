"""A table with somebody's predictions beside its labels, as an audit takes it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.data import cleaning
from sie_jax.data.readers.records import printable
from sie_jax.data.schema import NUMERIC, check_labels
from sie_jax.data.sources import table as own_table
from sie_jax.data.sources.table import NEEDED
from sie_jax.errors import UserError
from sie_jax.evaluation.audit import CONFLICT, Judged
from sie_jax.evaluation.audit_summary import FOREIGN
from sie_jax.tables.spool import filtered

FURTHER = ("example_id", "query_id", "item_id", "split")
"""The fields that a table may have, besides those that it must."""
NAME_THEM = "name them with --labels=LOWEST,…,HIGHEST"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOfPairs:
    """Where a table's fields are, and what its labels are.

    path: as `data.sources.table.read` takes it.
    columns: the table's columns by the fields of NEEDED and FURTHER. A field that is not named is
      in the column of its own name. One of FURTHER that has an empty name is not read.
    labels: the scale, lowest grade first; empty where the labels are 0, 1, … as that reads them.
    """

    path: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    labels: Sequence[str] = ()

    def fields(self) -> dict[str, str]:
        """The columns of all fields that the table has.

        Raises:
          UserError: as `data.sources.table.column_names`.
        """
        present = own_table.column_names(self.path)
        named = {field: field for field in FURTHER if field in present}
        return {field: field for field in NEEDED} | named | dict(self.columns)

    def scale(self) -> Sequence[str]:
        """The labels, which are read off the table where none are given."""
        if self.labels:
            check_labels("--labels", self.labels)
            return self.labels
        try:
            return own_table.read(self.path, columns=self.fields()).scale.names
        except UserError as error:
            raise _in_flags(error) from None

    def judged(self, probabilities: str) -> tuple[Judged, pa.Table]:
        """The pairs with the predictions in the table's own columns, and the rows left out.

        All columns that are neither a field nor a prediction are kept for the annotator. Rows with
        conflicting labels are not left out: they are `Judged.conflicts`.

        Args:
          probabilities: the columns of the labels' probabilities, lowest grade first, with commas
            between; or what the names of such columns begin with, in front of the label. Each holds
            numbers in [0, 1], and their sum is 1 to 1e-3.

        Raises:
          UserError: as `data.sources.table.read`; the columns and the labels do not fit together; a
            probability is missing or impossible; an id is not unique, as `cleaning.clean`.
        """
        if self.labels:
            check_labels("--labels", self.labels)
        present, fields = own_table.column_names(self.path), self.fields()
        chosen = self._chosen(probabilities, present)
        taken = {*fields.values(), *chosen}
        try:
            source = own_table.read(
                self.path,
                columns=fields,
                attributes=[name for name in present if name not in taken],
                features=chosen,
                labels=self.labels,
                flags={"--probabilities": chosen},
            )
        except UserError as error:
            raise _in_flags(error) from None
        names = source.scale.names
        if len(names) != len(chosen):
            raise UserError(
                f"{self.path} has the probabilities {', '.join(chosen)}, and its labels are "
                f"{', '.join(names)}: {NAME_THEM}"
            )
        try:
            cleaned = cleaning.clean(
                source.table, source.scale, max_query_characters=10**6, max_title_characters=10**6
            )
        except UserError as error:
            for field in ("example_id", "query_id"):
                if str(error).startswith(f"cleaning: {field} "):
                    raise UserError(
                        f"{self.path}: {error}, or leave the column as it is with --{field}="
                    ) from None
            raise
        torn = pc.equal(cleaned.rejected["reason"], CONFLICT).combine_chunks()
        conflicts = cleaned.rejected.filter(torn)
        rejected = pa.concat_tables(
            [source.unreadable, filtered(cleaned.rejected, pc.invert(torn))],
            promote_options="default",
        )
        judged = Judged(
            cleaned.kept,
            names,
            self._checked(cleaned.kept, chosen),
            conflicts,
            self._checked(conflicts, chosen),
            FOREIGN,
        )
        return judged, rejected

    def _chosen(self, probabilities: str, present: Sequence[str]) -> list[str]:
        """The columns of probabilities, lowest grade first."""
        if "," in probabilities:
            chosen = [name.strip() for name in probabilities.split(",")]
            if len(set(chosen)) < len(chosen) or "" in chosen:
                raise UserError(
                    f"--probabilities={probabilities}: give each column once, lowest grade first"
                )
            return chosen
        if self.labels:
            return [probabilities + label for label in self.labels]
        found = [name for name in present if name.startswith(probabilities)]
        ends = [name.removeprefix(probabilities) for name in found]
        if not found:
            raise UserError(
                f"{self.path} has no column that begins with {probabilities!r}; it has "
                f"{', '.join(present)}: name the columns of probabilities with --probabilities, "
                "lowest grade first"
            )
        if sorted(ends) != sorted(map(str, range(len(ends)))):
            raise UserError(
                f"{self.path} has probabilities of the labels {', '.join(ends)}: {NAME_THEM}"
            )
        return sorted(found, key=lambda name: int(name.removeprefix(probabilities)))

    def _checked(self, rows: pa.Table, chosen: Sequence[str]) -> np.ndarray:
        """The probabilities `[N, K]`; UserError for the first row whose ones cannot be."""
        values = np.stack([rows[NUMERIC + name].to_numpy() for name in chosen], 1)
        inside = np.clip(values, 0, 1)
        off = np.flatnonzero((values != inside).any(1) | ~(np.abs(inside.sum(1) - 1) <= 1e-3))
        if len(off):
            row = printable(rows["example_id"][off[0]].as_py())
            raise UserError(
                f"{self.path}: the probabilities of row {row} are {values[off[0]].tolist()}: give "
                "numbers from 0 to 1 with a sum of 1"
            )
        return values


def check_output(output: Path) -> None:
    """Raises UserError if the output is not a CSV file."""
    if output.suffix != ".csv":
        raise UserError(f"--output={output}: give a file that ends in .csv")


def rejected_file(output: Path) -> Path:
    """Where the rows that were left out are."""
    return output.with_suffix(".rejected.parquet")


def _in_flags(error: UserError) -> UserError:
    """An error about a table, with the flags of this command in place of a run's."""
    text = str(error).replace("--config.data.columns.", "--").replace("--config.data.table.", "--")
    # probabilities are of classes
    return UserError(text.replace(", or say that they are numbers, --config.data.continuous", ""))
