"""What a customer wants, of a sentence: a linear model on pieces of its words and on a vector."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse
from jaxtyping import Float, Float64, Int

from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json

SHORTEST, LONGEST = 2, 5  # characters of a piece
FILE, WEIGHTS = "intents.json", "intents.npz"
RIDGES = (1e-4, 1e-5, 1e-6)
_STEPS = 100
_SLOPE = 1e-5
"""The largest entry of the gradient at which the fit ends; that of the start is about 0.01."""


@dataclasses.dataclass(frozen=True)
class Pieces:
    """TF-IDF of the pieces of words: 2 to 5 neighbouring characters of a word with its blanks.

        x_tp = (1 + log n_tp) · (log((1 + N)/(1 + N_p)) + 1),  divided by its norm

    with n_tp how often text t has piece p, and N_p of N training texts have it. It is
    scikit-learn's `TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)`.
    """

    pieces: tuple[str, ...]
    weights: Float64[np.ndarray, "P"]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Pieces":
        """Those of the training texts."""
        counts = Counter(piece for text in texts for piece in set(_pieces(text)))
        names = tuple(sorted(counts))
        number = np.array([counts[name] for name in names], np.float64)
        return cls(names, np.log((1 + len(texts)) / (1 + number)) + 1)

    def matrix(self, texts: Sequence[str]) -> Any:
        """The rows of the texts, a sparse matrix `[N, P]`; a text without a known piece is 0."""
        column = {piece: place for place, piece in enumerate(self.pieces)}
        rows, columns, values = [], [], []
        for row, text in enumerate(texts):
            found = Counter(piece for piece in _pieces(text) if piece in column)
            own = np.array([column[piece] for piece in found], np.int64)
            weight = (1 + np.log(list(found.values()))) * self.weights[own] if found else own
            norm = np.sqrt((weight**2).sum())
            rows.append(np.full(len(own), row))
            columns.append(own)
            values.append(weight / (norm if norm else 1.0))
        shape = (len(texts), len(self.pieces))
        place = np.concatenate(rows), np.concatenate(columns)
        return scipy.sparse.csr_matrix((np.concatenate(values), place), shape=shape)


def _pieces(text: str) -> list[str]:
    found = []
    for word in text.casefold().split():
        padded = f" {word} "
        for length in range(SHORTEST, LONGEST + 1):
            found += [padded[at : at + length] for at in range(max(1, len(padded) - length + 1))]
            if len(padded) <= length:  # the whole word, once
                break
    return found


@dataclasses.dataclass(frozen=True)
class IntentModel:
    """p(intent | text) = softmax((x W + v V + b)/T), x of `Pieces`, v the vector of an encoder.

    names: of the K intents. pieces, of_pieces [P, K], of_vector [H, K]: None where it does not
    read pieces, or no vector. temperature: T, by which probabilities are right on texts that the
    model was not fitted on (Guo et al. 2017, "On calibration of modern neural networks").
    """

    names: tuple[str, ...]
    bias: np.ndarray
    pieces: Pieces | None = None
    of_pieces: np.ndarray | None = None
    of_vector: np.ndarray | None = None
    temperature: float = 1.0

    def logits(
        self, texts: Sequence[str], vectors: Float[np.ndarray, "N H"] | None
    ) -> Float64[np.ndarray, "N K"]:
        """Before the temperature."""
        found = np.tile(self.bias, (len(texts), 1))
        if self.pieces is not None and self.of_pieces is not None:
            found = found + self.pieces.matrix(texts) @ self.of_pieces
        if self.of_vector is not None:
            assert vectors is not None
            found = found + vectors @ self.of_vector
        return found

    def probabilities(
        self, texts: Sequence[str], vectors: Float[np.ndarray, "N H"] | None
    ) -> Float64[np.ndarray, "N K"]:
        """Of each intent."""
        return _softmax(self.logits(texts, vectors) / self.temperature)

    def save(self, folder: Path) -> None:
        """Leaves FILE and WEIGHTS."""
        arrays = {"bias": self.bias, "of_pieces": self.of_pieces, "of_vector": self.of_vector}
        if self.pieces is not None:
            arrays["weights"] = self.pieces.weights
        known: dict[str, Any] = {name: value for name, value in arrays.items() if value is not None}
        with (folder / WEIGHTS).open("wb") as file:
            np.savez(file, **known)
        pieces = None if self.pieces is None else list(self.pieces.pieces)
        told = {"names": list(self.names), "temperature": self.temperature, "pieces": pieces}
        write_json(folder / FILE, told)

    @classmethod
    def load(cls, folder: Path) -> "IntentModel":
        """What `save` left; UserError where it cannot be read."""
        try:
            told = read_json(folder / FILE)
            with np.load(folder / WEIGHTS) as stored:
                arrays = {name: stored[name] for name in stored.files}
            pieces = None
            if told["pieces"] is not None:
                pieces = Pieces(tuple(told["pieces"]), arrays.pop("weights"))
            return cls(
                tuple(told["names"]), pieces=pieces, temperature=told["temperature"], **arrays
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{folder}: the intents cannot be read ({reason}): copy the model's folder again"
            ) from None


def fit(
    texts: Sequence[str],
    labels: Int[np.ndarray, "N"],
    names: Sequence[str],
    *,
    ridge: float,
    words: bool,
    vectors: Float[np.ndarray, "N H"] | None,
) -> IntentModel:
    """The model with the least mean cross-entropy + ridge/2 of the squares of W and V.

    L-BFGS from 0; the objective is convex, so there is one minimum. Deterministic. It is
    scikit-learn's `LogisticRegression(C=1/(N · ridge))`.

    words: whether it reads pieces of words. vectors: of the texts, None where it reads none.

    Raises ValueError where it would read nothing.
    """
    if not words and vectors is None:
        raise ValueError("neither words nor vectors are to be read")
    pieces = Pieces.of(texts) if words else None
    matrix = None if pieces is None else pieces.matrix(texts)
    dense = None if vectors is None else np.asarray(vectors, np.float64)
    at = 0 if pieces is None else len(pieces.pieces)
    width = at + (0 if dense is None else dense.shape[1]) + 1
    every, shape = np.arange(len(texts)), (width, len(names))

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        logits = np.tile(weights[-1], (len(texts), 1))
        logits += 0 if matrix is None else matrix @ weights[:at]
        logits += 0 if dense is None else dense @ weights[at:-1]
        share = _softmax(logits)
        value = -np.log(np.maximum(share[every, labels], 1e-300)).mean()
        share[every, labels] -= 1
        share /= len(texts)
        gradient = ridge * weights
        gradient[:at] += 0 if matrix is None else matrix.T @ share
        gradient[at:-1] += 0 if dense is None else dense.T @ share
        gradient[-1] = share.sum(0)
        value += ridge / 2 * (weights[:-1] ** 2).sum()
        return float(value), gradient.reshape(-1)

    found = scipy.optimize.minimize(
        objective,
        np.zeros(shape[0] * shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _STEPS, "gtol": _SLOPE},
    )
    weights = found.x.reshape(shape)
    return IntentModel(
        tuple(names),
        weights[-1],
        pieces,
        None if pieces is None else weights[:at],
        None if dense is None else weights[at:-1],
    )


def calibrated(
    model: IntentModel,
    texts: Sequence[str],
    labels: Int[np.ndarray, "N"],
    vectors: Float[np.ndarray, "N H"] | None,
) -> IntentModel:
    """The model with the temperature of least cross-entropy on texts that it was not fitted on."""
    logits = model.logits(texts, vectors)

    def loss(scale: float) -> float:
        share = _softmax(logits * np.exp(scale))[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(share, 1e-300)).mean())

    found = scipy.optimize.minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded")
    return dataclasses.replace(model, temperature=float(np.exp(-found.x)))


def _softmax(logits: Float[np.ndarray, "N K"]) -> Float64[np.ndarray, "N K"]:
    found = np.exp(logits - logits.max(1, keepdims=True))
    result: np.ndarray = found / found.sum(1, keepdims=True)
    return result
