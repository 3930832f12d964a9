"""The texts to pretrain on: every item's own, and the queries of the training pairs with theirs."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from sie_jax.data import builders, splitting, tokenization
from sie_jax.data.schema import CATALOGUE_SCHEMA, normalise_query
from sie_jax.data.spool import CHUNK_ROWS
from sie_jax.errors import UserError
from sie_jax.files import whole_folder, write_parquet

SPLITS = ("train", "held_out")
NO_PAIR = -1


class Corpus(NamedTuple):
    """A stored corpus: each split's token ids, lengths and the rows' names."""

    folder: Path
    lengths: dict[str, np.ndarray]
    names: dict[str, np.ndarray]

    def tokens(self, split: str) -> builders.TokenizedPairs:
        """The random-access source of one split; `label` is the group of a row that is a pair."""
        return builders.read(self.folder / "tokens", split)


def store(
    pairs: pa.Table,
    catalogue: pa.Table,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    max_length: int,
    held_out: float,
    seed: int,
) -> None:
    """Tokenises the texts and leaves them in `folder`, whole or not at all.

    A row is either a pair, [CLS] query [SEP] title [SEP], of the training split, whatever its
    label; or a piece of an item, [CLS] title [SEP] piece [SEP], its further text cut into pieces
    that fit (a title of more than half of `max_length` is cut to that; an item without further text
    is [CLS] title [SEP]). Items are those of the catalogue and those of all pairs, each item_id
    once. The queries of validation and test are not here, nor is any label.

    A share of the titles, by hash, is held out with all rows they are in.

    Args:
      pairs: prepared pairs, all of whose queries fit: query, item_id, title, text and split.
      catalogue: item_id, title and text of further items; may be empty.
      max_length: of a row, in tokens, at least 8.
      held_out: the share, between 0 and 1.

    Raises:
      UserError: no row is left in one of the two splits.
    """
    ids: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    first_lengths: dict[str, list[int]] = {split: [] for split in SPLITS}
    groups: dict[str, list[int]] = {split: [] for split in SPLITS}
    names: dict[str, list[str]] = {split: [] for split in SPLITS}

    def add(name: str, title: str, row: np.ndarray, first_length: int, group: int) -> None:
        out = splitting.uniform(normalise_query(title), seed) < held_out
        split = "held_out" if out else "train"
        ids[split].append(row)
        first_lengths[split].append(first_length)
        groups[split].append(group)
        names[split].append(name)

    number: dict[str, int] = {}  # of each query, so that its own items are no false pairs
    for chunk in _chunks(pairs.filter(pc.equal(pairs["split"], "train"))):
        names_of_rows, queries, titles = (
            chunk[name].to_pylist() for name in ("example_id", "query", "title")
        )
        encoded = tokenization.encode_pairs(tokenizer, queries, titles, max_length=max_length)
        for at, name in enumerate(names_of_rows):
            group = number.setdefault(normalise_query(queries[at]), len(number))
            row, first_length = encoded.input_ids[at], int(encoded.query_lengths[at])
            add(f"pair {name}", titles[at], row, first_length, group)
    seen: set[str] = set()
    for table in (pairs, catalogue):
        for chunk in _chunks(table.select(CATALOGUE_SCHEMA.names)):
            new: dict[str, tuple[str, str]] = {}
            for item in chunk.to_pylist():
                if item["item_id"] not in seen:
                    new.setdefault(item["item_id"], (item["title"], item["text"]))
            seen |= new.keys()
            titles, texts = ([one[at] for one in new.values()] for at in (0, 1))
            pieces = tokenization.encode_documents(tokenizer, titles, texts, max_length=max_length)
            for item, title, rows in zip(new, titles, pieces, strict=True):
                for row, first_length in rows:
                    add(f"item {item}", title, row, first_length, NO_PAIR)
    for split in SPLITS:
        if not ids[split]:
            raise UserError(
                f"pretrain.held_out is {held_out:g}, which leaves no text "
                f"{'to train on' if split == 'train' else 'held out'}: change it"
            )
    with whole_folder(folder) as temporary:
        builders.write(
            temporary / "tokens",
            {
                split: {
                    "input_ids": ids[split],
                    "query_length": first_lengths[split],
                    "label": groups[split],
                }
                for split in SPLITS
            },
        )
        tables = [
            pa.table(
                {
                    "name": names[split],
                    "length": pa.array([len(row) for row in ids[split]], pa.int32()),
                    "split": [split] * len(ids[split]),
                }
            )
            for split in SPLITS
        ]
        write_parquet(temporary / "rows.parquet", pa.concat_tables(tables))


def load(folder: Path) -> Corpus:
    """Reads back what `store` left."""
    rows = pq.read_table(folder / "rows.parquet")
    by_split = {split: rows.filter(pc.equal(rows["split"], split)) for split in SPLITS}
    return Corpus(
        folder,
        {split: table["length"].to_numpy() for split, table in by_split.items()},
        {split: table["name"].to_numpy(zero_copy_only=False) for split, table in by_split.items()},
    )


def _chunks(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, CHUNK_ROWS):
        yield table.slice(start, CHUNK_ROWS)
