import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sie_jax.data import tokenization
from sie_jax.devices import memory
from sie_jax.errors import UserError

QUERIES = ["red shoes", "blue running shoes for men", "a", "Blue  shoes!", "red shoes"]
ITEMS = [
    "Shoes, red, size 42",
    "running shoe for men in blue and red and blue and red and blue",
    "",
    "ÜBER blue",
    "unseen 靴 words",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tokenization.train([*QUERIES, *ITEMS] * 3, vocabulary_size=120)


def plain(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def test_layout(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = tokenization.encode_pairs(tokenizer, QUERIES, ITEMS, max_length=64)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert encoded.fits.all()
    for query, item, ids, segment in zip(
        QUERIES, ITEMS, encoded.input_ids, encoded.query_lengths, strict=True
    ):
        head = [cls, *plain(tokenizer, query), sep]
        assert ids.dtype == np.int32
        assert ids.tolist() == [*head, *plain(tokenizer, item), sep]
        assert segment == len(head)


@pytest.mark.parametrize("max_length", [10, 12, 17, 64])
def test_equals_transformers(tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
    encoded = tokenization.encode_pairs(tokenizer, QUERIES, ITEMS, max_length=max_length)
    assert encoded.fits.all()
    for i, (query, item) in enumerate(zip(QUERIES, ITEMS, strict=True)):
        if not item:  # transformers takes an empty second text for none at all
            continue
        wanted = tokenizer(query, item, truncation=True, max_length=max_length)
        assert encoded.input_ids[i].tolist() == wanted["input_ids"]
        segments = (np.arange(len(encoded.input_ids[i])) >= encoded.query_lengths[i]).astype(int)
        assert segments.tolist() == wanted["token_type_ids"]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("room", [5, 6, 7, 8, 15])
@pytest.mark.parametrize(("first", "second"), [(4, 30), (30, 4), (4, 4), (3, 4), (20, 20), (7, 1)])
def test_a_pair_is_cut_as_by_truncation_alone(
    tmp_path: Path, side: str, room: int, first: int, second: int
) -> None:
    """Whatever is longer, and also where the folder's tokenizer cuts at the beginning."""
    words = list("abcdefghijklmnopqrstuvwxyz0123456789")
    trained = tokenization.train([" ".join(words)], vocabulary_size=100)
    trained.truncation_side = side
    tokenization.save(trained, tmp_path, max_length=room + 3)
    texts = " ".join(words[:first]), " ".join(words[-second:])
    encoded = tokenization.encode_pairs(
        tokenization.load(tmp_path), *([text] for text in texts), max_length=room + 3
    )
    outside = PreTrainedTokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    wanted = outside(*texts, truncation=True)
    assert encoded.fits.tolist() == [first < room]  # or the query alone would fill the pair
    if first < room:
        assert encoded.input_ids[0].tolist() == wanted["input_ids"]
        assert encoded.query_lengths.tolist() == [wanted["token_type_ids"].index(1)]
    apart = tokenization.encode_pairs(
        outside, *([text] for text in texts), max_length=room + 3, apart=True
    )
    (ids,), (size,) = apart.input_ids, apart.query_lengths
    query, item = (outside(text, truncation=True)["input_ids"] for text in texts)
    assert (ids[:size].tolist(), [ids[0], *ids[size:].tolist()]) == (query, item)
    lengths = tokenization.places(np.array([len(ids)]), apart.query_lengths, apart=True)
    assert lengths.tolist() == [max(len(query), len(item))]


def test_a_query_that_leaves_no_room_does_not_fit(tokenizer: PreTrainedTokenizerFast) -> None:
    size = len(plain(tokenizer, QUERIES[1]))
    for max_length, fits in ((size, False), (size + 3, False), (size + 4, True)):
        encoded = tokenization.encode_pairs(
            tokenizer, [QUERIES[1], "a"], [ITEMS[1], "b"], max_length=max_length
        )
        assert encoded.fits.tolist() == [fits, True]
        assert len(encoded.input_ids[0]) == (max_length if fits else 0)


def test_query_lengths_are_those_of_the_encoded_pairs(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = tokenization.encode_pairs(tokenizer, QUERIES, ITEMS, max_length=64)
    twice = tokenization.query_lengths(tokenizer, [*QUERIES, *QUERIES])
    np.testing.assert_array_equal(twice, np.tile(encoded.query_lengths, 2))
    assert tokenization.query_lengths(tokenizer, []).shape == (0,)


def test_the_same_texts_give_the_same_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    for _ in range(5):  # the library's own order changes from one training to the next
        again = tokenization.train([*QUERIES, *ITEMS] * 3, vocabulary_size=120)
        assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert len(tokenizer) <= 120
    assert set(tokenizer.all_special_tokens) == set(tokenization.SPECIAL.values())


def test_texts_are_read_in_pieces_and_an_iterator_as_a_whole(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "CHUNK_ROWS", 2)
    again = tokenization.train(iter([*QUERIES, *ITEMS] * 3), vocabulary_size=120)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_a_word_of_letters_it_knows_comes_back(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = plain(tokenizer, "redshoe")
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "redshoe"


def test_save_and_load(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = tokenization.load(tmp_path)
    ours = tokenization.encode_pairs(tokenizer, QUERIES, ITEMS, max_length=16)
    theirs = tokenization.encode_pairs(loaded, QUERIES, ITEMS, max_length=16)
    for mine, other in zip(ours.input_ids, theirs.input_ids, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert loaded.pad_token_id == tokenizer.pad_token_id
    assert list(loaded("red shoes", "blue")) == tokenization.INPUTS


def test_tokenizer_json_alone_has_berts_special_tokens(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    for path in tmp_path.iterdir():
        if path.name != "tokenizer.json":
            path.unlink()
    loaded = tokenization.load(tmp_path)
    assert len(loaded) == len(tokenizer)
    for role in tokenization.SPECIAL:
        assert getattr(loaded, f"{role}_id") == getattr(tokenizer, f"{role}_id")


@pytest.mark.parametrize("lowercase", [True, False])
def test_vocab_txt_alone(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, lowercase: bool
) -> None:
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    (tmp_path / "vocab.txt").write_text(
        "".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8"
    )
    if not lowercase:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    loaded = tokenization.load(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.convert_ids_to_tokens(plain(loaded, "red")) == ["red"]
    assert (plain(loaded, "RED") == plain(loaded, "red")) is lowercase
    encoded = tokenization.encode_pairs(loaded, ["red shoes"], ["blue"], max_length=16)
    wanted = loaded("red shoes", "blue", truncation="only_second", max_length=16)
    assert encoded.input_ids[0].tolist() == wanted["input_ids"]


VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] x ze że schön schon Ze 靴 靴x".replace(" ", "\n")
BRAND = {"content": "[BRAND]", "special": True, "normalized": False}
BERTS = {"tokenizer_class": "BertTokenizer"}


def cased() -> str:
    """A tokenizer.json that says more than BERT's options can."""
    trained = tokenization.train([VOCABULARY] * 2, vocabulary_size=100, lowercase=False)
    return trained.backend_tokenizer.to_str()


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer_config.json": BERTS | {"strip_accents": False}},
        {"tokenizer_config.json": BERTS | {"do_lower_case": False, "strip_accents": True}},
        {"tokenizer_config.json": BERTS | {"tokenize_chinese_chars": False}},
        {"tokenizer_config.json": BERTS | {"additional_special_tokens": ["[BRAND]"]}},
        {"tokenizer_config.json": BERTS | {"added_tokens_decoder": {"13": BRAND}}},
        {"tokenizer_config.json": BERTS, "added_tokens.json": {"[BRAND]": 13}},
        {"tokenizer_config.json": BERTS | {"unk_token": "x"}},
        {"special_tokens_map.json": {"sep_token": "ze"}},
        {"tokenizer_config.json": BERTS | {"truncation_side": "left", "model_max_length": 9}},
        {"tokenizer_config.json": {"tokenizer_class": "BertTokenizerFast"}},
        {"config.json": {"model_type": "bert", "tokenizer_class": "BertTokenizer"}},
        {"tokenizer.json": cased()},
        {"tokenizer.json": cased(), "tokenizer_config.json": BERTS | {"do_lower_case": False}},
        {
            "tokenizer.json": cased(),
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        },
    ],
    ids=str,
)
def test_every_option_of_a_folder_is_read_as_by_transformers(
    tmp_path: Path, files: dict[str, Any]
) -> None:
    folder = {"vocab.txt": VOCABULARY, "config.json": {"model_type": "bert"}, **files}
    for name, value in folder.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (tmp_path / name).write_text(text, encoding="utf-8")
    ours, theirs = tokenization.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert len(ours) == len(theirs)
    query, item = "ŻE schön [BRAND] x [PAD]", "że Ze 靴x [brand] ze SCHON schön x x x"
    for length in (9, 12, 64):
        wanted = theirs(query, item, truncation=True, max_length=length)
        found = tokenization.encode_pairs(ours, [query], [item], max_length=length)
        assert found.input_ids[0].tolist() == wanted["input_ids"][: 64 if found.fits[0] else 0]
    tokenization.save(ours, tmp_path / "saved", max_length=9)
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "bert"}')
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again(query, item)["input_ids"] == theirs(query, item)["input_ids"]
    assert (again.model_max_length, again.truncation_side) == (9, theirs.truncation_side)


def test_words_that_differ_in_marks_are_different_words() -> None:
    pairs = {
        "ガラス": "カラス",
        "año": "ano",
        "й": "и",
        "że": "ze",
        "हिंदी": "हद",
        "ångström": "angstrom",
    }
    words = [word for pair in pairs.items() for word in pair]
    for lowercase in (True, False):
        trained = tokenization.train(words * 9, vocabulary_size=400, lowercase=lowercase)
        for word, other in pairs.items():
            assert plain(trained, word) != plain(trained, other)
            assert trained.unk_token_id not in plain(trained, word) + plain(trained, other)
        assert (plain(trained, "AÑO") == plain(trained, "año")) is lowercase


def test_a_vocabulary_beyond_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "of_machine", lambda: 10**9)
    with pytest.raises(UserError, match="a vocabulary of 1,000,000,000 needs"):
        tokenization.train(["red"], vocabulary_size=10**9)


def without(tokenizer: PreTrainedTokenizerFast, section: str) -> str:
    stated = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps(stated | {section: None})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab.txt": VOCABULARY, "tokenizer_config.json": "[]"}, "is not a JSON object"),
        ({"vocab.txt": VOCABULARY, "tokenizer_config.json": "[" * 100_000}, "nested too deeply"),
        *(
            (
                {"vocab.txt": VOCABULARY, name: json.dumps({"tokenizer_class": kind})},
                f"tokenizer_class is {kind}, and only BertTokenizer can be read",
            )
            for name, kind in (
                ("tokenizer_config.json", "RobertaTokenizer"),
                ("tokenizer_config.json", "BertJapaneseTokenizer"),
                ("config.json", "XLMRobertaTokenizerFast"),
            )
        ),
        (
            {
                "tokenizer.json": without(
                    tokenization.train(["red"] * 2, vocabulary_size=50), "post_processor"
                )
            },
            r"does not make \[CLS\] query",
        ),
        *(
            (
                {"vocab.txt": VOCABULARY, "tokenizer_config.json": json.dumps({name: value})},
                "the tokenizer cannot be read",
            )
            for name, value in (
                ("model_max_length", "long"),
                ("model_max_length", -5),
                ("truncation_side", "middle"),
                ("pad_token", 5),
            )
        ),
        (
            {"vocab.txt": VOCABULARY, "tokenizer_config.json": '{"pad_token": "<pad>"}'},
            "vocabulary has no <pad>",
        ),
        ({}, "no tokenizer.json and no vocab.txt"),
        ({"tokenizer.json": "{"}, "the tokenizer cannot be read"),
        ({"vocab.txt": "[PAD]\n[UNK]\nred\n"}, r"vocabulary has no \[CLS\]"),
        ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\nred\n"}, r"vocabulary has no \[PAD\]"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        tokenization.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_what_is_saved_says_nothing_of_the_machine(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "tokenizer_config.json"
    paths = dict.fromkeys(("name_or_path", "special_tokens_map_file"), "/home/somebody")
    file.write_text(json.dumps(json.loads(file.read_text()) | paths))
    read = tokenization.load(tmp_path / "checkpoint")
    tokenization.save(read, tmp_path / "model", max_length=8)
    options = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    # transformers below 5 does not know TokenizersBackend
    assert options["tokenizer_class"] in ("PreTrainedTokenizerFast", "BertTokenizer")
    for path in (tmp_path / "model").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "/home/somebody" not in text
        assert str(tmp_path) not in text
        assert "local" not in text
    again = tokenization.load(tmp_path / "model")
    for text in (*QUERIES, *ITEMS):
        assert plain(again, text) == plain(tokenizer, text)


def test_a_checkpoints_tokenizer_is_saved_with_its_segments(tmp_path: Path) -> None:
    """Whoever loads the folder must not take both texts of a pair for one segment."""
    tokenizer = tokenization.train(["red lamp"], vocabulary_size=40)
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    settings = tmp_path / "checkpoint" / "tokenizer_config.json"
    kept = json.loads(settings.read_text())
    del kept["model_input_names"]  # as sentence-embedding checkpoints have none
    settings.write_text(json.dumps(kept))
    tokenization.load(tmp_path / "checkpoint").save_pretrained(tmp_path / "model")
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "model", local_files_only=True)
    encoded = again("red", "lamp")
    (found,) = tokenization.encode_pairs(again, ["red"], ["lamp"], max_length=16).query_lengths
    assert encoded["token_type_ids"] == [0] * found + [1] * (len(encoded["input_ids"]) - found)


@pytest.mark.parametrize("words", range(20))
def test_documents_of_every_length_keep_every_token_of_the_text(words: int) -> None:
    tokenizer = tokenization.train(["red lamp one two three"] * 3, vocabulary_size=60)
    title, text = " ".join(["red"] * words), " ".join(["one", "two", "three"] * 7)
    (red,) = tokenizer("red", add_special_tokens=False)["input_ids"]
    (pieces,), (alone,) = (
        tokenization.encode_documents(tokenizer, [title], [body], max_length=16)
        for body in (text, "")
    )
    kept = [token for ids, first in pieces for token in ids[first:-1].tolist()]
    assert kept == tokenizer(text, add_special_tokens=False)["input_ids"]
    for ids, first in pieces:
        assert len(ids) <= 16
        assert (ids == red).sum() == min(words, 6) == first - 2  # half, less [CLS], [SEP]
    ((ids, first),) = alone
    assert first == len(ids) == min(words, 14) + 2
