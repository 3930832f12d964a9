"""The scores of a table of any size, made part by part so that a stopped call resumes."""

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from sie_jax import remote
from sie_jax.data.readers.records import Wanted
from sie_jax.data.repairs import repair
from sie_jax.data.schema import ATTRIBUTE
from sie_jax.data.sources import table as own_table
from sie_jax.devices import mesh as meshes
from sie_jax.errors import NumericalError, UserError
from sie_jax.files import digest, digests, read_json, write_json
from sie_jax.outputs import of_table
from sie_jax.serving import catalogue
from sie_jax.serving.ranking import Ranking, short_lists
from sie_jax.serving.results import CARRIED, Counts, best, column_of, list_lengths, write
from sie_jax.serving.scoring import (
    GIVEN,
    MADE,
    NOT_FINITE,
    Scorer,
    check_folder,
    described,
    final,
    load,
)
from sie_jax.serving.settings import Settings
from sie_jax.tables.spool import write_parquet
from sie_jax.training.progress import counter

_QUIET = Console(quiet=True)
PART_ROWS = 4096  # what a stop can cost
MOST_PAIRS = PART_ROWS  # at a time: a batch is never of several parts
JOB = "job.json"  # in the folder of parts: what they are parts of


class Pairs(NamedTuple):
    """The pairs to score: a table of them, or a table of items for one query.

    path: a table as `data.sources.table.read` takes it; it needs no labels.
    columns: its column for each of PAIR_FIELDS; `query` and `title` are needed. An id that is not
      named is the column of that name, if there is one.
    query: that of all rows, where the table has no column for it.
    items: a catalogue, with which the table is joined by `item_id`; it has columns of the same
      names. One of the two has the titles.
    """

    path: str
    columns: Mapping[str, str]
    query: str = ""
    items: str = ""

    def check(self) -> None:
        """Raises UserError where a column is not named."""
        if self.query and not repair(self.query)[0]:
            raise UserError(f"--query={self.query}: nothing of it is text, give the query's words")
        needed = ("title",) if self.query else ("query", "title")
        for field in needed:
            if not self.columns.get(field):
                raise UserError(f"--{field} is empty: name the column that holds it")

    def named(self, there: Iterable[str]) -> dict[str, str]:
        """The column of each field that has one, of a table with the columns `there`."""
        of_pairs = () if self.query else ("example_id", "query_id")
        ids = {name: name for name in there if name in (*of_pairs, "item_id")}
        given = {field: name for field, name in self.columns.items() if name}
        if self.query:
            given.pop("query", None)
        of_catalogue = ("title", "text") if self.items else ()
        elsewhere = {field for field in of_catalogue if given.get(field, "") not in set(there)}
        return {field: name for field, name in (ids | given).items() if field not in elsewhere}


def score_table(
    model: str | Path,
    pairs: Pairs,
    output: str | Path,
    *,
    settings: Settings | None = None,
    encoder_alone: bool = False,
    batch_size: int = 64,
    top: int | None = None,
    console: Console | None = None,
) -> Counts:
    """Scores every row of a table and writes the columns of `scoring.score` in the table's order.

    The table's other columns follow them: numbers and truth values of JSON lines and Parquet with
    their type, all else as text. One whose name is taken is called `given_<name>`. Bytes, and what
    not all parts of the table have, are left out, which is said.

    Rows without a score are not in `output`; they are in <output>.rejected with the same suffix and
    the `reason` (there is no file if there are no such rows): rows read = scored + rejected. Memory
    holds a few numbers and the title of each row, and with `top` the rows that are chosen. Finished
    parts are kept in <output>.parts until all are finished; after a stop, the same call resumes at
    the part that it was in and writes the same bytes.

    Args:
      model: the folder model/ of a run, or the folder of another BERT classifier: with `settings`,
        unless it has one output.
      pairs: what is scored. What else the model ranks by is read from the columns of these names:
        numbers have to be there, and without an attribute items are ranked as those of which it is
        not known, which is said.
      output: a path that ends in .csv, .jsonl or .parquet.
      settings: those of the model's folder if none are given.
      encoder_alone: as in `scoring.load`.
      batch_size: pairs at a time.
      top: how many rows of each query are written, the best first, queries in the order in which
        they begin; a column `rank` counts from 1. Equal scores are ranked by example id. None
        writes all rows, in the table's order.
      console: shows the progress.

    Nothing is written that `outputs.Outputs` protects: what is read, and what no command left.

    Raises:
      UserError: the model, the table or a column is wrong; `output` has another ending, or may not
        be written; or <output>.parts was begun with other arguments.
      NumericalError: the model gives no finite score for any row; nothing is written then.
    """
    outputs = of_table(Path(output))
    (folder,) = outputs.scratch
    pairs.check()
    check_folder(Path(model))
    if not 1 <= batch_size <= MOST_PAIRS:
        raise UserError(f"--batch_size={batch_size}: give a number from 1 to {MOST_PAIRS}")
    if top is not None and top < 1:
        raise UserError(f"--top={top}: give a number of rows, 1 or more")
    path, items = remote.local(pairs.path), remote.local(pairs.items) if pairs.items else ""
    inputs = {"pairs": path, **({"items": items} if items else {})}
    outputs.check((model, *inputs.values()))
    job: dict[str, Any] = {"model": digests(Path(model)), "items": None}
    job |= {name: digests(Path(one)) for name, one in inputs.items()}
    console = console or _QUIET
    types, lacking = own_table.shared_types(path)
    columns = pairs.named(types)
    of_items = catalogue.column_names(items) if items else []
    wanted = {**({"item_id": "item_id"} if items else {}), **columns}
    flags = {f"--{one}": (name,) for one, name in wanted.items()}
    Wanted(tuple(wanted.values()), catalogue.FIX, flags=flags).check(pairs.path, types)
    scorer = load(model, settings, encoder_alone=encoder_alone)
    for note in scorer.notes:
        _say(console, note)
    ranking = scorer.ranking
    if lacking:
        _say(console, f"not all parts of {path} have {', '.join(lacking)}: not in the output")
    text = columns.get("text") or (pairs.columns.get("text") or "") in of_items
    if ranking is not None and ranking.ranker.text and not text:
        _say(
            console,
            f"{model} ranks by the items' further text too: name its column with --text, or they "
            "are ranked as items without any",
        )
    meshes.check_batch(scorer.mesh, batch_size, "--batch_size")
    job |= {
        "encoder_alone": encoder_alone,
        "columns": {**pairs.columns, **columns},  # the catalogue's too
        "query": pairs.query,
        "settings": {**scorer.settings._asdict(), "gains": list(scorer.settings.gains)},
        "batch_size": batch_size,
    }
    job["parts"] = _check_parts(folder, job)
    carried = _carried(types, columns, console)
    further = {CARRIED + name: name for name in carried}
    known = [*types, *of_items]
    ranks_by = {} if ranking is None else _further(ranking, pairs.path, known, str(model), console)
    further |= {name: one for name, one in ranks_by.items() if one in types or one not in known}

    def given() -> Iterator[own_table.Cells]:
        return own_table.rows(
            path, columns=columns, further=further, fix=catalogue.FIX, query=pairs.query
        )

    rows = given
    if items:
        fields = {name: pairs.columns.get(name) or "" for name in ("title", "text")}
        # what neither has is asked of the catalogue, which says that it is not there
        own = {name for name in fields.values() if name in types and name not in of_items}
        texts = {field: name for field, name in fields.items() if name not in own}
        entries = catalogue.read(
            items,
            {"item_id": columns["item_id"], **texts},
            {name: one for name, one in ranks_by.items() if one in of_items},
        )
        joined = catalogue.join(given(), further, entries, path)
        rows = joined.rows
        if lacking_items := joined.counts["ids_without_entry"]:
            _say(console, f"{lacking_items:,} items of {pairs.path} are not in {pairs.items}")
        if said := catalogue.left_out(joined.counts):
            _say(console, f"{pairs.items}: {said}")

    # once to its end, so that a fault in a late row is not found after hours
    if not sum(1 for _ in rows()):
        raise UserError(f"{path} has no rows: give a table with a header and rows")
    try:
        parts = _parts(scorer, rows(), folder, job, carried, console)
        for name, one in inputs.items():
            if digests(Path(one)) != job[name]:
                raise UserError(f"{one} was changed while it was scored: rerun the same command")
        scores = _scores(scorer, parts, str(model))
    except (UserError, NumericalError):
        _remove_parts(folder)  # of no use to the command that comes after the fault is mended
        raise
    if ranking is not None and (said := short_lists(ranking.ranker, list_lengths(parts, scores))):
        _say(console, said)
    chosen = None if top is None else best(parts, scores, top)
    counts = write(parts, scores, chosen, carried, outputs)
    _remove_parts(folder)
    return counts


def _carried(
    types: Mapping[str, pa.DataType], columns: Mapping[str, str], console: Console
) -> dict[str, pa.DataType]:
    """The table's columns that stand in the output as they are, with their types."""
    used = {columns[field] for field in GIVEN if field in columns}
    if no_text := [name for name, kind in types.items() if kind == pa.binary()]:
        _say(console, f"{', '.join(no_text)} hold bytes, not text: not in the output")
    return {name: kind for name, kind in types.items() if name not in {*used, *no_text}}


def _further(
    ranking: Ranking, pairs: str, known: Iterable[str], model: str, console: Console
) -> dict[str, str]:
    """The columns to read beside texts; those of attributes that the table lacks are told."""
    attributes = {name for name in ranking.further if name.startswith(ATTRIBUTE)}
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
    carried: Iterable[str],
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
                table = described(scorer, piece, batch_size=job["batch_size"])
                for name in carried:
                    cells = pa.array([row.get(CARRIED + name) for row in piece], pa.string())
                    table = table.append_column(CARRIED + name, cells)
                write_parquet(part, table)
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
    reasons = pa.chunked_array([one for part in parts for one in column_of(part, "reason").chunks])
    valid = reasons.is_null().to_numpy()

    def column(name: str) -> np.ndarray:
        return np.concatenate([column_of(part, MADE + name).to_numpy() for part in parts])[valid]

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
