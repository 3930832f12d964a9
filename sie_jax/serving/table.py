"""The scores of a table of any size, made part by part so that a stopped call resumes."""

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from rich.console import Console

from sie_jax.data.sources import table as own_table
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.files import digest, read_json, whole, write_json
from sie_jax.serving.scoring import GIVEN, load, score
from sie_jax.serving.settings import Settings
from sie_jax.tables.spool import write_parquet
from sie_jax.training.progress import counter

PART_ROWS = 4096  # what a stop can cost
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
    batch_size: int = 64,
    console: Console | None = None,
) -> Counts:
    """Scores every row of a table and writes the columns of `scoring.score` in the table's order.

    Rows without a score are not in `output`; they are in <output>.rejected.parquet with the
    `reason` (there is no file if there are no such rows): rows read = scored + rejected. Memory
    does not grow with the table. Finished parts are kept in <output>.parts until all are finished;
    after a stop, the same call resumes at the part that it was in and writes the same bytes.

    Args:
      model: the folder model/ of a run, or the folder of another BERT classifier, with `settings`.
      pairs: a table as `data.sources.table.read` takes it; it needs no labels.
      output: a path that ends in .parquet.
      columns: a column of the table for each field of FIELDS; `query` and `title` are needed.
      settings: those of the model's folder if none are given.
      batch_size: pairs at a time.
      console: shows the progress.

    Raises:
      UserError: the model, the table or a column is wrong; `output` does not end in .parquet; or
        <output>.parts was begun with other arguments.
    """
    output = Path(output)
    if output.suffix != ".parquet":
        raise UserError(f"{output}: give an output that ends in .parquet")
    for field in ("query", "title"):
        if not columns.get(field):
            raise UserError(f"--{field} is empty: name the column that holds it")
    scorer = load(model, settings)
    meshes.check_batch(scorer.mesh, batch_size)
    folder = output.with_name(f"{output.name}.parts")
    job = {
        "model": {path.name: digest(path) for path in Path(model).iterdir() if path.is_file()},
        "pairs": _stamp(pairs),
        "columns": {field: name for field, name in columns.items() if name},
        "settings": {**scorer.settings._asdict(), "gains": list(scorer.settings.gains)},
        "batch_size": batch_size,
    }
    _check_parts(folder, job)
    rows = own_table.rows(pairs, columns=columns)
    parts: list[Path] = []
    with counter("predict", console or Console(quiet=True)) as progress:
        for piece in _pieces(rows):
            part = folder / f"part-{len(parts):06d}.parquet"
            parts.append(part)
            if len(parts) == 1:  # only now is the table known to be readable
                write_json(folder / JOB, job)
            if not part.exists():
                write_parquet(part, score(scorer, piece, batch_size=batch_size))
            progress(len(piece))
    if not parts:
        raise UserError(f"{pairs} has no rows: give a table with a header and rows")
    counts = _join(parts, output)
    shutil.rmtree(folder)
    return counts


def rejected_file(output: Path) -> Path:
    """Where the rows without a score are."""
    return output.with_suffix(".rejected.parquet")


def _pieces(rows: Iterator[own_table.Cells]) -> Iterator[list[own_table.Cells]]:
    while piece := list(itertools.islice(rows, PART_ROWS)):
        yield piece


def _check_parts(folder: Path, job: dict[str, Any]) -> None:
    """Raises UserError if the folder of parts holds those of another job."""
    if (folder / JOB).exists():
        other = read_json(folder / JOB)
        changed = [name for name, value in job.items() if other.get(name) != value]
        if changed:
            raise UserError(
                f"{folder} was begun with another {' and '.join(changed)}: remove it, or give "
                "another output"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds files that no prediction left: give another output")


def _stamp(pairs: str) -> list[list[Any]]:
    """Name, size and time of every file of a table."""
    place = epath.Path(pairs)
    files = sorted(place.iterdir()) if place.is_dir() else [place] if place.exists() else []
    stats = [(file.name, file.stat()) for file in files]
    return [[name, stat.length, stat.mtime] for name, stat in stats]


def _join(parts: Sequence[Path], output: Path) -> Counts:
    """Writes scored rows and rejected rows each to their file, a part at a time."""
    reasons: Counter[str] = Counter()
    scored = 0
    rejected = rejected_file(output)
    rejected.unlink(missing_ok=True)  # of an earlier prediction
    with whole(rejected) as other, whole(output) as temporary:
        schema = pq.read_schema(parts[0])
        plain = schema.remove(schema.get_field_index("reason"))
        left_out = pa.schema([schema.field(name) for name in (*GIVEN, "reason")])
        with (
            pq.ParquetWriter(temporary, plain) as writer,
            pq.ParquetWriter(other, left_out) as second,
        ):
            for part in parts:
                table = pq.read_table(part)
                valid = table["reason"].is_null()
                writer.write_table(table.filter(valid).select(plain.names))
                lost = table.filter(table["reason"].is_valid()).select(left_out.names)
                second.write_table(lost)
                scored += table.num_rows - lost.num_rows
                reasons.update(lost["reason"].to_pylist())
    if not reasons:
        rejected.unlink()
    return Counts(scored, dict(reasons))
