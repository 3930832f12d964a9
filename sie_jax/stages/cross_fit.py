"""Cross-fit: every pair scored by models that never saw its query."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.data import folds as dealing
from sie_jax.data.schema import SPLITS, normalise_query
from sie_jax.errors import UserError
from sie_jax.passes import sweep
from sie_jax.stages.pair_runs import Examples, PairRuns, Start, check_finite
from sie_jax.stages.selection import trained
from sie_jax.tables.provenance import IDENTITY
from sie_jax.tables.spool import write_parquet
from sie_jax.tasks import scores
from sie_jax.training.run import Run
from sie_jax.workdir import Job, Made, stage

FILE = "out_of_fold.parquet"
PLACE = (*IDENTITY, "split", "fold")


class OutOfFold(NamedTuple):
    """The columns of a score pass for the pairs of all splits, by models that never saw them.

    pairs: the columns PLACE. columns: arrays of as many rows, by the names that the pass gives.
    """

    pairs: pa.Table
    columns: sweep.Columns

    def training(self) -> sweep.Columns:
        """The columns of the training pairs, in their order."""
        rows = np.flatnonzero(self.pairs["fold"].to_numpy() >= 0)
        return {name: values[rows] for name, values in self.columns.items()}


def read(made: Made[OutOfFold]) -> OutOfFold:
    """The out-of-fold scores of all pairs."""
    table = pq.read_table(made.folder / FILE)
    names = [name for name in table.column_names if name not in PLACE]
    return OutOfFold(table.select(list(PLACE)), {name: table[name].to_numpy() for name in names})


@stage(leaves=(FILE,), read=read, runs=("fold-*",))
def cross_fit(
    job: Job,
    start: Start,
    *,
    folds: int,
    split_seed: int,
) -> None:
    """Leaves out_of_fold.parquet.

    The training queries are dealt into `folds` folds; each fold's pairs are scored by a model
    trained on the other folds, without weights. Validation and test pairs are in no fold (−1) and
    train no model: theirs are the means over all of these models.
    """
    runs = PairRuns(job, start)
    pairs = runs.prepared
    fold = assigned(pairs.split("train"), folds, seed=split_seed, field="train.folds")
    held: dict[str, list[sweep.Columns]] = {name: [] for name in SPLITS}
    for number in range(folds):
        others = np.flatnonzero(fold != number)
        run = Run(f"fold-{number}", start.seed, start.train)
        selected = trained(runs, run, Examples(rows=others))
        for split in SPLITS:
            rows = np.flatnonzero(fold == number) if split == "train" else None
            scored = runs.scored(selected.params, split, f"scores-{number}-{split}", rows)
            held[split].append(scored)
    place = np.argsort(np.concatenate([np.flatnonzero(fold == i) for i in range(folds)]))
    tables = []
    for split in SPLITS:
        several, of_split = held[split], pairs.split(split)
        columns = {
            name: np.concatenate([one[name] for one in several])[place]
            if split == "train"
            else np.mean([one[name] for one in several], axis=0)
            for name in several[0]
            if name != "layer_norms"
        }
        if split == "train":
            check_finite({name: columns[name] for name in scores(start.train.task)}, of_split)
        folds_of = fold if split == "train" else np.full(of_split.num_rows, -1, np.int32)
        table = of_split.select([*IDENTITY, "split"])
        for name, values in {"fold": folds_of, **columns}.items():
            table = table.append_column(name, pa.array(values))
        tables.append(table)
    processes.alone(write_parquet, job.folder / FILE, pa.concat_tables(tables))


def assigned(training: pa.Table, folds: int, *, seed: int, field: str) -> np.ndarray:
    """The fold of each training pair; UserError, naming `field`, where the queries are too few."""
    queries = [normalise_query(query) for query in training["query"].to_pylist()]
    try:
        return dealing.assign(queries, folds=folds, seed=seed)
    except ValueError as error:
        raise UserError(f"{field}: {error}") from None
