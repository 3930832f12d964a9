"""Preparing on Apache Beam: what `preparing` leaves, made on the machines of any runner.

This process knows where the rows lie, how many there are, and their counts; it does not see texts.
"""

import functools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, TypeOptions

from sie_jax.data import (
    batches,
    beam_workers,
    builders,
    cleaning,
    preparing,
    repairs,
    splitting,
    tokenization,
)
from sie_jax.data.beam_workers import Cleaner, Finisher, Part
from sie_jax.data.preparing import Encoding, Rules
from sie_jax.data.schema import REJECTED_SCHEMA, SPLITS, LabelScale, Source
from sie_jax.data.section import DataConfig
from sie_jax.data.sources import table
from sie_jax.errors import UserError
from sie_jax.files import read_json, whole_folder
from sie_jax.tables.spool import CHUNK_ROWS, spool, write_parquet

# Rejected rows stand in the order of the rules that reject them, as in `preparing.select`.
STAGES = ("unreadable", "cleaning", "splitting", "tokenising")


def read(data: DataConfig) -> tuple[Source, list[Part] | None]:
    """The source, and the parts of it that workers read; None where this process read its rows.

    Workers read a table in Parquet files whose labels are named and which has no raters; then the
    source has no rows.

    Raises UserError as `DataConfig.read`.
    """
    found = data.row_groups()
    if found is None:
        return data.read(), None
    source, groups = found
    request = data.request(data.path)
    columns, further = table.columns_of(request), data.table.further(request)
    return source, beam_workers.table_parts(groups, columns=columns, further=further)


def store(
    source: Source,
    parts: Sequence[Part] | None,
    folder: Path,
    *,
    rules: Rules,
    encoding: Encoding,
    keep_catalogue: bool = False,
    options: Sequence[str] = (),
) -> None:
    """Leaves in the folder what `preparing.select` and `preparing.store` leave, row for row.

    All workers must see the folder. Intermediate files lie below folder/.data.tmp, take about twice
    the size of the texts, and are removed. `TokenizedPairs` has more files than those that
    `preparing.store` writes, with the same records. TFDS's builder writes them on the same runner,
    one split after the other. It keeps one pipeline for all splits and repeats for each split what
    it wrote before, so that the largest split comes last.

    Args:
      source, parts: as `read` gives them. Where `parts` is None, the rows of the source are written
        to the folder for the workers, and removed at the end.
      encoding: with the folder of a tokenizer, which is sent to the workers with their work.
      options: Beam's flags, as in ["--runner=FlinkRunner", "--flink_master=HOST:8081"]. Beam warns
        of those that it does not know, and ignores them.
      rules, keep_catalogue: as in `preparing`.

    Raises:
      UserError: as `preparing`, with the source's location; where the rules have folds; and where
        hashing leaves a split without a query. That happens with few queries; `splitting.split`
        then moves one.
    """
    if rules.folds:
        raise UserError(
            f"data.test_folds is {rules.folds}, and Beam makes no folds: leave it out, or prepare "
            "with train.py, which does"
        )
    try:
        cleaning.check_limits(rules.max_query_characters, rules.max_title_characters)
        splitting.check_shares(rules.validation, rules.test)
        with _parts(source, parts, folder) as found, whole_folder(folder / "data") as temporary:
            _store(source, found, temporary, rules, encoding, keep_catalogue, options)
    except UserError as error:
        raise UserError(f"{source.location}: {error}") from None


@contextmanager
def _parts(source: Source, parts: Sequence[Part] | None, folder: Path) -> Iterator[Sequence[Part]]:
    """These parts, or those of the source's rows, which lie in the folder inside the block."""
    if parts is not None:
        yield parts
        return
    rows = folder / ".rows.parquet"
    try:
        write_parquet(rows, source.table)
        yield beam_workers.parts([rows])
    finally:
        rows.unlink(missing_ok=True)


def _store(
    source: Source,
    parts: Sequence[Part],
    data: Path,
    rules: Rules,
    encoding: Encoding,
    keep_catalogue: bool,
    options: Sequence[str],
) -> None:
    """Fills the folder that becomes data/, and describes it."""
    tokenizer, scale = tokenization.load(encoding.tokenizer_folder), source.scale
    folder = data / "parts"
    for name in ("pairs", "tokens", beam_workers.REFUSED, *STAGES):
        (folder / name).mkdir(parents=True)
    write_parquet(folder / "unreadable" / beam_workers.file_name(0), source.unreadable)
    with _pipeline(options) as pipeline:
        beam_workers.write_rows(
            pipeline,
            parts,
            folder,
            cleaner=Cleaner(scale, rules),
            finisher=Finisher(folder, scale, tokenizer, rules, encoding),
            groups=max(1, sum(part.rows for part in parts) // CHUNK_ROWS),
        )
    if refused := sorted((folder / beam_workers.REFUSED).iterdir()):
        raise UserError(read_json(refused[0]))
    reports = sorted(read_json(folder / "reports.json"), key=lambda report: report["start"])
    total = _total(reports)
    _check(total, read_json(folder / "repeated.json"), read_json(folder / "shared.json"), scale)
    builders.write(
        data / "tokens",
        {name: _shards(reports, folder, name) for name in ("validation", "test", "train")},
        beam_runner=_options(options).view_as(StandardOptions).runner or "DirectRunner",
        beam_options=_options(options),
    )
    _concatenate(folder / "pairs", data / "pairs.parquet")
    rejected = _spooled([path for stage in STAGES for path in sorted((folder / stage).iterdir())])
    lengths = [int(length) for length in total["lengths"]]
    if keep_catalogue:
        catalogue = repairs.repair_catalogue(source.catalogue)
        write_parquet(data / "catalogue.parquet", catalogue)
    queries = dict(read_json(folder / "queries.json"))
    shutil.rmtree(folder)  # `describe` lists the files that stay
    preparing.describe(
        data,
        tokenizer=tokenizer,
        scale=scale,
        boundaries=batches.bucket_lengths(
            np.repeat(lengths, list(total["lengths"].values())),
            buckets=encoding.buckets,
            max_length=encoding.max_length,
        ),
        rejected=rejected,
        counts={
            "source": source.location,
            "summary": dict(source.summary),
            "read": source.unreadable.num_rows + sum(part.rows for part in parts),
            "kept": sum(total["splits"].values()),
            "repaired": {name: total["repaired"][name] for name in repairs.REPAIRS},
            "splits": {name: total["splits"][name] for name in SPLITS},
            "queries": {name: queries[name] for name in SPLITS},
        },
    )


def _options(flags: Sequence[str]) -> PipelineOptions:
    options = PipelineOptions(list(flags))
    # Beam guesses types where it cannot see them, and TFDS's own transforms fail those guesses
    options.view_as(TypeOptions).pipeline_type_check = False
    return options


def _pipeline(flags: Sequence[str]) -> beam.Pipeline:
    try:
        return beam.Pipeline(options=_options(flags))
    except ValueError as error:  # an unknown runner, or a flag that its runner needs
        raise UserError(f"Beam does not take the flags {' '.join(flags)}: {error}") from None


def _total(reports: Sequence[dict[str, Any]]) -> dict[str, Counter[str]]:
    """The counts of all chunks together."""
    names = ("read", "labels", "broken", "repaired", "splits", "lengths")
    return {
        name: sum((Counter(report[name]) for report in reports), Counter()) for name in names
    } | {"given": Counter(split for report in reports for split in report["given"])}


def _check(
    total: Mapping[str, Counter[str]],
    repeated: Sequence[tuple[str, int]],
    shared: Sequence[tuple[str, Sequence[str]]],
    scale: LabelScale,
) -> None:
    """Raises UserError for what cannot be used, in the order in which `preparing` finds it."""
    rows = total["read"]["rows"]
    cleaning.check_read(total["labels"], scale)
    cleaning.check_kept({rule: total["broken"][rule] for rule in cleaning.RULES}, rows)
    if repeated:
        raise cleaning.repeated_id(*max(repeated, key=lambda found: found[1]))
    if shared:
        raise cleaning.shared_id(*min(shared), len(shared))
    splitting.check_given(total["given"])
    if lacking := [name for name in SPLITS if not total["splits"][name]]:
        raise UserError(
            f"splitting: {' and '.join(lacking)} would have no query: prepare so few queries on "
            "one machine, with train.py"
        )


def _shards(reports: Sequence[dict[str, Any]], folder: Path, split: str) -> list[builders.Shard]:
    """A shard for each chunk that has rows of this split."""
    shards, first = [], 0
    for report in reports:
        if rows := report["splits"].get(split):
            path = folder / "tokens" / beam_workers.file_name(report["start"])
            shards.append(builders.Shard(first, functools.partial(_tokens, path, split)))
            first += rows
    return shards


def _tokens(path: Path, split: str) -> pa.Table:
    tokens = pq.read_table(path)
    return tokens.filter(pc.equal(tokens["split"], split)).select(builders.TOKENS_SCHEMA.names)


def _concatenate(folder: Path, path: Path) -> None:
    """The Parquet files of a folder as one, in the order of their names."""
    files = sorted(folder.iterdir())
    with pq.ParquetWriter(path, pq.read_schema(files[0])) as writer:
        for file in files:
            writer.write_table(pq.read_table(file))


def _spooled(files: Sequence[Path]) -> pa.Table:
    """The rejected rows of Parquet files as one table on disk, the columns of all in it."""
    schema = pa.unify_schemas([REJECTED_SCHEMA, *map(pq.read_schema, files)])
    return spool(
        (
            batch
            for file in files
            for batch in pa.concat_tables(
                [schema.empty_table(), pq.read_table(file)], promote_options="default"
            ).to_batches()
        ),
        schema,
    )
