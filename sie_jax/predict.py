"""Scores of pairs by a model that a run left, a table of any size at a time.

python -m sie_jax.predict --model=W/model --input=pairs.csv --output=scored.parquet
"""

import argparse
import hashlib
import itertools
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from sie_jax.data import batches as plans
from sie_jax.data import tokenization
from sie_jax.data.cleaning import repair
from sie_jax.data.loading import PlannedBatches, iterate
from sie_jax.data.schema import LabelScale
from sie_jax.data.sources import table as own_table
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.evaluation import from_probabilities
from sie_jax.files import read_json, whole, write_json
from sie_jax.models import PairClassifier
from sie_jax.passes import sweep
from sie_jax.passes.predict import predict_pass
from sie_jax.tables.spool import write_parquet
from sie_jax.tasks.graded import Graded
from sie_jax.training.logs import counter

# rows of one part: what a stop can cost
PART_ROWS = 4096
JOB = "job.json"  # in the folder of parts: what they are parts of
SHORTEST = 16  # tokens that a batch is padded to at least
TEXTS = ("query", "title", "text")
FIELDS = ("query", "title", "text", "example_id", "query_id", "item_id")


class Settings(NamedTuple):
    """What a model's folder says of itself beside Hugging Face's files, in sie_jax.json.

    Attributes:
      gains: of the labels, lowest grade first: what the score is the expectation of.
      max_length: the most tokens of a pair.
      item_text: whether an item's further text follows its title.
      max_query_characters, max_title_characters: longer ones are not scored.
    """

    gains: tuple[float, ...]
    max_length: int
    item_text: bool = False
    max_query_characters: int = 512
    max_title_characters: int = 2000

    def write(self, folder: Path) -> None:
        """Leaves sie_jax.json."""
        write_json(folder / "sie_jax.json", self._asdict())

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        """Reads it back; raises UserError where there is none, or it is of another kind."""
        path = folder / "sie_jax.json"
        if not path.is_file():
            raise UserError(
                f"{folder} has no sie_jax.json, so how its pairs were made is not known: "
                "give --gains and --max_length"
            )
        try:
            values = read_json(path)
            return cls(**{**values, "gains": tuple(values["gains"])})
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None


class Counts(NamedTuple):
    """How many rows were scored, and how many were not for which reason."""

    scored: int
    rejected: dict[str, int]


class Scorer(NamedTuple):
    """A model with all that turns texts into its scores."""

    graphdef: nnx.GraphDef
    params: Any
    tokenizer: PreTrainedTokenizerFast
    settings: Settings
    scale: LabelScale
    mesh: Mesh


class _Encoded:
    """Encoded pairs as `PlannedBatches` reads a data set."""

    def __init__(self, encoded: tokenization.EncodedPairs) -> None:
        self._encoded = encoded

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {
                "input_ids": self._encoded.input_ids[row],
                "query_length": self._encoded.query_lengths[row],
                "label": 0,  # not known, and not needed
            }
            for row in rows
        ]


def load(folder: str | Path, settings: Settings | None = None) -> Scorer:
    """Reads a model's folder; `settings` are the folder's own where None.

    Raises:
      UserError: it is no BERT with a classifier, or its parts do not fit together.
    """
    folder = Path(folder)
    model, report = PairClassifier.from_pretrained(folder)
    if report.initialised:
        raise UserError(
            f"{folder} has no {', '.join(report.initialised)}: it was not trained to classify "
            "pairs; give the folder model/ of a finished run"
        )
    settings = settings or Settings.read(folder)
    config = model.config
    if config.max_position_embeddings < settings.max_length:
        raise UserError(
            f"{folder} has {config.max_position_embeddings} positions, fewer than the "
            f"{settings.max_length} of max_length: lower it"
        )
    names = tuple(config.id2label[i] for i in range(config.num_labels))
    try:
        scale = LabelScale(names, settings.gains)
    except UserError as error:
        raise UserError(f"{folder}, labels {', '.join(names)}: {error}") from None
    tokenizer = tokenization.load(folder)
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but vocab_size in config.json "
            f"is {config.vocab_size}: take both from one model"
        )
    graphdef, params = nnx.split(model)
    mesh = meshes.make(-1)
    return Scorer(graphdef, meshes.place(mesh, params), tokenizer, settings, scale, mesh)


def score(scorer: Scorer, rows: Sequence[Mapping[str, Any]], *, batch_size: int = 64) -> pa.Table:
    """Scores rows of cells with the keys of FIELDS (`text` may lack) and gives one row for each.

    Texts are repaired as those that the model was trained on, and tokenised likewise; dropout is
    off. The columns are `example_id`, `query_id`, `item_id`, `query`, `title` as given;
    `probability_<label>` float32, for each label; `prediction`, the most probable label (the lowest
    grade among equals); `score` float64, Σ_c p_c · gain_c, which ranks the items of a query; and
    `reason`, null where there is a score, else why there is none: `missing_query`, `missing_title`,
    `query_too_long`, `title_too_long`, `query_fills_max_length`, or the reason that the row came
    with.
    """
    settings, names = scorer.settings, scorer.scale.names
    texts = {
        name: [repair(row.get(name) or "")[0] if "reason" not in row else "" for row in rows]
        for name in TEXTS
    }
    items = texts["title"]
    if settings.item_text:
        items = [f"{a} {b}".strip() for a, b in zip(items, texts["text"], strict=True)]
    encoded = tokenization.encode_pairs(
        scorer.tokenizer, texts["query"], items, max_length=settings.max_length
    )
    reasons = []
    for row, query, title, fits in zip(
        rows, texts["query"], texts["title"], encoded.fits, strict=True
    ):
        broken = {
            row.get("reason"): "reason" in row,
            "missing_query": not query,
            "missing_title": not title,
            "query_too_long": len(query) > settings.max_query_characters,
            "title_too_long": len(title) > settings.max_title_characters,
            "query_fills_max_length": not fits,
        }
        reasons.append(next((reason for reason, found in broken.items() if found), None))
    usable = np.flatnonzero([reason is None for reason in reasons])
    probabilities = np.full((len(rows), len(names)), np.nan, np.float32)
    if len(usable):
        plan = plans.in_order(
            np.array([len(ids) for ids in encoded.input_ids]),
            batch_size=batch_size,
            boundaries=_boundaries(settings.max_length),
            rows=usable,
        )
        batches = PlannedBatches(
            _Encoded(encoded),
            [plan],
            batch_size=batch_size,
            pad_token_id=scorer.tokenizer.pad_token_id,
        )
        parts = sweep.sweep(
            predict_pass(Graded(scorer.graphdef, scorer.scale.gains), scorer.mesh),
            scorer.params,
            iterate(batches),
            scorer.mesh,
        )
        probabilities[usable] = sweep.gather(parts, usable)["probabilities"]
    missing = np.isnan(probabilities[:, 0])
    predicted = from_probabilities(probabilities, scorer.scale.gains)
    given = ("example_id", "query_id", "item_id", "query", "title")
    return pa.table(
        {
            **{name: pa.array([row.get(name) for row in rows], pa.string()) for name in given},
            **{
                f"probability_{name}": pa.array(column, pa.float32(), mask=missing)
                for name, column in zip(names, probabilities.T, strict=True)
            },
            "prediction": pa.array(np.array(names, object)[predicted.classes], mask=missing),
            "score": pa.array(predicted.scores, pa.float64(), mask=missing),
            "reason": pa.array(reasons, pa.string()),
        }
    )


def predict(
    model: str | Path,
    pairs: str,
    output: str | Path,
    *,
    columns: Mapping[str, str],
    settings: Settings | None = None,
    batch_size: int = 64,
    console: Console | None = None,
) -> Counts:
    """Scores every row of a table and writes the columns of `score` as Parquet, in its order.

    Rows without a score are not in `output`; they lie in <output>.rejected.parquet with the
    `reason` (no file where there are none): rows read = scored + rejected. Memory does not grow
    with the table. What is done lies in <output>.parts until all is; where a run was stopped, the
    same call goes on at the part it was in, and gives the same bytes.

    Args:
      model: a folder model/ that a run left, or another BERT classifier's, with `settings`.
      pairs: a table as `data.sources.table.read` takes it; no labels are needed.
      output: ends in .parquet.
      columns: field of FIELDS → the table's column; `query` and `title` are needed.
      settings: see `load`.
      batch_size: pairs at a time.
      console: shows the progress; none where None.

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
        "model": _digest(Path(model)),
        "pairs": _stamp(pairs),
        "columns": {field: name for field, name in columns.items() if name},
        "settings": {**scorer.settings._asdict(), "gains": list(scorer.settings.gains)},
        "batch_size": batch_size,
    }
    _check_parts(folder, job)
    console = console or Console(quiet=True)
    rows = own_table.rows(pairs, columns=columns)
    parts: list[Path] = []
    with counter("predict", console) as progress:
        for piece in _pieces(rows):
            part = folder / f"part-{len(parts):06d}.parquet"
            parts.append(part)
            if len(parts) == 1:  # only now, when the table is known to be readable
                write_json(folder / JOB, job)
            if not part.exists():
                write_parquet(part, score(scorer, piece, batch_size=batch_size))
            progress(len(piece))
    if not parts:
        raise UserError(f"{pairs} has no rows: give a table with a header and rows")
    counts = _join(parts, output)
    shutil.rmtree(folder)
    return counts


def _boundaries(max_length: int) -> tuple[int, ...]:
    """Doubling lengths up to the greatest, so that few programs are compiled for any table."""
    lengths = itertools.takewhile(
        lambda length: length < max_length, (SHORTEST * 2**n for n in itertools.count())
    )
    return (*lengths, max_length)


def _pieces(rows: Iterator[own_table.Cells]) -> Iterator[list[own_table.Cells]]:
    while piece := list(itertools.islice(rows, PART_ROWS)):
        yield piece


def _check_parts(folder: Path, job: dict[str, Any]) -> None:
    """Raises UserError where the folder of parts holds those of another job."""
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


def _digest(folder: Path) -> str:
    """What changes when any file of the model does."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _stamp(pairs: str) -> list[list[Any]]:
    """Name, size and time of every file of a table."""
    place = epath.Path(pairs)
    files = sorted(place.iterdir()) if place.is_dir() else [place] if place.exists() else []
    stats = [(file.name, file.stat()) for file in files]
    return [[name, stat.length, stat.mtime] for name, stat in stats]


def _join(parts: Sequence[Path], output: Path) -> Counts:
    """Writes scored rows and rejected ones each into its file, a part at a time."""
    reasons: Counter[str] = Counter()
    scored = 0
    rejected = output.with_suffix(".rejected.parquet")
    rejected.unlink(missing_ok=True)  # of an earlier prediction
    with whole(rejected) as other, whole(output) as temporary:
        schema = pq.read_schema(parts[0])
        plain = schema.remove(schema.get_field_index("reason"))
        left_out = pa.schema([schema.field(name) for name in (*plain.names[:5], "reason")])
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


_DESCRIPTION = "Scores the pairs of a table by the model that a run left."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 after one line that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m sie_jax.predict", description=_DESCRIPTION)
    parser.add_argument("--model", required=True, help="the folder model/ of a run's workdir")
    parser.add_argument("--input", required=True, help="the table: .csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--output", required=True, help="the .parquet file to write")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--gains", default="", help="lowest grade first, where the folder has none")
    parser.add_argument("--max_length", type=int, default=0, help="in tokens, likewise")
    for field in FIELDS:
        default = field if field in ("query", "title") else ""
        parser.add_argument(f"--{field}", default=default, metavar="COLUMN", help="its column")
    options = vars(parser.parse_args(arguments))
    try:
        counts = predict(
            options["model"],
            options["input"],
            options["output"],
            columns={field: options[field] for field in FIELDS},
            settings=_settings(options["gains"], options["max_length"]),
            batch_size=options["batch_size"],
            console=Console(stderr=True),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{counts.scored} pairs scored in {options['output']}")
    for reason, rows in counts.rejected.items():
        rejected = Path(options["output"]).with_suffix(".rejected.parquet")
        print(f"{rows} rows left out, {reason}: see {rejected}")
    return 0


def _settings(gains: str, max_length: int) -> Settings | None:
    if not gains and not max_length:
        return None
    try:
        values = tuple(float(gain) for gain in gains.split(","))
    except ValueError:
        raise UserError(f"--gains={gains}: give numbers separated by commas") from None
    if max_length < 8:
        raise UserError(f"--max_length={max_length}: give at least 8, together with --gains")
    return Settings(values, max_length)


if __name__ == "__main__":
    sys.exit(main())
