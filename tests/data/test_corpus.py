"""The texts of pretraining: which rows there are, and which of them are held out."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sie_jax.data import corpus, tokenization
from sie_jax.data.schema import CATALOGUE_SCHEMA
from sie_jax.errors import UserError

MAX_LENGTH = 16
PAIRS = [
    # example_id, query, item_id, title, text, split
    ("0", "red shoes", "a", "red shoes strider", "one two three " * 12, "train"),
    ("1", "Red  shoes", "b", "blue lamp", "", "train"),
    ("2", "lamp", "b", "blue lamp", "", "train"),
    ("3", "secret", "c", "green sofa", "four five", "test"),
    ("4", "hidden", "a", "red shoes strider", "", "validation"),
]
CATALOGUE = [("a", "another title", "unused"), ("d", "unjudged hat", "six seven")]


@pytest.fixture
def tokenizer():
    texts = [text for row in PAIRS for text in row[1:5]] + [
        text for row in CATALOGUE for text in row
    ]
    return tokenization.train(texts, vocabulary_size=200)


def stored(
    tmp_path: Path, tokenizer, held_out: float = 0.5, seed: int = 0, queries: bool = True
) -> corpus.Corpus:
    names = ("example_id", "query", "item_id", "title", "text", "split")
    pairs = pa.table(dict(zip(names, map(list, zip(*PAIRS, strict=True)), strict=True)))
    catalogue = pa.table(
        dict(zip(CATALOGUE_SCHEMA.names, map(list, zip(*CATALOGUE, strict=True)), strict=True)),
        schema=CATALOGUE_SCHEMA,
    )
    folder = tmp_path / f"corpus-{held_out}-{seed}-{queries}"
    corpus.store(
        pairs,
        catalogue,
        tokenizer,
        folder,
        queries=queries,
        max_length=MAX_LENGTH,
        held_out=held_out,
        seed=seed,
    )
    return corpus.load(folder)


def rows_of(one: corpus.Corpus, split: str) -> list[tuple[str, list[int], int, int]]:
    source = one.tokens(split)
    records = [source[i] for i in range(len(source))]
    assert len(records) == len(one.lengths[split]) == len(one.names[split])
    assert [len(record["input_ids"]) for record in records] == one.lengths[split].tolist()
    return [
        (name, record["input_ids"].tolist(), int(record["query_length"]), int(record["label"]))
        for name, record in zip(one.names[split], records, strict=True)
    ]


def test_rows_are_training_pairs_and_all_items_each_once(tmp_path, tokenizer):
    one = stored(tmp_path, tokenizer)
    rows = rows_of(one, "train") + rows_of(one, "held_out")
    names = [name for name, *_ in rows]
    assert set(names) == {f"item {item}" for item in "abcd"} | {f"example {n}" for n in range(3)}
    text = {name: tokenizer.decode(ids) for name, ids, *_ in rows}
    assert text["example 2"] == "[CLS] lamp [SEP] blue lamp [SEP]"
    assert text["item b"] == "[CLS] blue lamp [SEP]"  # it has no further text
    assert text["item d"] == "[CLS] unjudged hat [SEP] six seven [SEP]"
    everything = " ".join(text.values())
    for absent in ("secret", "hidden", "another title", "unused"):
        assert absent not in everything
    groups = {name: group for name, *_, group in rows}
    # the same query, normalised
    assert groups["example 0"] == groups["example 1"] != groups["example 2"]
    assert groups["item a"] != groups["item d"] != corpus.NO_PAIR
    assert groups["item b"] == corpus.NO_PAIR
    for _, ids, first_length, _ in rows:
        assert len(ids) <= MAX_LENGTH
        assert ids[first_length - 1] == ids[-1] == tokenizer.sep_token_id


def test_the_pieces_of_a_long_text_leave_nothing_out(tmp_path, tokenizer):
    one = stored(tmp_path, tokenizer)
    rows = rows_of(one, "train") + rows_of(one, "held_out")
    pieces = [ids[first:-1] for name, ids, first, _ in rows if name == "item a"]
    assert len(pieces) > 1
    text = tokenizer(PAIRS[0][4], add_special_tokens=False)["input_ids"]
    assert [token for piece in pieces for token in piece] == text


def test_a_title_is_on_one_side_with_all_its_rows(tmp_path, tokenizer):
    """Under every seed, with its queries; over many seeds the share is kept."""
    sides: list[bool] = []
    for seed in range(30):
        one = stored(tmp_path, tokenizer, seed=seed)
        held = set(one.names["held_out"].tolist())
        assert held
        assert held.isdisjoint(one.names["train"].tolist())
        for together in (("item a", "example 0"), ("item b", "example 1", "example 2")):
            assert len({name in held for name in together}) == 1
        sides += [f"item {item}" in held for item in "abcd"]
    assert 0.35 < np.mean(sides) < 0.65


@pytest.mark.parametrize("held_out", [1e-9, 1 - 1e-9])
def test_neither_side_is_ever_empty(tmp_path, tokenizer, held_out):
    one = stored(tmp_path, tokenizer, held_out=held_out)
    assert all(len(one.names[split]) for split in corpus.SPLITS)


def test_without_queries_there_are_items_alone(tmp_path, tokenizer):
    one = stored(tmp_path, tokenizer, queries=False)
    names = {name for split in corpus.SPLITS for name in one.names[split].tolist()}
    assert names == {f"item {item}" for item in "abcd"}
    assert {kind for split in corpus.SPLITS for kind in one.kinds[split]} == {"item"}


def test_a_text_that_training_has_is_not_held_out(tmp_path, tokenizer):
    """Two items with the same further text: it is on one side, wherever the titles are."""
    rows = [(f"{n}", f"{word} lamp", "one two three") for n, word in enumerate(("red", "blue"))]
    others = itertools.permutations(["four", "five", "six"])
    rows += [
        (f"{n}", f"{' '.join(words)} sofa", " ".join(words)) for n, words in enumerate(others, 2)
    ]
    items = pa.table(dict(zip(CATALOGUE_SCHEMA.names, zip(*rows, strict=True), strict=True)))
    pairs = pa.table({name: pa.array([], pa.string()) for name in ("split", *items.column_names)})
    for seed in range(20):
        folder = tmp_path / str(seed)
        corpus.store(
            pairs,
            items,
            tokenizer,
            folder,
            queries=False,
            max_length=MAX_LENGTH,
            held_out=0.5,
            seed=seed,
        )
        one = corpus.load(folder)
        seconds = {
            split: {tuple(ids[first:]) for _, ids, first, _ in rows_of(one, split)}
            for split in corpus.SPLITS
        }
        assert seconds["train"].isdisjoint(seconds["held_out"])


def test_one_title_cannot_be_on_both_sides(tmp_path, tokenizer):
    items = pa.table({"item_id": ["a"], "title": ["lamp"], "text": [""]})
    pairs = pa.table({name: pa.array([], pa.string()) for name in ("split", *items.column_names)})
    with pytest.raises(UserError, match="no text to hold out"):
        corpus.store(
            pairs,
            items,
            tokenizer,
            tmp_path / "corpus",
            queries=False,
            max_length=MAX_LENGTH,
            held_out=0.5,
            seed=0,
        )
    assert list(tmp_path.iterdir()) == []


def test_an_epoch_has_every_row_once_and_no_batch_of_two_kinds(tmp_path):
    generator = np.random.default_rng(0)
    lengths, kinds = generator.integers(3, 40, 101), generator.choice(corpus.KINDS, 101)
    one = corpus.Corpus(tmp_path, {"train": lengths}, {"train": kinds}, {"train": kinds})
    plans = [one.epoch("train", 8, 3, seed=1, epoch=epoch) for epoch in (0, 0, 1)]
    for plan in plans:
        assert sorted(np.concatenate([batch.rows for batch in plan])) == list(range(101))
        for rows, length, _ in plan:
            assert len(set(kinds[rows])) == 1
            assert lengths[rows].max() <= length
    first, again, second = ([batch.rows.tolist() for batch in plan] for plan in plans)
    assert first == again != second
    of_batches = [kinds[rows[0]] for rows in first]
    assert of_batches != sorted(of_batches)  # the kinds alternate at random
