"""From a source to what training reads: rows chosen, split and tokenised, and the count of each."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from sie_jax.data import batches, builders, cleaning, splitting, tokenization
from sie_jax.data.schema import SPLITS, LabelScale, Source, as_rejected
from sie_jax.data.spool import filtered
from sie_jax.errors import UserError
from sie_jax.files import read_json, whole_folder, write_json, write_parquet


class Selection(NamedTuple):
    """The rows of a source that are fit to use, each with its split, and the rows that are not."""

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
        """The pairs of one split, in the order of their token ids."""
        return self.pairs.filter(pc.equal(self.pairs["split"], name))

    def tokens(self, name: str) -> builders.Records:
        """The random-access source of one split's token ids."""
        return builders.read(self.folder / "tokens", name)


def select(
    source: Source,
    *,
    max_query_characters: int,
    max_title_characters: int,
    validation: float,
    test: float,
    seed: int,
) -> Selection:
    """Cleans the source's rows and splits them by query; writes nothing."""
    cleaned = cleaning.clean(
        source.table,
        source.scale,
        max_query_characters=max_query_characters,
        max_title_characters=max_title_characters,
    )
    kept, leaked = splitting.split(cleaned.kept, validation=validation, test=test, seed=seed)
    leaked = as_rejected(leaked, source.scale)
    rejected = pa.concat_tables(
        [source.unreadable, cleaned.rejected, leaked], promote_options="default"
    )
    return Selection(source, kept, rejected, cleaned.repaired)


def store(
    selection: Selection,
    workdir: Path,
    *,
    tokenizer_folder: str,
    vocabulary_size: int,
    item_text: bool,
    max_length: int,
    buckets: int,
    keep_catalogue: bool = False,
) -> None:
    """Tokenises the selected rows and leaves rejected.parquet, cleaning.json and the folder data/.

    The tokenizer is that of `tokenizer_folder`, or a WordPiece vocabulary trained on the texts of
    the training split where that is empty. A row whose query leaves no room for its item is
    rejected, so that rows read = kept + rejected; that and the splits' disjointness are checked
    here, at run time. With `keep_catalogue` the source's catalogue is kept too, its texts repaired.
    The folder data/ appears last and at once: where it is, all is.

    Raises UserError where a split has no rows left.
    """
    source, kept = selection.source, selection.kept
    if tokenizer_folder:
        tokenizer = tokenization.load(tokenizer_folder)
    else:
        training = filtered(kept, pc.equal(kept["split"], "train"))
        tokenizer = tokenization.train(
            _TextsInTurn(training, item_text), vocabulary_size=vocabulary_size
        )
    encoded = tokenization.join(
        tokenization.encode_pairs(tokenizer, queries, items, max_length=max_length)
        for queries, items in _texts(kept, item_text)
    )

    reasons = pa.array(["query_fills_max_length"] * kept.num_rows, pa.string())
    too_long = kept.append_column("reason", reasons).filter(pa.array(~encoded.fits))
    rejected = pa.concat_tables(
        [selection.rejected, as_rejected(too_long, source.scale)], promote_options="default"
    )
    kept = filtered(kept, pa.array(encoded.fits))
    split = _column(kept, "split")
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise UserError(
            f"{source.location}: no row is left in {' and '.join(empty)}: "
            "raise data.max_length, or give more rows"
        )
    splitting.assert_disjoint(kept)
    read = source.table.num_rows + source.unreadable.num_rows
    if read != kept.num_rows + rejected.num_rows:
        raise AssertionError(
            f"{read} rows read, {kept.num_rows} kept, {rejected.num_rows} rejected"
        )

    input_ids = [ids for ids in encoded.input_ids if len(ids)]
    lengths = np.array([len(ids) for ids in input_ids], np.int32)
    query_lengths, labels = encoded.query_lengths[encoded.fits], kept["label"].to_numpy()
    tokens = {}
    for name in SPLITS:
        rows = np.flatnonzero(split == name)
        tokens[name] = {
            "input_ids": [input_ids[i] for i in rows],
            "query_length": query_lengths[rows],
            "label": labels[rows],
        }
    with whole_folder(workdir / "data") as temporary:
        builders.write(temporary / "tokens", tokens)
        write_parquet(
            temporary / "pairs.parquet", kept.append_column("length", pa.array(lengths, pa.int32()))
        )
        tokenizer.save_pretrained(temporary / "tokenizer")
        if keep_catalogue:
            catalogue = cleaning.repair_catalogue(source.catalogue)
            write_parquet(temporary / "catalogue.parquet", catalogue)
        boundaries = batches.bucket_lengths(lengths, buckets=buckets, max_length=max_length)
        scale = source.scale
        written = sorted(path for path in temporary.rglob("*") if path.is_file())
        write_json(
            temporary / "prepared.json",
            {
                "labels": scale.names,
                "gains": scale.gains,
                "boundaries": boundaries,
                "bytes": {
                    str(path.relative_to(temporary)): path.stat().st_size for path in written
                },
            },
        )
        write_parquet(workdir / "rejected.parquet", rejected)
        found = Counter(rejected["reason"].to_pylist())
        query_ids = _column(kept, "query_id")
        write_json(
            workdir / "cleaning.json",
            {
                "source": source.location,
                "summary": source.summary,
                "read": read,
                "kept": kept.num_rows,
                "rejected": {
                    rule: found[rule] for rule in dict.fromkeys((*cleaning.RULES, *found))
                },
                "repaired": selection.repaired,
                "splits": {name: int((split == name).sum()) for name in SPLITS},
                "queries": {name: len(set(query_ids[split == name])) for name in SPLITS},
            },
        )


def load(workdir: Path) -> Prepared:
    """Reads back what `store` left.

    Raises UserError where a file of data/ is gone, is not of the size it was written with, or
    cannot be read.
    """
    folder = workdir / "data"
    file = folder / "prepared.json"
    try:
        summary = read_json(file)
        for name, size in summary.get("bytes", {}).items():  # none where an older version wrote
            file = folder / name
            if file.stat().st_size != size:
                raise ValueError(f"{file.stat().st_size} bytes of {size}")
        file = folder / "pairs.parquet"
        pairs = pq.read_table(file)
    except (OSError, ValueError) as error:  # JSON's and Arrow's errors are among these
        reason = "it is gone" if isinstance(error, FileNotFoundError) else error
        raise UserError(
            f"{file} cannot be read ({reason}): restore it, or remove {folder}: the same command "
            "makes it again from the source, which has to be what it was"
        ) from None
    lengths, split = pairs["length"].to_numpy(), _column(pairs, "split")
    return Prepared(
        pairs,
        LabelScale(tuple(summary["labels"]), tuple(summary["gains"])),
        tokenization.load(folder / "tokenizer"),
        tuple(summary["boundaries"]),
        {name: lengths[split == name] for name in SPLITS},
        read_json(workdir / "cleaning.json"),
        folder,
    )


def _texts(pairs: pa.Table, item_text: bool) -> Iterator[tuple[list[str], list[str]]]:
    """Queries and items as the tokenizer reads them, a chunk of rows at a time."""
    for start in range(0, pairs.num_rows, tokenization.ROWS_AT_ONCE):
        chunk = pairs.slice(start, tokenization.ROWS_AT_ONCE)
        items = chunk["title"].to_pylist()
        if item_text:
            texts = chunk["text"].to_pylist()
            items = [f"{title} {text}".strip() for title, text in zip(items, texts, strict=True)]
        yield chunk["query"].to_pylist(), items


@dataclass(frozen=True)
class _TextsInTurn:
    """Every query and then its item, as often as they are gone through; memory holds a chunk."""

    pairs: pa.Table
    item_text: bool

    def __iter__(self) -> Iterator[str]:
        for piece in _texts(self.pairs, self.item_text):
            yield from itertools.chain.from_iterable(zip(*piece, strict=True))


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy(zero_copy_only=False)
