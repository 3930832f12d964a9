"""Texts as unit vectors: a checkpoint's towers, with the tokenizer of its folder."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float32
from transformers import PreTrainedTokenizerFast

from sie_jax.data import tokenization
from sie_jax.data.features import COSINE, COSINE_TEXT
from sie_jax.data.translation import item_texts
from sie_jax.models import Towers

SHORTEST = 8  # the fewest tokens that a batch is padded to
# Descriptions begin with what an item is: reading up to 256 took six times as long on the ESCI
# sample, and ranked no better there and on Icecat.
ITEM_TOKENS = 64
_ROWS = 65_536  # pairs whose vectors are gathered at a time


class SentenceEncoder(NamedTuple):
    """A checkpoint as an encoder of single texts.

    Attributes:
      graphdef, params: of its `Towers`.
      tokenizer: its tokenizer.
      notes: one sentence for each thing that the folder does not say and that was assumed.
    """

    graphdef: nnx.GraphDef
    params: Any
    tokenizer: PreTrainedTokenizerFast
    notes: tuple[str, ...]

    @property
    def towers(self) -> Towers:
        """The model."""
        made: Towers = nnx.merge(self.graphdef, self.params)
        return made

    @property
    def max_length(self) -> int:
        """The most tokens of a text, special tokens included; further ones are cut off."""
        return self.towers.max_length


def load(folder: str | Path) -> SentenceEncoder:
    """Reads a folder of sentence-transformers, or of a plain BERT (`Towers.from_pretrained`).

    Raises:
      UserError: the folder holds no BERT or no tokenizer, or it asks for another pooling.
    """
    towers, notes = Towers.from_pretrained(folder)
    return SentenceEncoder(*nnx.split(towers), tokenization.load(folder), notes)


def save(encoder: SentenceEncoder, folder: Path) -> None:
    """Writes a folder that `load` and sentence-transformers read, with the same vectors."""
    encoder.towers.save_pretrained(folder)
    tokenization.save(encoder.tokenizer, folder, max_length=encoder.max_length)


def encode(
    encoder: SentenceEncoder,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    max_length: int | None = None,
) -> Float32[np.ndarray, "N hidden"]:
    """The vector of each text, of norm 1; equal texts get the same vector.

    max_length: the most tokens of a text, those of the encoder where None or more.

    A text is padded to the power of two above its own length, so that any table compiles few
    programs, and a text goes through the same program whatever texts come with it: they move its
    vector by rounding at most. Another `batch_size` is another program.

    Raises ValueError where there are no texts.
    """
    if not len(texts):
        raise ValueError("encode needs one text or more")
    distinct = list(dict.fromkeys(texts))
    longest = min(max_length or encoder.max_length, encoder.max_length)
    ids = _token_ids(encoder.tokenizer, distinct, longest)
    padded = np.array([_padded(len(row), longest) for row in ids])
    places, parts = [], []
    for length in np.unique(padded):
        of_length = np.flatnonzero(padded == length)
        for start in range(0, len(of_length), batch_size):
            chosen = of_length[start : start + batch_size]
            batch = np.zeros((batch_size, length), np.int32)
            mask = np.zeros((batch_size, length), bool)
            for row, place in enumerate(chosen):
                batch[row, : len(ids[place])] = ids[place]
                mask[row, : len(ids[place])] = True
            vectors = _vectors(encoder.graphdef, encoder.params, batch, mask)
            places.append(chosen)
            parts.append(np.asarray(vectors)[: len(chosen)])
    at = np.empty(len(distinct), np.int64)
    at[np.concatenate(places)] = np.arange(len(distinct))
    place_of = {text: place for place, text in enumerate(distinct)}
    return np.concatenate(parts)[at[[place_of[text] for text in texts]]]


def features(
    encoder: SentenceEncoder,
    queries: Sequence[str],
    titles: Sequence[str],
    texts: Sequence[str | None] | None,
) -> dict[str, Float32[np.ndarray, "N"]]:
    """The cosines of each pair that are features: COSINE, and COSINE_TEXT where texts are given.

    The second is that of query and title with further text, of which it reads ITEM_TOKENS tokens.
    """
    found = {COSINE: cosine(encoder, queries, titles)}
    if texts is not None:
        items = item_texts(titles, texts)
        found[COSINE_TEXT] = cosine(encoder, queries, items, max_length=ITEM_TOKENS)
    return found


def cosine(
    encoder: SentenceEncoder, queries: Sequence[str], titles: Sequence[str], **options: int
) -> Float32[np.ndarray, "N"]:
    """The cosine of query and title of each pair, in [-1, 1]; `options` are those of `encode`."""
    if not len(queries):
        return np.empty(0, np.float32)
    distinct = list(dict.fromkeys((*queries, *titles)))
    place_of = {text: place for place, text in enumerate(distinct)}
    vectors = encode(encoder, distinct, **options)
    left, right = ([place_of[text] for text in texts] for texts in (queries, titles))
    parts = [
        np.einsum("nh,nh->n", vectors[left[at : at + _ROWS]], vectors[right[at : at + _ROWS]])
        for at in range(0, len(left), _ROWS)
    ]
    return np.clip(np.concatenate(parts), -1, 1)


@functools.partial(jax.jit, static_argnums=0)
def _vectors(graphdef: nnx.GraphDef, params: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
    made: jax.Array = nnx.merge(graphdef, params)(ids, mask)
    return made


def _token_ids(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], longest: int
) -> list[list[int]]:
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    rows: list[list[int]] = []
    for start in range(0, len(texts), tokenization.ROWS_AT_ONCE):
        piece = list(texts[start : start + tokenization.ROWS_AT_ONCE])
        for encoding in backend.encode_batch_fast(piece, add_special_tokens=False):
            inner = tokenization.cut(tokenizer, encoding.ids, longest - 2)
            rows.append([tokenizer.cls_token_id, *inner, tokenizer.sep_token_id])
    return rows


def _padded(length: int, longest: int) -> int:
    padded = SHORTEST
    while padded < length:
        padded *= 2
    return min(padded, longest)
