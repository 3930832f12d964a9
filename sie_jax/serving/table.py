"""The scores of a table of any size, made part by part so that a stopped call resumes."""

import contextlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from sie_jax import remote
from sie_jax.data.schema import ATTRIBUTE
from sie_jax.data.sources import table as own_table
from sie_jax.devices import mesh as meshes
from sie_jax.errors import NumericalError, UserError
from sie_jax.files import digest, digests, read_json, write_json
from sie_jax.outputs import Outputs
from sie_jax.serving.ranking import Ranking
from sie_jax.serving.scoring import (
    GIVEN,
    MADE,
    NOT_FINITE,
    Scorer,
    described,
    final,
    finished,
    load,
)
from sie_jax.serving.settings import Settings
from sie_jax.tables.spool import write_parquet
from sie_jax.training.progress import counter

_QUIET = Console(quiet=True)
FIX = "name columns with --query, --title and so on; attributes and numbers keep their names"
PART_ROWS = 4096  # what a stop can cost
MOST_PAIRS = PART_ROWS  # at a time: a batch is never of several parts
JOB = "job.json"  # in the folder of parts: what they are parts of


class Counts(NamedTuple):
    """How many rows were scored, and how many were not, by reason."""

    scored: int
    rejected: dict[str, int]


def score_table(
    model: str | Path,
    pairs: str,
    output: str | Path,
    *,
    columns: Mapping[str, str],
    settings: Settings | None = None,
    encoder_alone: bool = False,
    batch_size: int = 64,
    console: Console | None = None,
) -> Counts:
    """Scores every row of a table and writes the columns of `scoring.score` in the table's order.

    Rows without a score are not in `output`; they are in <output>.rejected.parquet with the
    `reason` (there is no file if there are no such rows): rows read = scored + rejected. Memory
    holds a few numbers and the title of each row. Finished parts are kept in <output>.parts until
    all are finished; after a stop, the same call resumes at the part that it was in and writes the
    same bytes.

    Args:
      model: the folder model/ of a run, or the folder of another BERT classifier, with `settings`.
      pairs: a table as `data.sources.table.read` takes it; it needs no labels.
      output: a path that ends in .parquet.
      columns: a column of the table for each field of FIELDS; `query` and `title` are needed. What
        else the model ranks by is read from the columns of these names: numbers have to be there,
        and without an attribute items are ranked as those of which it is not known, which is said.
      settings: those of the model's folder if none are given.
      encoder_alone: as in `scoring.load`.
      batch_size: pairs at a time.
      console: shows the progress.

    Nothing is written that `outputs.Outputs` protects: what is read, and what no command left.

    Raises:
      UserError: the model, the table or a column is wrong; `output` does not end in .parquet, or
        may not be written; or <output>.parts was begun with other arguments.
      NumericalError: the model gives no finite score for any row; nothing is written then.
    """
    output = Path(output)
    if output.suffix != ".parquet":
        raise UserError(f"{output}: give an output that ends in .parquet")
    for field in ("query", "title"):
        if not columns.get(field):
            raise UserError(f"--{field} is empty: name the column that holds it")
    if not 1 <= batch_size <= MOST_PAIRS:
        raise UserError(f"--batch_size={batch_size}: give a number from 1 to {MOST_PAIRS}")
    pairs = remote.local(pairs)
    folder = output.with_name(f"{output.name}.parts")
    outputs = Outputs(output, (rejected_file(output),), scratch=(folder,))
    outputs.check((model, pairs))
    job: dict[str, Any] = {"model": digests(Path(model)), "pairs": digests(Path(pairs))}
    scorer, console = load(model, settings, encoder_alone=encoder_alone), console or _QUIET
    for note in scorer.notes:
        _say(console, note)
    ranking = scorer.ranking
    if ranking is not None and ranking.ranker.text and not columns.get("text"):
        _say(
            console,
            f"{model} ranks by the items' further text too: name its column with --text, or they "
            "are ranked as items without any",
        )
    meshes.check_batch(scorer.mesh, batch_size, "--batch_size")
    job |= {
        "encoder_alone": encoder_alone,
        "columns": {field: name for field, name in columns.items() if name},
        "settings": {**scorer.settings._asdict(), "gains": list(scorer.settings.gains)},
        "batch_size": batch_size,
    }
    job["parts"] = _check_parts(folder, job)
    further = {} if ranking is None else _further(ranking, pairs, str(model), console)

    def rows() -> Iterator[own_table.Cells]:
        return own_table.rows(pairs, columns=columns, further=further, fix=FIX)

    # once to its end, so that a fault in a late row is not found after hours
    if not sum(1 for _ in rows()):
        raise UserError(f"{pairs} has no rows: give a table with a header and rows")
    try:
        parts = _parts(scorer, rows(), folder, job, batch_size, console)
        if digests(Path(pairs)) != job["pairs"]:
            raise UserError(f"{pairs} was changed while it was scored: rerun the same command")
        scores = _scores(scorer, parts, str(model))
    except (UserError, NumericalError):
        _remove_parts(folder)  # of no use to the command that comes after the fault is mended
        raise
    counts = _join(parts, scores, outputs)
    _remove_parts(folder)
    return counts


def rejected_file(output: Path) -> Path:
    """Where the rows without a score are."""
    return output.with_suffix(".rejected.parquet")


def _further(ranking: Ranking, pairs: str, model: str, console: Console) -> dict[str, str]:
    """The columns to read beside texts; those of attributes that the table lacks are told."""
    attributes = {name for name in ranking.further if name.startswith(ATTRIBUTE)}
    known = own_table.column_names(pairs) if attributes else []
    lacking = [ranking.further[name] for name in attributes if ranking.further[name] not in known]
    if lacking:
        _say(
            console,
            f"{pairs} has no column {', '.join(sorted(lacking))}, by which {model} ranks too: its "
            "items are ranked as items of which it is not known",
        )
    return {
        name: column
        for name, column in ranking.further.items()
        if name not in attributes or column in known
    }


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _parts(
    scorer: Scorer,
    rows: Iterator[own_table.Cells],
    folder: Path,
    job: dict[str, Any],
    batch_size: int,
    console: Console,
) -> list[Path]:
    """What is known of each row by itself, in files of PART_ROWS; whole ones are not made again."""
    parts: list[Path] = []
    write_json(folder / JOB, job)
    with counter("predict", console) as progress:
        while piece := list(itertools.islice(rows, PART_ROWS)):
            part = folder / f"part-{len(parts):06d}.parquet"
            parts.append(part)
            if not part.is_file() or digest(part) != job["parts"].get(part.name):
                write_parquet(part, described(scorer, piece, batch_size=batch_size))
                job["parts"][part.name] = digest(part)
                write_json(folder / JOB, job)
            progress(len(piece))
    return parts


def _check_parts(folder: Path, job: dict[str, Any]) -> dict[str, str]:
    """The digests of the parts that were made, by their names.

    Raises UserError if the folder of parts holds those of another job, or anything else.
    """
    if not os.path.lexists(folder):
        return {}
    if folder.is_symlink() or not folder.is_dir() or any(map(_is_foreign, folder.iterdir())):
        raise UserError(f"{folder} is or holds what no prediction left: give another output")
    if not os.path.lexists(folder / JOB):
        return {}
    way = "remove it, or give another output"
    try:
        if not (folder / JOB).is_file():
            raise ValueError("it is no file")
        other = dict(read_json(folder / JOB))
        made = dict(other.get("parts", {}))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} has a damaged {JOB} ({error}): {way}") from None
    changed = [name for name, value in job.items() if other.get(name) != value]
    if changed:
        raise UserError(f"{folder} was begun with another {' and '.join(changed)}: {way}")
    return made


def _is_foreign(path: Path) -> bool:
    name = path.name.removeprefix(".").removesuffix(".tmp")
    return path.is_dir() or (name != JOB and not re.fullmatch(r"part-\d{6,}\.parquet", name))


def _remove_parts(folder: Path) -> None:
    """Removes what this command left in the folder of parts, and the folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if not _is_foreign(path):
            path.unlink()
    with contextlib.suppress(OSError):  # it is not there, or somebody put a file into it
        folder.rmdir()


def _scores(scorer: Scorer, parts: Sequence[Path], model: str) -> np.ndarray:
    """The score of every row, NaN where it has none; raises NumericalError where none has one."""
    reasons = pa.chunked_array([one for part in parts for one in _column(part, "reason").chunks])
    valid = reasons.is_null().to_numpy()

    def column(name: str) -> np.ndarray:
        return np.concatenate([_column(part, MADE + name).to_numpy() for part in parts])[valid]

    scores = np.full(len(valid), np.nan)
    if valid.any():
        scores[valid] = final(scorer, column)
    broken = pc.sum(pc.equal(reasons, NOT_FINITE)).as_py() or 0
    broken += int((valid & ~np.isfinite(scores)).sum())
    if broken and not np.isfinite(scores).any():
        raise NumericalError(
            f"{model} gives no finite score for any of {broken} rows: its weights are damaged, or "
            "too large for float32: give another --model"
        )
    return scores


def _join(parts: Sequence[Path], scores: np.ndarray, outputs: Outputs) -> Counts:
    """Writes scored rows and rejected rows each to their file, a part at a time."""
    counts: Counter[str] = Counter()
    start = 0
    with outputs.whole() as (main, other):
        schema = finished(pq.read_schema(parts[0]).empty_table(), scores[:0]).schema
        plain = schema.remove(schema.get_field_index("reason"))
        left_out = pa.schema([schema.field(name) for name in (*GIVEN, "reason")])
        with (
            pq.ParquetWriter(main, plain) as writer,
            pq.ParquetWriter(other, left_out) as second,
        ):
            for part in parts:
                table = pq.read_table(part)
                table = finished(table, scores[start : start + table.num_rows])
                start += table.num_rows
                writer.write_table(table.filter(table["reason"].is_null()).select(plain.names))
                lost = table.filter(table["reason"].is_valid()).select(left_out.names)
                second.write_table(lost)
                counts.update(lost["reason"].to_pylist())
        if not counts:
            other.unlink()
    return Counts(int(np.isfinite(scores).sum()), dict(counts))


def _column(part: Path, name: str) -> pa.ChunkedArray:
    return pq.read_table(part, columns=[name])[name]
