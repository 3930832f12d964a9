"""The scores of a table of any size, made part by part so that a stopped call resumes."""

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from rich.console import Console

from sie_jax.data.schema import ATTRIBUTE
from sie_jax.data.sources import table as own_table
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.files import digest, read_json, whole, write_json
from sie_jax.serving.ranking import Ranking
from sie_jax.serving.scoring import GIVEN, MADE, Scorer, described, final, finished, load
from sie_jax.serving.settings import Settings
from sie_jax.tables.spool import write_parquet
from sie_jax.training.progress import counter

_QUIET = Console(quiet=True)
FIX = "name columns with --query, --title and so on; attributes and numbers keep their names"
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
    meshes.check_batch(scorer.mesh, batch_size)
    folder = output.with_name(f"{output.name}.parts")
    job = {
        "model": {
            str(path.relative_to(model)): digest(path)
            for path in sorted(Path(model).rglob("*"))
            if path.is_file()
        },
        "encoder_alone": encoder_alone,
        "pairs": _stamp(pairs),
        "columns": {field: name for field, name in columns.items() if name},
        "settings": {**scorer.settings._asdict(), "gains": list(scorer.settings.gains)},
        "batch_size": batch_size,
    }
    _check_parts(folder, job)
    further = {} if ranking is None else _further(ranking, pairs, str(model), console)
    rows = own_table.rows(pairs, columns=columns, further=further, fix=FIX)
    parts: list[Path] = []
    with counter("predict", console) as progress:
        for piece in _pieces(rows):
            part = folder / f"part-{len(parts):06d}.parquet"
            parts.append(part)
            if len(parts) == 1:  # only now is the table known to be readable
                write_json(folder / JOB, job)
            if not part.exists():
                write_parquet(part, described(scorer, piece, batch_size=batch_size))
            progress(len(piece))
    if not parts:
        raise UserError(f"{pairs} has no rows: give a table with a header and rows")
    counts = _join(scorer, parts, output)
    shutil.rmtree(folder)
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


def _join(scorer: Scorer, parts: Sequence[Path], output: Path) -> Counts:
    """Writes scored rows and rejected rows each to their file, a part at a time."""
    reasons: Counter[str] = Counter()
    valid = np.concatenate([_column(part, "reason").is_null().to_numpy() for part in parts])

    def column(name: str) -> np.ndarray:
        return np.concatenate([_column(part, MADE + name).to_numpy() for part in parts])[valid]

    scores = np.full(len(valid), np.nan)
    if valid.any():
        scores[valid] = final(scorer, column)
    rejected = rejected_file(output)
    rejected.unlink(missing_ok=True)  # of an earlier prediction
    start = 0
    with whole(rejected) as other, whole(output) as temporary:
        schema = finished(pq.read_schema(parts[0]).empty_table(), scores[:0]).schema
        plain = schema.remove(schema.get_field_index("reason"))
        left_out = pa.schema([schema.field(name) for name in (*GIVEN, "reason")])
        with (
            pq.ParquetWriter(temporary, plain) as writer,
            pq.ParquetWriter(other, left_out) as second,
        ):
            for part in parts:
                table = pq.read_table(part)
                table = finished(table, scores[start : start + table.num_rows])
                start += table.num_rows
                writer.write_table(table.filter(table["reason"].is_null()).select(plain.names))
                lost = table.filter(table["reason"].is_valid()).select(left_out.names)
                second.write_table(lost)
                reasons.update(lost["reason"].to_pylist())
    if not reasons:
        rejected.unlink()
    return Counts(int(valid.sum()), dict(reasons))


def _column(part: Path, name: str) -> pa.ChunkedArray:
    return pq.read_table(part, columns=[name])[name]
