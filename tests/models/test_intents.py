from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from sie_jax.errors import UserError
from sie_jax.models import intents

TEXTS = [
    "cancel my order",
    "please cancel order 123",
    "where is my parcel?",
    "track the parcel of mine",
    "I want a refund",
    "Refund me, a bit",
]
LABELS = np.array([0, 0, 1, 1, 2, 2])
NAMES = ("cancel", "track", "refund")
VECTORS = np.random.default_rng(0).normal(size=(6, 3))


def test_pieces_are_those_of_scikit_learn() -> None:
    reference = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    expected = reference.fit_transform(TEXTS[:4]).toarray()
    found = intents.Pieces.of(TEXTS[:4])
    assert found.pieces == tuple(reference.get_feature_names_out())
    assert np.allclose(found.matrix(TEXTS[:4]).toarray(), expected)
    assert np.allclose(found.matrix(TEXTS).toarray(), reference.transform(TEXTS).toarray())
    assert found.matrix(["", "qq"]).nnz == 0


@pytest.mark.parametrize("words", [True, False])
def test_the_fit_is_that_of_scikit_learn(words: bool) -> None:
    model = intents.fit(TEXTS, LABELS, NAMES, ridge=1e-2, words=words, vectors=VECTORS)
    data = VECTORS
    if words:
        data = np.concatenate([intents.Pieces.of(TEXTS).matrix(TEXTS).toarray(), VECTORS], 1)
    reference = LogisticRegression(C=1 / (6 * 1e-2), tol=1e-8, max_iter=1000).fit(data, LABELS)
    found = model.probabilities(TEXTS, VECTORS)
    # both end near the one minimum: the largest entry of the gradient is 1e-5
    assert np.allclose(found, reference.predict_proba(data), atol=2e-3)


def test_the_temperature_is_that_of_least_cross_entropy() -> None:
    model = intents.fit(TEXTS, LABELS, NAMES, ridge=1e-5, words=True, vectors=None)
    texts, labels = ["cancel the parcel", "refund my order", "where is it"], np.array([1, 2, 1])
    found = intents.calibrated(model, texts, labels, None)

    def loss(temperature: float) -> float:
        logits = model.logits(texts, None) / temperature
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return float(-np.log(share[np.arange(3), labels]).mean())

    assert loss(found.temperature) <= min(
        loss(found.temperature * factor) for factor in (0.95, 1.0, 1.05)
    )


def test_a_model_comes_back_from_its_folder(tmp_path: Path) -> None:
    model = intents.fit(TEXTS, LABELS, NAMES, ridge=1e-2, words=True, vectors=VECTORS)
    model.save(tmp_path)
    again = intents.IntentModel.load(tmp_path)
    assert again.names == NAMES
    assert np.array_equal(again.logits(TEXTS, VECTORS), model.logits(TEXTS, VECTORS))
    (tmp_path / intents.FILE).write_text("{")
    with pytest.raises(UserError, match="the intents cannot be read"):
        intents.IntentModel.load(tmp_path)
    with pytest.raises(ValueError, match="neither words nor vectors"):
        intents.fit(TEXTS, LABELS, NAMES, ridge=1e-2, words=False, vectors=None)
