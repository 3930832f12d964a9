import numpy as np

from sie_jax.data.histories import texts

TEXTS = [
    "red garden chair",
    "blue garden chair",
    "silver ring",
    "gold ring",
    "red garden chair",
    "",
]


def test_texts_that_share_words_are_near() -> None:
    found = texts.by_words(TEXTS, 8)
    assert found.shape == (6, 8)
    unit = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    cosines = unit @ unit.T
    assert cosines[0, 1] > 0.5 > abs(cosines[0, 2])
    assert cosines[2, 3] > 0.5
    assert np.allclose(found[0], found[4], atol=1e-5)
    assert not found[5].any()
    assert np.isclose(np.mean((found**2).sum(1)), 8)
    assert np.array_equal(found, texts.by_words(TEXTS, 8))


def test_texts_without_a_common_word_say_nothing() -> None:
    assert not texts.by_words(["one", "two", "three"], 4).any()
