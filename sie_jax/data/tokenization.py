"""Texts as token ids: [CLS] query [SEP] item [SEP], cut as transformers cuts them."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from sie_jax.devices import memory
from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json
from sie_jax.tables.spool import CHUNK_ROWS

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

# How many rows are tokenised at a time: the tokenizer keeps some KiB of each text until the last.
ROWS_AT_ONCE = 8_192

_TRAINER_BYTES = 64  # of each token that the library's trainer makes room for


class EncodedPairs(NamedTuple):
    """Token ids of pairs: `input_ids[i]` int32 `[T_i]`, of which `query_lengths[i]` are segment 0.

    `fits[i]` is False where the whole query leaves no room within max_length for one token of the
    item; then the ids are empty.
    """

    input_ids: list[np.ndarray]
    query_lengths: np.ndarray
    fits: np.ndarray


# What a BERT takes. A tokenizer that is loaded without these names gives no segment ids.
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]

_VOCABULARIES = ("tokenizer.json", "vocab.txt")
_OPTIONS = "tokenizer_config.json"
# what folders call the classes: BERT's, and those that are whatever tokenizer.json says
_BERT = ("BertTokenizer", "BertTokenizerFast")
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
# options of the machine, not of the tokenizer
_LOCAL = (
    "is_local",
    "local_files_only",
    "name_or_path",
    "special_tokens_map_file",
    "vocab_file",
    "tokenizer_file",
)


def load(folder: str | Path) -> PreTrainedTokenizerFast:
    """Loads the fast tokenizer of a Hugging Face folder (tokenizer.json, or a BERT vocab.txt).

    It has the options and tokens that transformers' AutoTokenizer reads in the folder. Special
    tokens that the folder does not name are BERT's.

    Raises:
      UserError: the folder has neither file, its tokenizer is of another class than BERT's, cannot
        be read, lacks a special token in its vocabulary, or makes of a pair anything else than
        [CLS] query [SEP] item [SEP].
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        raise UserError(f"{folder} has no tokenizer.json and no vocab.txt: copy one into it")
    try:
        options, model = _json(folder / _OPTIONS), _json(folder / "config.json")
        kind = options.get("tokenizer_class") or model.get("tokenizer_class")
        if kind not in (None, *_BERT, *_GENERIC):
            raise UserError(
                f"{folder}: tokenizer_class is {kind}, and only {_BERT[0]} can be read: give a "
                "checkpoint with such a tokenizer"
            )
        # as AutoTokenizer, for which the class of a folder with a BERT's config.json is BERT's
        generic = kind in _GENERIC or (kind is None and not model)
        loader: Any = (
            PreTrainedTokenizerFast
            if generic and (folder / _VOCABULARIES[0]).is_file()
            else BertTokenizer
        )
        # With the names of the inputs, because a checkpoint without them would be saved without
        # them, and whoever loads the trained model from its folder would give every token the first
        # segment.
        tokenizer: PreTrainedTokenizerFast = loader.from_pretrained(
            folder, local_files_only=True, model_input_names=INPUTS
        )
        known = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).keys()
        known |= _added(folder, options)
        if not tokenizer.model_max_length >= 1:
            raise ValueError(f"model_max_length is {tokenizer.model_max_length}")
    except UserError:
        raise
    except Exception as error:  # the tokenizers library raises Exception itself
        reason = " ".join(str(error).split())
        raise UserError(
            f"{folder}: the tokenizer cannot be read ({reason}): copy that of the checkpoint again"
        ) from None
    unnamed = {role: token for role, token in SPECIAL.items() if getattr(tokenizer, role) is None}
    for role in SPECIAL:
        token = unnamed.get(role) or getattr(tokenizer, role)
        if token not in known:  # added now, its id would have no row in the checkpoint
            raise UserError(
                f"{folder}: the tokenizer's vocabulary has no {token}: give a tokenizer with the "
                f"special tokens {', '.join(SPECIAL.values())}"
            )
    tokenizer.add_special_tokens(unnamed)
    _check_layout(folder, tokenizer)
    return tokenizer


def save(tokenizer: PreTrainedTokenizerFast, folder: Path, *, max_length: int) -> None:
    """Saves a tokenizer so that `truncation=True` alone cuts at `max_length` tokens.

    Its options say nothing of where it was read from, and name a class that transformers knows by
    any version.
    """
    tokenizer.model_max_length = max_length
    tokenizer.init_kwargs["truncation_side"] = tokenizer.truncation_side
    tokenizer.save_pretrained(folder)
    options = {name: one for name, one in _json(folder / _OPTIONS).items() if name not in _LOCAL}
    if options.get("tokenizer_class") in _GENERIC:
        options["tokenizer_class"] = _GENERIC[0]
    write_json(folder / _OPTIONS, options)


def train(
    texts: Iterable[str], *, vocabulary_size: int, lowercase: bool = True
) -> PreTrainedTokenizerFast:
    """Trains a WordPiece vocabulary (Schuster and Nakajima 2012) of at most that size.

    Letters keep their marks, by which words differ in many languages: año is not ano. The same
    texts in the same order give the same vocabulary. They are iterated over twice. Memory holds
    their different words; it holds the texts themselves only where they come as an iterator.

    Raises UserError where the machine has not the memory for a vocabulary of that size.
    """
    # the trainer takes its memory before it looks at a text
    memory.check_machine(_TRAINER_BYTES * vocabulary_size, f"a vocabulary of {vocabulary_size:,}")
    if iter(texts) is texts:
        texts = list(texts)
    learner = _word_piece({}, lowercase)
    # The trainer numbers the letters inside words in the order of a hash map, which differs from
    # process to process, and breaks ties between merges by those numbers. Letters that are special
    # tokens get their numbers in the order given.
    letters = sorted(_letters_inside_words(learner, texts))
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[*SPECIAL.values(), *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    ids = learner.get_vocab()
    tokenizer = _word_piece(ids, lowercase)  # here those letters are not special tokens
    tokenizer.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    return _wrap(tokenizer)


def encode_pairs(
    tokenizer: PreTrainedTokenizerFast,
    queries: Sequence[str],
    items: Sequence[str],
    *,
    max_length: int,
    apart: bool = False,
) -> EncodedPairs:
    """Encodes each pair as [CLS] query [SEP] item [SEP] in at most `max_length` tokens.

    apart: whether each text is to be read by itself, as [CLS] text [SEP]. Then each is cut at
    `max_length` by itself, and so is what sentence-transformers makes of it.

    A pair that is too long is cut as transformers does with `truncation=True`: the longer text
    loses tokens until both are of one length, then both do; a text of at most half the room is
    whole. It loses its last ones, or its first ones where the tokenizer's `truncation_side` is
    left.
    """
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    unique = {text: i for i, text in enumerate(dict.fromkeys((*queries, *items)))}
    encodings = backend.encode_batch_fast(list(unique), add_special_tokens=False)
    input_ids: list[np.ndarray] = []
    query_lengths: list[int] = []
    fits: list[bool] = []
    for query, item in zip(queries, items, strict=True):
        query_ids, item_ids = encodings[unique[query]].ids, encodings[unique[item]].ids
        fits.append(apart or len(query_ids) < max_length - 3)
        if fits[-1]:
            first, second = (
                (max_length - 2, max_length - 2)
                if apart
                else _kept(len(query_ids), len(item_ids), max_length - 3)
            )
            query_ids, item_ids = cut(tokenizer, query_ids, first), cut(tokenizer, item_ids, second)
        ids = [cls, *query_ids, sep, *item_ids, sep] if fits[-1] else []
        input_ids.append(np.asarray(ids, np.int32))
        query_lengths.append(len(query_ids) + 2)
    return EncodedPairs(input_ids, np.array(query_lengths, np.int32), np.array(fits, bool))


def cut(tokenizer: PreTrainedTokenizerFast, ids: list[int], length: int) -> list[int]:
    """At most `length` of a text's tokens, without those at the tokenizer's `truncation_side`."""
    left = tokenizer.truncation_side == "left"
    return ids[max(len(ids) - length, 0) :] if left else ids[:length]


def _kept(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each of two texts are kept, as by transformers' `longest_first`."""
    shorter = min(first, second, room // 2)
    longer = min(max(first, second), room - shorter)
    return (shorter, longer) if first <= second else (longer, shorter)


def places(tokens: np.ndarray, query_lengths: np.ndarray, *, apart: bool) -> np.ndarray:
    """How long a batch has to be for each of these pairs `[N]`.

    tokens: how many `input_ids` has. apart: as in `encode_pairs`; the longer text then counts.
    """
    return np.maximum(query_lengths, tokens - query_lengths + 1) if apart else tokens


def query_lengths(tokenizer: PreTrainedTokenizerFast, queries: Sequence[str]) -> np.ndarray:
    """The tokens of each query, [CLS] and [SEP] included, before anything is cut: int32 `[N]`."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    distinct = list(dict.fromkeys(queries))
    lengths: dict[str, int] = {}
    for start in range(0, len(distinct), ROWS_AT_ONCE):
        piece = distinct[start : start + ROWS_AT_ONCE]
        encodings = backend.encode_batch_fast(piece, add_special_tokens=False)
        lengths |= {text: len(one.ids) + 2 for text, one in zip(piece, encodings, strict=True)}
    return np.array([lengths[query] for query in queries], np.int32)


def encode_documents(
    tokenizer: PreTrainedTokenizerFast,
    titles: Sequence[str],
    texts: Sequence[str],
    *,
    max_length: int,
) -> list[list[tuple[np.ndarray, int]]]:
    """Encodes each text in pieces, [CLS] title [SEP] piece [SEP], of at most `max_length` tokens.

    The pieces of a text follow one another and leave nothing out. The title beside them is cut to
    half of `max_length`. A text without tokens gives one row, [CLS] title [SEP], with as much of
    the title as fits.

    Returns:
      The rows of each text: the ids, int32 `[T]`, and how many of them are segment 0.
    """
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    encodings = backend.encode_batch_fast([*titles, *texts], add_special_tokens=False)
    documents = []
    for title, text in zip(encodings[: len(titles)], encodings[len(titles) :], strict=True):
        longest = max_length // 2 - 2 if text.ids else max_length - 2
        first = [cls, *title.ids[:longest], sep]
        room = max(max_length - len(first) - 1, 1)  # 0 where there is no text to cut
        pieces = [[*text.ids[at : at + room], sep] for at in range(0, len(text.ids), room)]
        rows = [np.asarray([*first, *piece], np.int32) for piece in pieces or [[]]]
        documents.append([(row, len(first)) for row in rows])
    return documents


def _word_piece(vocabulary: dict[str, int], lowercase: bool) -> tokenizers.Tokenizer:
    model = tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=False
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    return tokenizer


def _letters_inside_words(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> set[str]:
    letters: set[str] = set()
    remaining = iter(texts)
    while piece := list(itertools.islice(remaining, CHUNK_ROWS)):
        for text in dict.fromkeys(piece):  # queries repeat
            normal = tokenizer.normalizer.normalize_str(text)
            for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
                letters.update(word[1:])
    return letters


def _json(path: Path) -> dict[str, Any]:
    """The object in a file, empty where there is no file."""
    fields = read_json(path) if path.is_file() else {}
    if not isinstance(fields, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return fields


def _added(folder: Path, options: Mapping[str, Any]) -> set[str]:
    """The tokens that a folder adds to its vocabulary."""
    stated = [*_json(folder / _VOCABULARIES[0]).get("added_tokens", [])]
    stated += options.get("added_tokens_decoder", {}).values()
    return {one["content"] for one in stated} | _json(folder / "added_tokens.json").keys()


def _check_layout(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raises UserError where transformers would lay out a pair otherwise than `encode_pairs`."""
    ours = encode_pairs(tokenizer, ["a"], ["b"], max_length=64)
    theirs = tokenizer("a", "b")
    segments = np.arange(len(ours.input_ids[0])) >= ours.query_lengths[0]
    if (
        theirs["input_ids"] != ours.input_ids[0].tolist()
        or theirs["token_type_ids"] != segments.astype(int).tolist()
    ):
        raise UserError(
            f"{folder}: the tokenizer does not make [CLS] query [SEP] item [SEP] of a pair, in two "
            "segments: give a checkpoint with BERT's tokenizer"
        )


def _wrap(tokenizer: tokenizers.Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=INPUTS, **SPECIAL)
