"""Texts as token ids: [CLS] query [SEP] item [SEP], of which only the item is truncated."""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from transformers import PreTrainedTokenizerFast

from sie_jax.errors import UserError
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


class EncodedPairs(NamedTuple):
    """Token ids of pairs: `input_ids[i]` int32 `[T_i]`, of which `query_lengths[i]` are segment 0.

    `fits[i]` is False where the query leaves no room within max_length for one token of the item;
    then the ids are empty.
    """

    input_ids: list[np.ndarray]
    query_lengths: np.ndarray
    fits: np.ndarray


# What a BERT takes. A tokenizer that is loaded without these names gives no segment ids.
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]


def load(folder: str | Path) -> PreTrainedTokenizerFast:
    """Loads the fast tokenizer of a Hugging Face folder (tokenizer.json, or a BERT vocab.txt).

    Special tokens that the folder does not name are BERT's. Raises UserError where the folder has
    neither file, where the tokenizer cannot be read, and where a special token is not in its
    vocabulary.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise UserError(f"{folder} has no tokenizer.json and no vocab.txt: copy one into it")
    try:
        tokenizer = _read(folder)
    except Exception as error:  # the tokenizers library raises Exception itself
        raise UserError(
            f"{folder}: the tokenizer cannot be read ({error}): copy that of the checkpoint again"
        ) from None
    unnamed = {role: token for role, token in SPECIAL.items() if getattr(tokenizer, role) is None}
    vocabulary = tokenizer.get_vocab()
    for token in unnamed.values():
        if token not in vocabulary:  # added now, its id would have no row in the checkpoint
            raise UserError(
                f"{folder}: the tokenizer's vocabulary has no {token}: give a tokenizer with the "
                f"special tokens {', '.join(SPECIAL.values())}"
            )
    tokenizer.add_special_tokens(unnamed)
    return tokenizer


def train(texts: Iterable[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Trains an uncased WordPiece vocabulary (Schuster and Nakajima 2012) of at most that size.

    The same texts in the same order give the same vocabulary. They are iterated over twice. Memory
    holds their different words; it holds the texts themselves only where they come as an iterator.
    """
    if iter(texts) is texts:
        texts = list(texts)
    learner = _word_piece({})
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
    tokenizer = _word_piece(ids)  # here those letters are not special tokens
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
) -> EncodedPairs:
    """Encodes each pair as [CLS] query [SEP] item [SEP] in at most `max_length` tokens.

    The query is always kept whole. The item loses its last tokens where the pair is too long.
    """
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    unique = {text: i for i, text in enumerate(dict.fromkeys((*queries, *items)))}
    encodings = backend.encode_batch_fast(list(unique), add_special_tokens=False)
    input_ids: list[np.ndarray] = []
    for query, item in zip(queries, items, strict=True):
        query_ids, item_ids = encodings[unique[query]].ids, encodings[unique[item]].ids
        room = max_length - len(query_ids) - 3
        ids = [cls, *query_ids, sep, *item_ids[: max(room, 0)], sep] if room >= 1 else []
        input_ids.append(np.asarray(ids, np.int32))
    query_lengths = np.array([len(encodings[unique[query]].ids) + 2 for query in queries], np.int32)
    return EncodedPairs(input_ids, query_lengths, np.array([len(ids) > 0 for ids in input_ids]))


def query_lengths(tokenizer: PreTrainedTokenizerFast, queries: Sequence[str]) -> np.ndarray:
    """The `query_lengths` that `encode_pairs` gives these queries, int32 `[N]`."""
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


def _word_piece(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    model = tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
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


def _read(folder: Path) -> PreTrainedTokenizerFast:
    if (folder / "tokenizer.json").is_file():
        # With the names, because a checkpoint without them would be saved without them, and whoever
        # loads the trained model from its folder would give every token the first segment.
        return PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True, model_input_names=INPUTS
        )
    options = folder / "tokenizer_config.json"
    settings = json.loads(options.read_text(encoding="utf-8")) if options.is_file() else {}
    lowercase = bool(settings.get("do_lower_case", True))
    tokenizer = tokenizers.BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lowercase)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, model_input_names=INPUTS
    )  # `load` names its special tokens once it knows that the vocabulary has them


def _wrap(tokenizer: tokenizers.Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=INPUTS, **SPECIAL)
