"""What pretraining hides: whole words of a text are masked, and items of some pairs exchanged.

Both are pure functions of a key, on the device, so that every step hides something else.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray
from transformers import PreTrainedTokenizerFast

# Devlin et al. 2019, section 3.1
WORD_RATE, MASK_SHARE, RANDOM_SHARE = 0.15, 0.8, 0.1

Batch = dict[str, jax.Array]


class Vocabulary(NamedTuple):
    """What masking needs to know of a tokenizer with V ids.

    continues: bool `[V]`, the ids that continue a word. special: bool `[V]`, those of no word.
    mask, separator, padding: the ids of three special tokens.
    """

    continues: np.ndarray
    special: np.ndarray
    mask: int
    separator: int
    padding: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "Vocabulary":
        """That of a WordPiece tokenizer, whose tokens begin with ## if they continue a word."""
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        return cls(
            # some numbers have no token, and give None
            np.array([(token or "").startswith("##") for token in tokens]),
            np.isin(np.arange(len(tokens)), tokenizer.all_special_ids),
            tokenizer.mask_token_id,
            tokenizer.sep_token_id,
            tokenizer.pad_token_id,
        )


class Masked(NamedTuple):
    """A text with words hidden, and what a model is to predict.

    input_ids: `[T]`. positions: `[P]`, the places to predict. targets: `[P]`, the ids that stood
    there. chosen: `[P]`, which of the places count.
    """

    input_ids: Int[Array, "T"]
    positions: Int[Array, "P"]
    targets: Int[Array, "P"]
    chosen: Bool[Array, "P"]


def places(length: int) -> int:
    """P = ⌈T/4⌉: at most so many tokens of a text of T = `length` tokens are predicted."""
    return -(-length // 4)


def mask_words(
    key: PRNGKeyArray,
    input_ids: Int[Array, "T"],
    attention_mask: Bool[Array, "T"],
    vocabulary: Vocabulary,
) -> Masked:
    """Chooses whole words, each with probability 0.15, and hides their tokens.

    Of the tokens of chosen words 80 % become [MASK], 10 % a random id and 10 % stay (Devlin et al.
    2019, section 3.1, with the whole-word masking of their later release). Special and padding
    tokens are never chosen. At most P = ⌈T/4⌉ tokens are: the chosen words are taken in random
    order, and those beyond P tokens stay as they are. Where `chosen` is False, a place holds
    nothing to predict.
    """
    length = input_ids.shape[0]
    most = places(length)
    key_words, key_kind, key_random = jax.random.split(key, 3)
    candidate = attention_mask & ~jnp.asarray(vocabulary.special)[input_ids]
    # a word that was cut off at a special token leaves a rest, which counts as a word of its own
    goes_on = jnp.asarray(vocabulary.continues)[input_ids] & candidate
    goes_on &= jnp.roll(candidate, 1).at[0].set(False)
    word = jnp.cumsum(~goes_on) - 1  # [T], from 0
    drawn = jax.random.uniform(key_words, (length,))
    # ranks, because two words may draw the same number
    rank = jnp.argsort(jnp.argsort(drawn))[word]
    order = jnp.argsort(jnp.where(candidate, rank, length), stable=True)
    place = jnp.argsort(order)  # of each token in that order, in which words stay together
    last = jnp.zeros(length, jnp.int32).at[word].max(place)[word]
    chosen = candidate & (drawn[word] < WORD_RATE) & (last < most)

    kind = jax.random.uniform(key_kind, (length,))
    # the type of the ids, since a wider one would make the step compile twice
    random = jax.random.randint(
        key_random, (length,), 0, vocabulary.special.size, dtype=input_ids.dtype
    )
    hidden = jnp.where(
        kind < MASK_SHARE,
        vocabulary.mask,
        jnp.where(kind < MASK_SHARE + RANDOM_SHARE, random, input_ids),
    )
    positions = order[:most]  # words of low rank come first, so every chosen token is among them
    return Masked(
        jnp.where(chosen, hidden, input_ids), positions, input_ids[positions], chosen[positions]
    )


def exchange_items(
    key: PRNGKeyArray, batch: Batch, vocabulary: Vocabulary
) -> tuple[Batch, Bool[Array, "B"], Bool[Array, "B"]]:
    """Gives half of a batch's pairs the second text of another pair, and says which.

    `batch` holds input_ids, token_type_ids, attention_mask `[B, T]` and label `[B]`: the group of
    the pair's first text, −1 if the row is not a pair. Each pair's partner is the pair that comes
    after it by a random number of places, the same number for all. A pair is left alone if the
    batch has the partner's second text beside a first text of the pair's own group: no pair that
    the batch shows to be true is presented as a false one. Other batches are not known here. A text
    that no longer fits is cut, and still ends in [SEP].

    Returns:
      The batch; the rows that were exchanged; and the rows that could have been, each of which was
      exchanged with probability 1/2. Only these are asked about: a row without a partner is always
      true.
    """
    ids, group = batch["input_ids"], batch["label"]
    rows, length = ids.shape
    is_pair = (group >= 0) & batch["mask"]
    key_half, key_shift = jax.random.split(key)
    count = jnp.sum(is_pair)
    shift = jax.random.randint(key_shift, (), 1, jnp.maximum(count, 2))
    pairs_first = jnp.argsort(~is_pair, stable=True)
    number = jnp.cumsum(is_pair) - 1
    partner = pairs_first[(number + shift) % jnp.maximum(count, 1)]

    real, second = batch["attention_mask"], batch["token_type_ids"] == 1
    column = jnp.arange(length)
    first_length = jnp.sum(real & ~second, axis=1, keepdims=True)
    second_length = jnp.sum(real & second, axis=1, keepdims=True)
    text = _fingerprint(ids, real & second, column - first_length)
    # [B, B]: whether the row's group has the other row's second text somewhere in the batch
    same_group = (group[:, None] == group) & is_pair
    has = same_group.astype(jnp.float32) @ (text[:, None] == text).astype(jnp.float32) > 0
    possible = is_pair & ~jnp.take_along_axis(has, partner[:, None], axis=1)[:, 0]
    exchanged = jax.random.bernoulli(key_half, 0.5, (rows,)) & possible

    source = jnp.clip(column - first_length + first_length[partner], 0, length - 1)
    joined = jnp.where(
        column < first_length, ids, jnp.take_along_axis(ids[partner], source, axis=1)
    )
    end = jnp.minimum(first_length + second_length[partner], length)
    joined = jnp.where(column == end - 1, vocabulary.separator, joined)
    joined = jnp.where(column < end, joined, vocabulary.padding)
    types = (column >= first_length) & (column < end)
    these = exchanged[:, None]
    changed = {
        "input_ids": jnp.where(these, joined, ids),
        "token_type_ids": jnp.where(these, types, second).astype(batch["token_type_ids"].dtype),
        "attention_mask": jnp.where(these, column < end, real),
    }
    return {**batch, **changed}, exchanged, possible


def _fingerprint(
    ids: Int[Array, "B T"], where: Bool[Array, "B T"], place: Int[Array, "B T"]
) -> Int[Array, "B"]:
    """A number that is the same for equal texts, and differs for others but for a rare chance."""
    odd = 2 * ids.astype(jnp.uint32) + 1
    mixed = (odd * jnp.uint32(2654435761)) ^ (place.astype(jnp.uint32) * jnp.uint32(2246822519))
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(3266489917)
    return jnp.sum(jnp.where(where, mixed ^ (mixed >> 13), 0), axis=1, dtype=jnp.uint32)
