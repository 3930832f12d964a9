"""Whole words hidden, and items exchanged: against what the docstrings promise, token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_jax.data import tokenization
from sie_jax.tasks import masking

# [PAD] [UNK] [CLS] [SEP] [MASK], ten beginnings of words, five that go on
SIZE, MASK, SEP, PAD = 20, 4, 3, 0
VOCABULARY = masking.Vocabulary(
    continues=np.arange(SIZE) >= 15,
    special=np.arange(SIZE) < 5,
    mask=MASK,
    separator=SEP,
    padding=PAD,
)
mask_many = jax.jit(
    jax.vmap(lambda key, ids, mask: masking.mask_words(key, ids, mask, VOCABULARY), (0, None, None))
)


def words_of(ids: np.ndarray, real: np.ndarray) -> list[list[int]]:
    """The places of each word's tokens."""
    words: list[list[int]] = []
    for place, (token, is_real) in enumerate(zip(ids.tolist(), real.tolist(), strict=True)):
        if token < 5 or not is_real:
            words.append([])
        elif token >= 15 and words and words[-1]:
            words[-1].append(place)
        else:
            words.append([place])
    return [word for word in words if word]


def test_what_goes_on_a_word_that_was_cut_off_can_be_hidden():
    """A piece of a text may begin inside a word; [PAD]s of other rows must not make it longer."""
    ids = np.array([2, 5, SEP, 15, 16, 6, 7, SEP, *[PAD] * 8], np.int32)
    assert words_of(ids, ids != PAD) == [[1], [3, 4], [5], [6]]
    count = 4000
    masked = mask_many(jax.random.split(jax.random.key(2), count), ids, ids != PAD)
    hidden = np.zeros((count, 16), bool)
    np.put_along_axis(hidden, np.asarray(masked.positions), np.asarray(masked.chosen), axis=1)
    # five standard deviations, and what four tokens at most take away
    assert hidden[:, [3, 4]].mean(0) == pytest.approx(0.15, abs=5 * np.sqrt(0.13 / count) + 0.01)


exchange = jax.jit(lambda key, batch: masking.exchange_items(key, batch, VOCABULARY))
texts = st.lists(st.integers(5, SIZE - 1), min_size=1, max_size=13)


@settings(deadline=None, max_examples=20)
@given(first=texts, second=texts, seed=st.integers(0, 1000))
def test_words_are_hidden_whole_and_never_special_tokens(first, second, seed):
    row = [2, *first, SEP, *second, SEP]
    ids = np.array(row + [PAD] * (30 - len(row)), np.int32)
    real = np.arange(30) < len(row)
    masked = mask_many(jax.random.split(jax.random.key(seed), 50), ids, real)
    for one in range(50):
        positions, chosen = masked.positions[one], masked.chosen[one]
        hidden = set(np.asarray(positions)[np.asarray(chosen)].tolist())
        assert len(hidden) == chosen.sum() <= len(positions) == 8  # ⌈30 / 4⌉
        for word in words_of(ids, real):
            assert hidden.issuperset(word) or hidden.isdisjoint(word)
        assert all(real[place] and ids[place] >= 5 for place in hidden)
        np.testing.assert_array_equal(masked.targets[one], ids[positions])
        others = np.setdiff1d(np.arange(30), list(hidden))
        np.testing.assert_array_equal(masked.input_ids[one][others], ids[others])


def test_rates_of_words_and_of_what_hides_them():
    ids = np.array([2, *np.arange(5, 15), 15, 16, SEP], np.int32)  # ten words, one of three tokens
    count = 20_000
    masked = mask_many(jax.random.split(jax.random.key(0), count), ids, np.ones(14, bool))
    hidden = np.zeros((count, 14), bool)
    np.put_along_axis(hidden, np.asarray(masked.positions), np.asarray(masked.chosen), axis=1)
    # at most four tokens: little is lost of words of one token, and no more of one than of another
    share = hidden[:, 1:10].mean(0)
    deviation = np.sqrt(0.15 * 0.85 / count)
    assert share.max() - share.min() < 6 * deviation
    assert 0.15 - 0.01 < share.mean() <= 0.15 + 4 * deviation
    tokens = np.asarray(masked.input_ids)[hidden]
    was = np.broadcast_to(ids, hidden.shape)[hidden]
    # a random id is [MASK], or the one that was there, once in twenty times
    assert (tokens == MASK).mean() == pytest.approx(0.8 + 0.1 / SIZE, abs=0.01)
    assert (tokens == was).mean() == pytest.approx(0.1 + 0.1 / SIZE, abs=0.01)


def test_a_word_longer_than_a_quarter_stays():
    ids = np.array([2, 5, *[15] * 8, SEP, 6, 7, SEP], np.int32)
    masked = mask_many(jax.random.split(jax.random.key(1), 500), ids, np.ones(14, bool))
    hidden = np.asarray(masked.positions)[np.asarray(masked.chosen)]
    assert set(hidden.tolist()) == {11, 12}


def test_a_text_without_words_has_nothing_to_predict():
    ids = np.array([2, SEP, PAD, PAD], np.int32)
    masked = mask_many(jax.random.split(jax.random.key(1), 9), ids, np.arange(4) < 2)
    assert not masked.chosen.any()


def test_the_vocabulary_of_a_tokenizer():
    tokenizer = tokenization.train(["red shoes", "shoe laces", "reds"] * 5, vocabulary_size=30)
    vocabulary = masking.Vocabulary.of(tokenizer)
    assert len(vocabulary.continues) == len(vocabulary.special) == len(tokenizer)
    for token, number in tokenizer.get_vocab().items():
        assert vocabulary.continues[number] == token.startswith("##")
        assert vocabulary.special[number] == (token[0] == "[")
    assert tokenizer.convert_ids_to_tokens([*vocabulary[2:]]) == ["[MASK]", "[SEP]", "[PAD]"]


def batch_of(rows: list[tuple[list[int], list[int], int]], length: int) -> dict[str, np.ndarray]:
    """Rows of (first with its specials, second with its [SEP], group); None is padding."""
    batch = {
        "input_ids": np.full((len(rows), length), PAD, np.int32),
        "token_type_ids": np.zeros((len(rows), length), np.int32),
        "attention_mask": np.zeros((len(rows), length), bool),
        "label": np.zeros(len(rows), np.int32),
        "mask": np.array([bool(first) for first, _, _ in rows]),
    }
    for at, (first, second, group) in enumerate(rows):
        size = len(first) + len(second)
        batch["input_ids"][at, :size] = first + second
        batch["token_type_ids"][at, len(first) : size] = 1
        batch["attention_mask"][at, :size] = True
        batch["label"][at] = group
    return batch


ROWS = [
    ([2, 5, SEP], [6, 7, 9, 10, SEP], 0),
    ([2, 8, 9, SEP], [10, SEP], 1),
    ([2, 11, SEP], [12, SEP], -1),  # no pair
    ([2, 13, 14, 5, SEP], [6, 8, SEP], 2),
    ([2, 7, SEP], [11, SEP], 0),  # of the first one's query
    ([], [], 0),  # a padding row
]


def second_of(ids: np.ndarray, types: np.ndarray, real: np.ndarray) -> tuple[int, ...]:
    return tuple(ids[real & (types == 1)].tolist())


def test_an_exchanged_row_has_the_item_of_another_query():
    length, counts, seen = 8, np.zeros(len(ROWS)), set()
    batch = batch_of(ROWS, length)
    draws = 400
    for seed in range(draws):
        after, exchanged, possible = exchange(jax.random.key(seed), batch)
        assert not np.asarray(exchanged & ~possible).any()
        counts += np.asarray(exchanged)
        for at, (first, second, group) in enumerate(ROWS):
            ids = np.asarray(after["input_ids"][at])[np.asarray(after["attention_mask"][at])]
            if not exchanged[at]:
                assert ids.tolist() == first + second
                continue
            partners = [
                other
                for other, (_, _, of_other) in enumerate(ROWS)
                if of_other not in (group, -1) and ROWS[other][0]
            ]
            rows = {tuple((first + ROWS[other][1])[:length]) for other in partners}
            assert tuple(ids.tolist()) in {(*row[:-1], SEP) for row in rows}
            seen.add((at, tuple(ids.tolist())))
            types = np.asarray(after["token_type_ids"][at])
            assert types.tolist() == [int(len(first) <= i < len(ids)) for i in range(length)]
    assert counts[2] == counts[5] == 0
    assert len(seen) > 6  # several partners each
    # half of the draws, less those whose partner is of the same query (one in three for two rows)
    expected = draws * np.array([1 / 3, 1 / 2, 0, 1 / 2, 1 / 3, 0])
    assert (np.abs(counts - expected) < 5 * np.sqrt(draws / 4)).all()


def test_rows_that_could_be_exchanged_are_so_half_of_the_time():
    batch = batch_of(ROWS, 8)
    drawn = [exchange(jax.random.key(seed), batch)[1:] for seed in range(400)]
    exchanged, possible = (np.stack(one) for one in zip(*drawn, strict=True))
    count = possible.sum()
    assert exchanged.sum() / count == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / count))


SAME_ITEM = [([2, 5, SEP], [9, SEP], 0), ([2, 6, SEP], [9, SEP], 1)]
JUDGED_ELSEWHERE = [
    ([2, 5, SEP], [9, SEP], 0),
    ([2, 6, SEP], [10, 11, SEP], 1),
    ([2, 5, SEP], [10, 11, SEP], 0),
]


def test_no_true_pair_of_the_batch_passes_for_a_false_one():
    true = {(0, (9, SEP)), (0, (10, 11, SEP)), (1, (9, SEP)), (1, (10, 11, SEP))}
    for rows in (SAME_ITEM, JUDGED_ELSEWHERE):
        batch, exchanges = batch_of(rows, 8), 0
        mine = {(group, tuple(second)) for _, second, group in rows}
        for seed in range(60):
            after, exchanged, _ = exchange(jax.random.key(seed), batch)
            for at in np.flatnonzero(exchanged):
                parts = (after[name][at] for name in ("input_ids", "token_type_ids"))
                second = second_of(*map(np.asarray, parts), np.asarray(after["attention_mask"][at]))
                assert (rows[at][2], second) in true - mine
                exchanges += 1
        assert (exchanges > 0) == (rows is JUDGED_ELSEWHERE)  # there the second row can be


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[2:3], [ROWS[0], ROWS[4]]])
def test_without_another_query_nothing_is_exchanged_and_nothing_asked(rows):
    batch = batch_of(rows, 8)
    for seed in range(20):
        after, exchanged, possible = exchange(jax.random.key(seed), batch)
        assert not exchanged.any()
        assert not possible.any()
        np.testing.assert_array_equal(after["input_ids"], batch["input_ids"])
    assert after["input_ids"].dtype == jnp.int32
