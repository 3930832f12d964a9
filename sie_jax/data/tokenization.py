"""Texts to token ids, once: [CLS] query [SEP] item [SEP], truncating only the item."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from transformers import PreTrainedTokenizerFast

from sie_jax.errors import UserError

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


class EncodedPairs(NamedTuple):
    """Token ids of pairs: `input_ids[i]` int32 `[T_i]`, of which `query_lengths[i]` are segment 0.

    `fits[i]` is False where the query alone leaves no room for one token of the item within
    max_length; such a row's ids are empty.
    """

    input_ids: list[np.ndarray]
    query_lengths: np.ndarray
    fits: np.ndarray


# what a BERT takes, so that a loaded tokenizer gives the segment ids too
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]


def load(folder: str | Path) -> PreTrainedTokenizerFast:
    """Loads the fast tokenizer of a Hugging Face folder (tokenizer.json, or a BERT vocab.txt).

    Raises UserError where the folder has neither.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if not (folder / "vocab.txt").is_file():
        raise UserError(f"{folder} has no tokenizer.json and no vocab.txt: copy one into it")
    options = folder / "tokenizer_config.json"
    settings = json.loads(options.read_text(encoding="utf-8")) if options.is_file() else {}
    lowercase = bool(settings.get("do_lower_case", True))
    tokenizer = tokenizers.BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lowercase)
    return _wrap(tokenizer._tokenizer)


def train(texts: Iterable[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Trains an uncased WordPiece vocabulary (Schuster and Nakajima 2012) of at most that size.

    The same texts in the same order give the same vocabulary.
    """
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", tokenizer.token_to_id("[SEP]")), ("[CLS]", tokenizer.token_to_id("[CLS]"))
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

    The query is kept whole, always; the item loses its last tokens where the pair is too long.
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


def _wrap(tokenizer: tokenizers.Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=INPUTS, **SPECIAL)
