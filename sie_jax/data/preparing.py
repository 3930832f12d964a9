"""From a source to what training reads: rows chosen, split and tokenised, and the counts."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from sie_jax.data import batches, builders, cleaning, repairs, splitting, tokenization
from sie_jax.data.readers import vectors
from sie_jax.data.schema import SPLITS, LabelScale, Source, as_rejected, is_number
from sie_jax.errors import UserError
from sie_jax.files import read_json, whole_folder, write_json
from sie_jax.tables.spool import CHUNK_ROWS, filtered, pieces, spool, write_parquet

COMPLETE = "complete.parquet"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which rows are fit to use, and how they are split.

    max_query_characters, max_title_characters: as in `cleaning.clean`.
    validation, test, seed, folds, fold: as in `splitting.split`.
    """

    max_query_characters: int
    max_title_characters: int
    validation: float
    test: float
    seed: int
    folds: int = 0
    fold: int = 0


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How texts become token ids.

    tokenizer_folder: of a Hugging Face tokenizer; "" where a vocabulary is trained.
    vocabulary_size: of a vocabulary that is trained.
    item_text: whether an item's further text follows its title.
    max_length: the most tokens of a pair. buckets: as in `batches.bucket_lengths`.
    lowercase: whether a vocabulary that is trained is of lower-case letters alone.
    apart: whether query and item are read by themselves, each of `max_length` tokens at most.
    """

    tokenizer_folder: str
    vocabulary_size: int
    item_text: bool
    max_length: int
    buckets: int
    lowercase: bool = True
    apart: bool = False


class Selection(NamedTuple):
    """The rows of a source that are fit to use, each with its split, and those that are not."""

    source: Source
    kept: pa.Table
    rejected: pa.Table
    repaired: dict[str, int]


class Prepared(NamedTuple):
    """What is stored: pairs with their texts, token ids, the scale, the tokenizer, the counts."""

    pairs: pa.Table
    scale: LabelScale
    tokenizer: PreTrainedTokenizerFast
    boundaries: tuple[int, ...]
    lengths: dict[str, np.ndarray]
    counts: dict[str, Any]
    folder: Path

    def split(self, name: str) -> pa.Table:
        """The pairs of one split, in the order of their token ids; on disk."""
        return filtered(self.pairs, pc.equal(self.pairs["split"], name).combine_chunks())

    def complete(self) -> pa.Table | None:
        """What every item of the catalogue is to the validation and test queries, where known."""
        path = self.folder / COMPLETE
        return pq.read_table(path) if path.exists() else None

    def tokens(self, name: str) -> builders.Records:
        """The random-access source of one split's token ids."""
        return builders.read(self.folder / "tokens", name)


def select(source: Source, rules: Rules) -> Selection:
    """Cleans the source's rows and splits them by query; writes nothing."""
    cleaned = cleaning.clean(
        source.table,
        source.scale,
        max_query_characters=rules.max_query_characters,
        max_title_characters=rules.max_title_characters,
    )
    kept, leaked = splitting.split(
        cleaned.kept,
        validation=rules.validation,
        test=rules.test,
        seed=rules.seed,
        folds=rules.folds,
        fold=rules.fold,
    )
    leaked = as_rejected(leaked, source.scale)
    rejected = pa.concat_tables(
        [source.unreadable, cleaned.rejected, leaked], promote_options="default"
    )
    return Selection(source, kept, rejected, cleaned.repaired)


def store(
    selection: Selection, folder: Path, encoding: Encoding, *, keep_catalogue: bool = False
) -> None:
    """Tokenises the selected rows; leaves rejected.parquet, cleaning.json and data/ in the folder.

    The tokenizer is that of `encoding.tokenizer_folder`. Where that is empty, it is a WordPiece
    vocabulary trained on the texts of the training split. A row whose query leaves no room for its
    item is rejected. That rows read = kept + rejected, and that no query is in two splits, is
    checked here, at run time. With `keep_catalogue` the source's catalogue is kept too, with its
    texts repaired, and what is known of all of its items. data/ appears last and at once: where it
    is, everything is.

    Raises UserError where a split has no rows left.
    """
    source, kept = selection.source, selection.kept
    if encoding.tokenizer_folder:
        tokenizer = tokenization.load(encoding.tokenizer_folder)
    else:
        training = filtered(kept, pc.equal(kept["split"], "train"))
        tokenizer = tokenization.train(
            _TextsInTurn(training, encoding.item_text),
            vocabulary_size=encoding.vocabulary_size,
            lowercase=encoding.lowercase,
        )
    tokens = spool(encoded(kept, tokenizer, encoding), builders.TOKENS_SCHEMA)
    lengths = places(tokens, encoding)
    fits = pa.array(lengths > 0)
    too_long = without_room(kept.filter(pa.array(lengths == 0)), source.scale)
    rejected = pa.concat_tables([selection.rejected, too_long], promote_options="default")
    kept, tokens, lengths = filtered(kept, fits), filtered(tokens, fits), lengths[lengths > 0]
    of_split = {name: pc.equal(kept["split"], name).combine_chunks() for name in SPLITS}
    numbers = {name: mask.true_count for name, mask in of_split.items()}
    check_splits(numbers, source.location)
    splitting.assert_disjoint(kept)
    queries: dict[str, set[str]] = {name: set() for name in SPLITS}
    for start, piece in pieces(kept.select(["query_id"])):
        for name, mask in of_split.items():
            queries[name].update(
                piece["query_id"].filter(mask.slice(start, piece.num_rows)).unique().to_pylist()
            )
    with whole_folder(folder / "data") as temporary:
        builders.write(
            temporary / "tokens",
            {name: builders.shards(filtered(tokens, mask)) for name, mask in of_split.items()},
        )
        write_parquet(
            temporary / "pairs.parquet", kept.append_column("length", pa.array(lengths, pa.int32()))
        )
        if keep_catalogue:
            catalogue = repairs.repair_catalogue(source.catalogue)
            write_parquet(temporary / "catalogue.parquet", catalogue)
            if source.complete is not None:
                write_parquet(temporary / COMPLETE, source.complete())
        describe(
            temporary,
            tokenizer=tokenizer,
            scale=source.scale,
            boundaries=batches.bucket_lengths(
                lengths, buckets=encoding.buckets, max_length=encoding.max_length
            ),
            rejected=rejected,
            counts={
                "source": source.location,
                "summary": source.summary,
                "read": source.table.num_rows + source.unreadable.num_rows,
                "kept": kept.num_rows,
                "repaired": selection.repaired,
                "splits": numbers,
                "queries": {name: len(queries[name]) for name in SPLITS},
            },
        )


def encoded(
    pairs: pa.Table, tokenizer: PreTrainedTokenizerFast, encoding: Encoding
) -> Iterator[pa.RecordBatch]:
    """The token ids of clean pairs, in batches of builders.TOKENS_SCHEMA.

    Where the query leaves no room for the item within `max_length`, `input_ids` is empty.
    """
    labels = pairs["label"]
    start = 0
    for queries, items in _texts(pairs, encoding.item_text):
        part = tokenization.encode_pairs(
            tokenizer, queries, items, max_length=encoding.max_length, apart=encoding.apart
        )
        lengths = [len(ids) for ids in part.input_ids]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        values = pa.array(np.concatenate(part.input_ids), pa.int32())
        yield pa.RecordBatch.from_arrays(
            [
                pa.ListArray.from_arrays(offsets, values),
                pa.array(part.query_lengths),
                labels.slice(start, len(queries)).combine_chunks(),
            ],
            schema=builders.TOKENS_SCHEMA,
        )
        start += len(queries)


def places(tokens: pa.Table, encoding: Encoding) -> np.ndarray:
    """`tokenization.places` of rows of builders.TOKENS_SCHEMA; 0 where the pair has no room."""
    sizes = pc.list_value_length(tokens["input_ids"]).to_numpy()
    return tokenization.places(sizes, tokens["query_length"].to_numpy(), apart=encoding.apart)


def without_room(pairs: pa.Table, scale: LabelScale) -> pa.Table:
    """Clean pairs whose query leaves no room for the item, as rejected rows with their reason."""
    reasons = pa.array(["query_fills_max_length"] * pairs.num_rows, pa.string())
    return as_rejected(pairs.append_column("reason", reasons), scale)


def check_splits(rows: Mapping[str, int], location: str) -> None:
    """Raises UserError where one of SPLITS has no rows."""
    empty = [name for name in SPLITS if not rows[name]]
    if empty:
        raise UserError(
            f"{location}: no row is left in {' and '.join(empty)}: "
            "raise data.max_length, or give more rows"
        )


def describe(
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerFast,
    scale: LabelScale,
    boundaries: tuple[int, ...],
    rejected: pa.Table,
    counts: dict[str, Any],
) -> None:
    """Writes what describes tokens and pairs beside them, and the rejected rows one folder above.

    folder: it becomes data/, and holds all other files of it already.
    counts: of cleaning.json without `rejected` and `missing`, which counts the kept pairs without a
    number in each column of numbers, where there are such. That rows read = kept + rejected is
    checked.
    """
    if counts["read"] != counts["kept"] + rejected.num_rows:
        raise AssertionError(
            f"{counts['read']} rows read, {counts['kept']} kept, {rejected.num_rows} rejected"
        )
    tokenizer.save_pretrained(folder / "tokenizer")
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(
        folder / "prepared.json",
        {
            "labels": scale.names,
            "gains": scale.gains,
            "boundaries": boundaries,
            "bytes": {str(path.relative_to(folder)): path.stat().st_size for path in written},
        },
    )
    write_parquet(folder.parent / "rejected.parquet", rejected)
    counted = rejected["reason"].value_counts().to_pylist()
    found = {one["values"]: one["counts"] for one in counted}
    by_reason = {rule: found.get(rule, 0) for rule in dict.fromkeys((*cleaning.RULES, *found))}
    names = ("source", "summary", "read", "kept", "rejected", "repaired", "splits", "queries")
    everything = {**counts, "rejected": by_reason}
    missing = _missing(folder / "pairs.parquet")
    write_json(
        folder.parent / "cleaning.json",
        {name: everything[name] for name in names} | ({"missing": missing} if missing else {}),
    )


def _missing(pairs: Path) -> dict[str, int]:
    """How many rows of a Parquet file lack a number, by the columns of numbers and of vectors."""
    parquet = pq.ParquetFile(pairs)
    parts: dict[str, list[str]] = {}
    numbers = list(filter(is_number, parquet.schema_arrow.names))
    for name in numbers:
        parts.setdefault(vectors.column(name), []).append(name)
    counts = dict.fromkeys(parts, 0)
    for batch in parquet.iter_batches(columns=numbers) if counts else ():
        for column, names in parts.items():
            lacking = np.zeros(batch.num_rows, bool)
            for name in names:
                lacking |= pc.is_null(batch[name], nan_is_null=True).to_numpy(zero_copy_only=False)
            counts[column] += int(lacking.sum())
    return counts


def load(folder: Path) -> Prepared:
    """Reads back what `store` left in the folder.

    Raises UserError where a file of data/ is missing, has another size than it was written with, or
    cannot be read.
    """
    data = folder / "data"
    file = data / "prepared.json"
    try:
        summary = read_json(file)
        for name, size in summary.get("bytes", {}).items():  # an older version wrote no sizes
            file = data / name
            if file.stat().st_size != size:
                raise ValueError(f"{file.stat().st_size} bytes of {size}")
        file = data / "pairs.parquet"
        parquet = pq.ParquetFile(file)
        pairs = spool(parquet.iter_batches(CHUNK_ROWS), parquet.schema_arrow)
    except (OSError, ValueError) as error:  # JSON's and Arrow's errors are among these
        reason = "it is missing" if isinstance(error, FileNotFoundError) else error
        raise UserError(
            f"{file} cannot be read ({reason}): restore it, or rerun the same command, "
            "which makes it again from the source"
        ) from None
    lengths = pairs["length"].to_numpy()
    return Prepared(
        pairs,
        LabelScale(tuple(summary["labels"]), tuple(summary["gains"])),
        tokenization.load(data / "tokenizer"),
        tuple(summary["boundaries"]),
        {name: lengths[pc.equal(pairs["split"], name).to_numpy()] for name in SPLITS},
        read_json(folder / "cleaning.json"),
        data,
    )


def _texts(pairs: pa.Table, item_text: bool) -> Iterator[tuple[list[str], list[str]]]:
    """Queries and items as the tokenizer takes them, a chunk of rows at a time."""
    for _, chunk in pieces(pairs, tokenization.ROWS_AT_ONCE):
        items = chunk["title"].to_pylist()
        if item_text:
            texts = chunk["text"].to_pylist()
            items = [f"{title} {text}".strip() for title, text in zip(items, texts, strict=True)]
        yield chunk["query"].to_pylist(), items


@dataclass(frozen=True)
class _TextsInTurn:
    """Every query and then its item, for every iteration anew; memory holds a chunk of them."""

    pairs: pa.Table
    item_text: bool

    def __iter__(self) -> Iterator[str]:
        for piece in _texts(self.pairs, self.item_text):
            yield from itertools.chain.from_iterable(zip(*piece, strict=True))
