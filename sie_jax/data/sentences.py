"""Texts as unit vectors: a checkpoint's encoder with the pooling that its folder states."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32
from transformers import PreTrainedTokenizerFast

from sie_jax.data import tokenization
from sie_jax.errors import UserError
from sie_jax.files import write_json
from sie_jax.models import FlaxBert

POOLING = Path("1_Pooling") / "config.json"
LENGTHS = Path("sentence_bert_config.json")
SHORTEST = 8  # the fewest tokens that a batch is padded to
LONGEST = 128  # the most tokens of a text where the folder does not say
_ROWS = 65_536  # pairs whose vectors are gathered at a time

_MEAN, _CLS = "mean", "cls"
_POOLINGS = ("mean_tokens", "cls_token")


class SentenceEncoder(NamedTuple):
    """A checkpoint as an encoder of single texts.

    Attributes:
      graphdef, params: the encoder.
      tokenizer: its tokenizer.
      pooling: "mean" of the last hidden states of all tokens, [CLS] and [SEP] included, or "cls",
        the first token's.
      max_length: the most tokens of a text, special tokens included; further ones are cut off.
      notes: one sentence for each thing that the folder does not say and that was assumed.
    """

    graphdef: nnx.GraphDef
    params: Any
    tokenizer: PreTrainedTokenizerFast
    pooling: str
    max_length: int
    notes: tuple[str, ...]


def load(folder: str | Path) -> SentenceEncoder:
    """Reads a folder of sentence-transformers, or of a plain BERT.

    A folder without `1_Pooling/config.json` is taken to pool by the mean, and `notes` says so.

    Raises:
      UserError: the folder holds no BERT or no tokenizer, or it asks for another pooling.
    """
    folder = Path(folder)
    notes = []
    if (folder / POOLING).is_file():
        pooling = _pooling(folder / POOLING)
    else:
        pooling = _MEAN
        notes.append(f"{folder} has no {POOLING}: the mean over tokens was assumed for its cosine.")
    model = FlaxBert.from_pretrained(folder)
    longest = model.config.max_position_embeddings
    stated = _json(folder / LENGTHS).get("max_seq_length") if (folder / LENGTHS).is_file() else None
    graphdef, params = nnx.split(model)
    return SentenceEncoder(
        graphdef=graphdef,
        params=params,
        tokenizer=tokenization.load(folder),
        pooling=pooling,
        max_length=min(stated or LONGEST, longest),
        notes=tuple(notes),
    )


def save(encoder: SentenceEncoder, folder: Path) -> None:
    """Writes a folder that `load` and sentence-transformers read, with the same vectors."""
    model: FlaxBert = nnx.merge(encoder.graphdef, encoder.params)
    model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    modes = {f"pooling_mode_{name}": encoder.pooling == name.split("_")[0] for name in _POOLINGS}
    write_json(folder / POOLING, {"word_embedding_dimension": model.config.hidden_size, **modes})
    write_json(folder / LENGTHS, {"max_seq_length": encoder.max_length, "do_lower_case": False})
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {
                "idx": 1,
                "name": "1",
                "path": str(POOLING.parent),
                "type": "sentence_transformers.models.Pooling",
            },
        ],
    )


def encode(
    encoder: SentenceEncoder, texts: Sequence[str], *, batch_size: int = 64
) -> Float32[np.ndarray, "N hidden"]:
    """The vector of each text, of norm 1; equal texts get the same vector.

    A text is padded to the power of two above its own length, so that any table compiles few
    programs, and a text goes through the same program whatever texts come with it: they move its
    vector by rounding at most. Another `batch_size` is another program.

    Raises ValueError where there are no texts.
    """
    if not len(texts):
        raise ValueError("encode needs one text or more")
    distinct = list(dict.fromkeys(texts))
    ids = _token_ids(encoder, distinct)
    padded = np.array([_padded(len(row), encoder.max_length) for row in ids])
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
            pooled = _pooled(encoder.graphdef, encoder.params, batch, mask, encoder.pooling)
            places.append(chosen)
            parts.append(np.asarray(pooled)[: len(chosen)])
    at = np.empty(len(distinct), np.int64)
    at[np.concatenate(places)] = np.arange(len(distinct))
    place_of = {text: place for place, text in enumerate(distinct)}
    return np.concatenate(parts)[at[[place_of[text] for text in texts]]]


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


@functools.partial(jax.jit, static_argnums=(0, 4))
def _pooled(
    graphdef: nnx.GraphDef, params: Any, ids: jax.Array, mask: jax.Array, pooling: str
) -> jax.Array:
    hidden = nnx.merge(graphdef, params)(ids, attention_mask=mask).astype(jnp.float32)
    if pooling == _CLS:
        pooled = hidden[:, 0]
    else:
        # the sum has the direction of the mean, and only the direction is left
        pooled = jnp.einsum("bth,bt->bh", hidden, mask.astype(jnp.float32))
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)


def _token_ids(encoder: SentenceEncoder, texts: Sequence[str]) -> list[list[int]]:
    tokenizer = encoder.tokenizer
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    rows: list[list[int]] = []
    for start in range(0, len(texts), tokenization.ROWS_AT_ONCE):
        piece = list(texts[start : start + tokenization.ROWS_AT_ONCE])
        for encoding in backend.encode_batch_fast(piece, add_special_tokens=False):
            inner = encoding.ids[: encoder.max_length - 2]
            rows.append([tokenizer.cls_token_id, *inner, tokenizer.sep_token_id])
    return rows


def _padded(length: int, longest: int) -> int:
    padded = SHORTEST
    while padded < length:
        padded *= 2
    return min(padded, longest)


def _pooling(path: Path) -> str:
    """The one pooling that the file asks for."""
    asked = sorted(
        name.removeprefix("pooling_mode_")
        for name, value in _json(path).items()
        if name.startswith("pooling_mode_") and value
    )
    if asked not in [[name] for name in _POOLINGS]:
        raise UserError(
            f"{path} asks for pooling by {', '.join(asked) or 'nothing'}: give a checkpoint that "
            "pools by mean_tokens or by cls_token"
        )
    return asked[0].split("_")[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{path} is not a JSON object: copy that of the checkpoint again")
    return fields
