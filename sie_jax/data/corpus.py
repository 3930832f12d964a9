"""The texts to pretrain on: those of every item, and the training pairs of query and title."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from sie_jax.data import batches, builders, splitting, tokenization
from sie_jax.data.schema import CATALOGUE_SCHEMA, normalise_query
from sie_jax.errors import UserError
from sie_jax.files import whole_folder
from sie_jax.tables.spool import write_parquet

SPLITS = ("train", "held_out")
KINDS = ("pair", "item")
NO_PAIR = -1


class Corpus(NamedTuple):
    """A stored corpus: the lengths, kinds and names of the rows of each split."""

    folder: Path
    lengths: dict[str, np.ndarray]
    kinds: dict[str, np.ndarray]
    names: dict[str, np.ndarray]

    def tokens(self, split: str) -> Any:
        """The random-access source of one split; `label` is the group of the row's first text."""
        return builders.read(self.folder / "tokens", split)

    def epoch(
        self, split: str, batch_size: int, buckets: int, *, seed: int, epoch: int
    ) -> list[batches.Batch]:
        """One epoch's batches in random order, each row once, as `batches.epoch` plans them.

        A batch has rows of one kind: the false partner of a query is the item of another query. A
        piece of a description would be too easy to tell from it by its style.
        """
        lengths, kinds = self.lengths[split], self.kinds[split]
        plan: list[batches.Batch] = []
        for kind in KINDS:
            rows = np.flatnonzero(kinds == kind)
            if len(rows):
                boundaries = batches.bucket_lengths(
                    lengths[rows], buckets=buckets, max_length=int(lengths[rows].max())
                )
                plan += batches.epoch(
                    lengths,
                    seed=seed,
                    epoch=epoch,
                    batch_size=batch_size,
                    boundaries=boundaries,
                    rows=rows,
                )
        order = np.random.default_rng((seed, epoch)).permutation(len(plan))
        return [plan[i] for i in order]


class _Row(NamedTuple):
    kind: str
    name: str
    title: str
    input_ids: np.ndarray
    first_length: int  # in tokens
    group: int


def store(
    pairs: pa.Table,
    catalogue: pa.Table,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    queries: bool,
    max_length: int,
    held_out: float,
    seed: int,
) -> None:
    """Tokenises the texts and leaves them in `folder`, whole or not at all.

    A row is a pair or a piece of an item. A pair is [CLS] query [SEP] title [SEP], of any pair of
    the training split, whatever its label. A piece is [CLS] title [SEP] piece [SEP], as
    `tokenization.encode_documents` cuts an item's further text; an item without one gives
    [CLS] title [SEP], which has no second text. Items are those of all pairs and of the catalogue,
    each item_id once. The corpus has no label, and no query of validation and test.

    A share of the titles, by hash, is held out with all rows that they are in: at least one title,
    and not all. A held-out row whose second text is in training too is left out.

    Args:
      pairs: prepared pairs, whose queries all fit: query, item_id, title, text and split.
      catalogue: item_id, title and text of further items; may be empty.
      queries: whether the corpus has pairs, or items alone.
      max_length: the most tokens of a row, at least 8.
      held_out: the share, between 0 and 1.

    Raises:
      UserError: there are fewer than two titles, or no text is left to hold out.
    """
    everything = list(_rows(pairs, catalogue, tokenizer, queries=queries, max_length=max_length))
    place = {row.title: splitting.uniform(normalise_query(row.title), seed) for row in everything}
    numbers = place.values()
    bound = min(max(held_out, np.nextafter(min(numbers), 1)), max(numbers))
    rows = {
        "train": [row for row in everything if place[row.title] >= bound],
        "held_out": [row for row in everything if place[row.title] < bound],
    }
    trained = {_second(row) for row in rows["train"]}
    rows["held_out"] = [row for row in rows["held_out"] if _second(row) not in trained]
    if not rows["held_out"]:
        raise UserError(
            "pretraining has no text to hold out that it does not train on: give items with more "
            "titles, or raise pretrain.held_out"
        )
    with whole_folder(folder) as temporary:
        tokens = {
            split: pa.table(
                {
                    "input_ids": [row.input_ids for row in rows[split]],
                    "query_length": [row.first_length for row in rows[split]],
                    "label": [row.group for row in rows[split]],
                },
                schema=builders.TOKENS_SCHEMA,
            )
            for split in SPLITS
        }
        builders.write(
            temporary / "tokens", {split: builders.shards(tokens[split]) for split in SPLITS}
        )
        tables = [
            pa.table(
                {
                    "name": [row.name for row in rows[split]],
                    "kind": [row.kind for row in rows[split]],
                    "length": pa.array([len(row.input_ids) for row in rows[split]], pa.int32()),
                    "split": [split] * len(rows[split]),
                }
            )
            for split in SPLITS
        ]
        write_parquet(temporary / "rows.parquet", pa.concat_tables(tables))


def load(folder: Path) -> Corpus:
    """Reads back what `store` left."""
    rows = pq.read_table(folder / "rows.parquet")
    by_split = {split: rows.filter(pc.equal(rows["split"], split)) for split in SPLITS}

    def column(name: str) -> dict[str, np.ndarray]:
        return {
            split: table[name].to_numpy(zero_copy_only=False) for split, table in by_split.items()
        }

    return Corpus(folder, column("length"), column("kind"), column("name"))


def _rows(
    pairs: pa.Table,
    catalogue: pa.Table,
    tokenizer: PreTrainedTokenizerFast,
    *,
    queries: bool,
    max_length: int,
) -> Iterator[_Row]:
    number: dict[str, int] = {}  # of each query
    training = pairs.filter(pc.equal(pairs["split"], "train")) if queries else pairs.slice(0, 0)
    for chunk in _chunks(training):
        names, texts, titles = (
            chunk[name].to_pylist() for name in ("example_id", "query", "title")
        )
        encoded = tokenization.encode_pairs(tokenizer, texts, titles, max_length=max_length)
        for at in np.flatnonzero(encoded.fits):  # texts that are read apart may be longer
            title = titles[at]
            group = number.setdefault(normalise_query(texts[at]), len(number))
            first_length = int(encoded.query_lengths[at])
            name = f"example {names[at]}"
            yield _Row("pair", name, title, encoded.input_ids[at], first_length, group)
    seen: set[str] = set()
    for table in (pairs, catalogue):
        for chunk in _chunks(table.select(CATALOGUE_SCHEMA.names)):
            new: dict[str, tuple[str, str]] = {}
            for item in chunk.to_pylist():
                if item["item_id"] not in seen:
                    new.setdefault(item["item_id"], (item["title"], item["text"]))
            titles, texts = ([one[at] for one in new.values()] for at in (0, 1))
            documents = tokenization.encode_documents(
                tokenizer, titles, texts, max_length=max_length
            )
            for item_id, title, pieces in zip(new, titles, documents, strict=True):
                group = len(seen)
                seen.add(item_id)
                for ids, first_length in pieces:
                    own = NO_PAIR if first_length == len(ids) else group
                    yield _Row("item", f"item {item_id}", title, ids, first_length, own)


def _second(row: _Row) -> bytes:
    """The second text, or the title where the row has no other."""
    return row.input_ids[row.first_length if row.group != NO_PAIR else 0 :].tobytes()


def _chunks(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, tokenization.ROWS_AT_ONCE):
        yield table.slice(start, tokenization.ROWS_AT_ONCE)
