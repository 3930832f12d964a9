"""The texts of pretraining: which rows there are, and which of them are held out."""

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


def stored(tmp_path: Path, tokenizer, held_out: float = 0.5, seed: int = 0) -> corpus.Corpus:
    names = ("example_id", "query", "item_id", "title", "text", "split")
    pairs = pa.table(dict(zip(names, map(list, zip(*PAIRS, strict=True)), strict=True)))
    catalogue = pa.table(
        dict(zip(CATALOGUE_SCHEMA.names, map(list, zip(*CATALOGUE, strict=True)), strict=True)),
        schema=CATALOGUE_SCHEMA,
    )
    folder = tmp_path / f"corpus-{held_out}-{seed}"
    corpus.store(
        pairs,
        catalogue,
        tokenizer,
        folder,
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
    assert sorted(set(names)) == [
        "item a",
        "item b",
        "item c",
        "item d",
        "pair 0",
        "pair 1",
        "pair 2",
    ]
    text = {name: tokenizer.decode(ids) for name, ids, *_ in rows}
    assert text["pair 2"] == "[CLS] lamp [SEP] blue lamp [SEP]"
    assert text["item b"] == "[CLS] blue lamp [SEP]"  # it has no further text
    assert text["item d"] == "[CLS] unjudged hat [SEP] six seven [SEP]"
    everything = " ".join(text.values())
    for absent in ("secret", "hidden", "another title", "unused"):
        assert absent not in everything
    groups = {name: group for name, *_, group in rows}
    assert groups["pair 0"] == groups["pair 1"] != groups["pair 2"]  # the same query, normalised
    assert {groups[name] for name in groups if name.startswith("item")} == {corpus.NO_PAIR}
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
    """With queries, under every seed; and the share is kept over many of them."""
    sides: list[bool] = []
    for seed in range(30):
        try:
            one = stored(tmp_path, tokenizer, seed=seed)
        except UserError:
            continue
        held = set(one.names["held_out"].tolist())
        assert held.isdisjoint(one.names["train"].tolist())
        # pair 0 is of item a; pairs 1 and 2 of item b
        for together in (("item a", "pair 0"), ("item b", "pair 1", "pair 2")):
            assert len({name in held for name in together}) == 1
        sides += [f"item {item}" in held for item in "abcd"]
    assert 0.35 < np.mean(sides) < 0.65


@pytest.mark.parametrize(("held_out", "words"), [(1e-9, "held out"), (1 - 1e-9, "to train on")])
def test_a_share_that_leaves_a_side_empty(tmp_path, tokenizer, held_out, words):
    with pytest.raises(UserError, match=f"leaves no text {words}"):
        stored(tmp_path, tokenizer, held_out=held_out)
    assert list(tmp_path.iterdir()) == []
