"""What a prediction leaves: scored rows with the table's own columns, and the rejected ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax.evaluation.ranking import rank_order
from sie_jax.outputs import Outputs
from sie_jax.serving.scoring import GIVEN, MADE, QUERY, finished
from sie_jax.tables import writing

CARRIED = "carried:"  # what the columns of a part begin with that are the table's own
RANK = "rank"


class Counts(NamedTuple):
    """How many rows were scored, and how many were not, by reason.

    written: how many of the scored rows are in the output; fewer where only the best were wanted.
    """

    scored: int
    rejected: dict[str, int]
    written: int


class Best(NamedTuple):
    """The best rows of each query: their places in the table `[M]`, best first, and their ranks."""

    rows: np.ndarray
    ranks: np.ndarray


def list_lengths(parts: Sequence[Path], scores: np.ndarray) -> np.ndarray:
    """How many rows with a score each query has; rows are of one query as in `scoring.score`."""
    queries = np.concatenate([column_of(part, MADE + QUERY).to_numpy() for part in parts])
    return np.unique(queries[np.isfinite(scores)], return_counts=True)[1]


def best(parts: Sequence[Path], scores: np.ndarray, top: int) -> Best:
    """At most `top` rows of each query, which have a score; queries in the order they begin.

    Equal scores are ranked by example id. Rows are of one query as in `scoring.score`.
    """
    scored = np.flatnonzero(np.isfinite(scores))
    queries = np.concatenate([column_of(part, MADE + QUERY).to_numpy() for part in parts])[scored]
    ids = pa.chunked_array([one for part in parts for one in column_of(part, "example_id").chunks])
    _, first, query_index = np.unique(queries, return_index=True, return_inverse=True)
    begins = first[query_index]  # where each row's query begins
    order = rank_order(scores[scored], begins, ids.take(scored).to_pylist())
    _, starts, sizes = np.unique(begins[order], return_index=True, return_counts=True)
    ranks = np.arange(1, len(order) + 1) - np.repeat(starts, sizes)
    kept = ranks <= top
    return Best(scored[order][kept], ranks[kept].astype(np.int32))


def write(
    parts: Sequence[Path],
    scores: np.ndarray,
    chosen: Best | None,
    carried: Mapping[str, pa.DataType],
    outputs: Outputs,
) -> Counts:
    """Writes scored rows and rejected rows each to their file, a part at a time.

    parts: of `scoring.described`, with the table's own columns, whose names begin with CARRIED.
    scores: of all their rows, NaN without. chosen: the rows to write; None writes all. carried: the
    names and types of the table's own columns. outputs: the two files.
    """
    counts: Counter[str] = Counter()
    kind = outputs.main.suffix
    whole = _with_scores(parts[0], scores, 0, carried).slice(0, 0)
    at = whole.column_names.index("reason")
    own = whole.column_names[at + 1 :]
    left_out = whole.select([*GIVEN, "reason", *own])
    plain = whole.remove_column(at)
    picked = []
    if chosen is not None:
        plain = plain.add_column(at, RANK, pa.array([], pa.int32()))
    with outputs.whole() as (main, other):
        start = written = 0
        with (
            writing.written(main, kind, plain.schema) as write_scored,
            writing.written(other, kind, left_out.schema) as write_rejected,
        ):
            for part in parts:
                table = _with_scores(part, scores, start, carried)
                lost = table.filter(table["reason"].is_valid())
                write_rejected(lost.select(left_out.column_names))
                counts.update(lost["reason"].to_pylist())
                if chosen is None:
                    found = table.filter(table["reason"].is_null())
                    write_scored(found.select(plain.column_names))
                    written += found.num_rows
                else:
                    here = chosen.rows[
                        (chosen.rows >= start) & (chosen.rows < start + table.num_rows)
                    ]
                    picked.append(table.take(np.sort(here) - start))
                start += table.num_rows
            if chosen is not None:
                as_read = np.argsort(np.argsort(chosen.rows))
                found = pa.concat_tables(picked).take(as_read)
                found = found.append_column(RANK, pa.array(chosen.ranks))
                write_scored(found.select(plain.column_names))
                written = found.num_rows
        if not counts:
            other.unlink()
    return Counts(int(np.isfinite(scores).sum()), dict(counts), written)


def _with_scores(
    part: Path, scores: np.ndarray, start: int, carried: Mapping[str, pa.DataType]
) -> pa.Table:
    """A part's rows with their scores and, at the end, the table's own columns by their types."""
    table = pq.read_table(part)
    own = table.select([CARRIED + name for name in carried])
    made = table.drop_columns(own.column_names)
    found = finished(made, scores[start : start + table.num_rows])
    for name, kind in carried.items():
        values = own[CARRIED + name].cast(kind)
        while name in (*found.column_names, RANK):
            name = f"given_{name}"
        found = found.append_column(name, values)
    return found


def column_of(part: Path, name: str) -> pa.ChunkedArray:
    """One column of a part."""
    return pq.read_table(part, columns=[name])[name]
